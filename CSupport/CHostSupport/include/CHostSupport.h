// System calls that Swift's Glibc overlay does not reach. Every function answers 0 (or a value >= 0) or a negative errno.
// All are thread-safe.
#pragma once
#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "tl_process.h"

/// Takes an open-file-description lock of the whole file without waiting: exclusive (the descriptor must be writable) or shared.
/// -EAGAIN if another description holds one that forbids it.
int tl_host_lock(int fd, bool exclusive);
/// Ends the lock at once; closing alone would leave it as long as a mapping refers to the description.
int tl_host_unlock(int fd);
/// 1 if another description holds a lock of the file, 0 if none does. Takes nothing.
int tl_host_is_locked(int fd);

/// Reads an extended attribute; answers its bytes. -ENODATA if the file has none, -ERANGE if it is longer than `capacity`,
/// -EOPNOTSUPP if the file system keeps none.
ssize_t tl_host_get_attribute(int fd, const char *name, void *value, size_t capacity);
/// Gives the file an extended attribute that it does not have yet; -EEXIST if it has.
int tl_host_create_attribute(int fd, const char *name, const void *value, size_t length);
/// Gives the file an extended attribute, whatever it had under that name.
int tl_host_set_attribute(int fd, const char *name, const void *value, size_t length);

/// A descriptor for the process `pid`. -ESRCH if there is none.
int tl_host_pidfd_open(pid_t pid);
int tl_host_pidfd_kill(int pidfd);
/// 1 if the process has ended, 0 if it has not within the time.
int tl_host_pidfd_wait(int pidfd, int timeout_millis);

/// A process that is spawned with `actions` has no descriptor from `first` on.
int tl_host_close_from(posix_spawn_file_actions_t *actions, int first);

/// Nanoseconds since boot, counting suspension.
uint64_t tl_host_boot_nanos(void);
/// How often the calling thread lost its processor to another thread.
long tl_host_involuntary_switches(void);

/// The size of an open block device.
int tl_host_block_size(int fd, uint64_t *bytes);
/// Makes a range of a block device read as zeros.
int tl_host_block_zero(int fd, uint64_t offset, uint64_t length);
/// The numbers by which the kernel names the device of `st_rdev`.
unsigned tl_host_device_major(dev_t device);
unsigned tl_host_device_minor(dev_t device);
/// The most bytes that an open block device takes with one request.
int tl_host_block_transfer(int fd, uint64_t *bytes);

enum { TL_HOST_SCSI_NONE, TL_HOST_SCSI_OUT, TL_HOST_SCSI_INTO };

/// How a SCSI command ended: the unit's status and sense, and what the kernel says of the way there (0: nothing).
struct tl_host_scsi_answer {
    uint8_t status, sense_key, additional_sense, qualifier;
    uint16_t host_status;
    uint32_t residual;
};

/// Carries a SCSI command out on an open block device (SG_IO). 0 if it ended at all, whichever way.
int tl_host_scsi_command(
    int fd, const uint8_t *command, uint8_t command_length, int direction, void *bytes, uint32_t count, uint32_t timeout_millis,
    struct tl_host_scsi_answer *answer);
/// LOGICAL UNIT RESET, and nothing larger if that fails.
int tl_host_scsi_reset(int fd);

/// Drops cached pages, so that what another host wrote is seen (S18).
int tl_host_drop_cache(int fd, bool is_block_device);
/// Drops the cached pages of a range and their neighbours on the same pages; dirty ones stay.
int tl_host_drop_range(int fd, uint64_t offset, uint64_t length);
/// How a read of an open file can be tried where nothing may wait for a device.
enum tl_ready_read {
    /// It cannot: nothing is known of the file system.
    TL_READY_READ_NONE = 0,
    /// The kernel is asked not to wait.
    TL_READY_READ_ASKS = 1,
    /// The file lies in memory.
    TL_READY_READ_MEMORY = 2,
};
/// Finds out which; reads do not change the file's time of access from then on, where that would write to a journal.
enum tl_ready_read tl_host_ready_read(int fd, bool is_block_device);
/// Reads what is in memory; answers how many bytes. -EAGAIN if that is nothing.
ssize_t tl_host_read_ready(int fd, enum tl_ready_read how, void *bytes, size_t length, uint64_t offset);
/// Makes a range of a file read as zeros, releasing its blocks or keeping them.
int tl_host_file_zero(int fd, uint64_t offset, uint64_t length, bool releasing);
/// Begins to write the dirty pages of a range of a file to its device; waits for none of them, but for room in the device's queue. What
/// goes wrong is told by the next fdatasync: those pages are still dirty, or the file remembers.
void tl_host_start_writeback(int fd, uint64_t offset, uint64_t length);

/// What a socket's name leads to.
struct tl_socket_file {
    uint64_t device;
    uint64_t inode;
};
/// Gives a file, or a folder, a mode and, unless that is UINT32_MAX, a group. -EPERM if this user may not: it is of another user, or
/// this user is not in the group.
int tl_host_set_access(int fd, uint32_t mode, uint32_t group);

/// A listening, non-blocking stream socket at `path`, with its mode and group (as in `tl_host_set_access`) before anybody can connect.
/// A socket that nobody listens on is replaced; -EADDRINUSE if somebody does, -EEXIST if something else is at `path`. `made` is the
/// name's file.
int tl_host_listen_unix(const char *path, int backlog, uint32_t mode, uint32_t group, struct tl_socket_file *made);
/// Removes the socket's name, if it still leads to what was made.
void tl_host_remove_socket(const char *path, struct tl_socket_file made);
