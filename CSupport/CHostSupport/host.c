#include "CHostSupport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <poll.h>
#include <scsi/sg.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int result(int value) { return value < 0 ? -errno : value; }

static int set_lock(int fd, short type) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    int locked = fcntl(fd, F_OFD_SETLK, &lock);
    if (locked < 0 && errno == EACCES) return -EAGAIN;
    return result(locked);
}

int tl_host_lock(int fd, bool exclusive) { return set_lock(fd, exclusive ? F_WRLCK : F_RDLCK); }
int tl_host_unlock(int fd) { return set_lock(fd, F_UNLCK); }

int tl_host_is_locked(int fd) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) return -errno;
    return lock.l_type != F_UNLCK;
}

ssize_t tl_host_get_attribute(int fd, const char *name, void *value, size_t capacity) {
    ssize_t length = fgetxattr(fd, name, value, capacity);
    return length < 0 ? -errno : length;
}

int tl_host_create_attribute(int fd, const char *name, const void *value, size_t length) {
    return result(fsetxattr(fd, name, value, length, XATTR_CREATE));
}

int tl_host_set_attribute(int fd, const char *name, const void *value, size_t length) {
    return result(fsetxattr(fd, name, value, length, 0));
}

int tl_host_pidfd_open(pid_t pid) { return result((int)syscall(SYS_pidfd_open, pid, 0)); }

int tl_host_close_from(posix_spawn_file_actions_t *actions, int first) {
    return -posix_spawn_file_actions_addclosefrom_np(actions, first);
}

int tl_host_pidfd_kill(int pidfd) { return result((int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0)); }

int tl_host_pidfd_wait(int pidfd, int timeout_millis) {
    struct pollfd entry = {.fd = pidfd, .events = POLLIN};
    int ready = poll(&entry, 1, timeout_millis);
    if (ready < 0 && errno == EINTR) return 0;
    return result(ready);
}

uint64_t tl_host_boot_nanos(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

long tl_host_involuntary_switches(void) {
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

int tl_host_block_size(int fd, uint64_t *bytes) { return result(ioctl(fd, BLKGETSIZE64, bytes)); }

int tl_host_block_zero(int fd, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    return result(ioctl(fd, BLKZEROOUT, range));
}

unsigned tl_host_device_major(dev_t device) { return major(device); }
unsigned tl_host_device_minor(dev_t device) { return minor(device); }

int tl_host_block_transfer(int fd, uint64_t *bytes) {
    unsigned short sectors = 0;
    int got = ioctl(fd, BLKSECTGET, &sectors);
    *bytes = (uint64_t)sectors * 512;
    return result(got);
}

/// The sense data of either format (SPC-4, 4.5), as far as they came.
static void read_sense(const uint8_t *sense, unsigned length, struct tl_host_scsi_answer *answer) {
    unsigned code = length > 0 ? sense[0] & 0x7F : 0;
    bool is_descriptor = code == 0x72 || code == 0x73;
    if (is_descriptor && length >= 4) {
        answer->sense_key = sense[1] & 0xF;
        answer->additional_sense = sense[2];
        answer->qualifier = sense[3];
    } else if ((code == 0x70 || code == 0x71) && length >= 3) {
        answer->sense_key = sense[2] & 0xF;
        answer->additional_sense = length >= 13 ? sense[12] : 0;
        answer->qualifier = length >= 14 ? sense[13] : 0;
    }
}

int tl_host_scsi_command(
    int fd, const uint8_t *command, uint8_t command_length, int direction, void *bytes, uint32_t count, uint32_t timeout_millis,
    struct tl_host_scsi_answer *answer) {
    static const int directions[] = {SG_DXFER_NONE, SG_DXFER_TO_DEV, SG_DXFER_FROM_DEV};
    uint8_t sense[64] = {0};
    sg_io_hdr_t request;
    memset(&request, 0, sizeof request);
    memset(answer, 0, sizeof *answer);
    request.interface_id = 'S';
    request.dxfer_direction = directions[direction];
    request.cmd_len = command_length;
    request.cmdp = (uint8_t *)command;
    request.dxfer_len = count;
    request.dxferp = bytes;
    request.mx_sb_len = sizeof sense;
    request.sbp = sense;
    request.timeout = timeout_millis;
    int done = ioctl(fd, SG_IO, &request);
    if (done < 0) return -errno;
    answer->status = request.status;
    answer->host_status = request.host_status;
    answer->residual = request.resid > 0 ? (uint32_t)request.resid : 0;
    read_sense(sense, request.sb_len_wr, answer);
    return 0;
}

int tl_host_scsi_reset(int fd) {
    // The kernel's SG_SCSI_RESET_NO_ESCALATE, which the C library's header lacks.
    int what = SG_SCSI_RESET_DEVICE | 0x100;
    return result(ioctl(fd, SG_SCSI_RESET, &what));
}

int tl_host_drop_cache(int fd, bool is_block_device) {
    if (is_block_device) return result(ioctl(fd, BLKFLSBUF, 0));
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

int tl_host_drop_range(int fd, uint64_t offset, uint64_t length) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t start = offset - offset % page;
    uint64_t end = offset + length + (page - (offset + length) % page) % page;
    return -posix_fadvise(fd, (off_t)start, (off_t)(end - start), POSIX_FADV_DONTNEED);
}

enum tl_ready_read tl_host_ready_read(int fd, bool is_block_device) {
    if (is_block_device) return TL_READY_READ_ASKS;
    struct statfs system;
    if (fstatfs(fd, &system) < 0) return TL_READY_READ_NONE;
    switch (system.f_type) {
    case TMPFS_MAGIC: return TL_READY_READ_MEMORY;
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC: break;
    default: return TL_READY_READ_NONE;
    }
    // The time of access would wait for the journal, and so for a device that hangs. Only the file's owner may do without it.
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NOATIME) < 0) return TL_READY_READ_NONE;
    return TL_READY_READ_ASKS;
}

ssize_t tl_host_read_ready(int fd, enum tl_ready_read how, void *bytes, size_t length, uint64_t offset) {
    if (how == TL_READY_READ_NONE) return -EAGAIN;
    struct iovec vector = {.iov_base = bytes, .iov_len = length};
    ssize_t count = preadv2(fd, &vector, 1, (off_t)offset, how == TL_READY_READ_ASKS ? RWF_NOWAIT : 0);
    if (count < 0) return errno == EOPNOTSUPP || errno == EINTR ? -EAGAIN : -errno;
    return count;
}

void tl_host_start_writeback(int fd, uint64_t offset, uint64_t length) {
    (void)sync_file_range(fd, (off64_t)offset, (off64_t)length, SYNC_FILE_RANGE_WRITE);
}

int tl_host_file_zero(int fd, uint64_t offset, uint64_t length, bool releasing) {
    int mode = FALLOC_FL_KEEP_SIZE | (releasing ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    return result(fallocate(fd, mode, (off_t)offset, (off_t)length));
}

/// Removes a socket that a dead process left.
static int remove_stale(const struct sockaddr_un *address) {
    struct stat about;
    if (lstat(address->sun_path, &about) < 0) return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(about.st_mode)) return -EEXIST;
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) return -errno;
    int connected = connect(probe, (const struct sockaddr *)address, sizeof *address);
    int refused = connected < 0 && errno == ECONNREFUSED;
    close(probe);
    if (!refused) return -EADDRINUSE;
    return result(unlink(address->sun_path));
}

int tl_host_set_access(int fd, uint32_t mode, uint32_t group) {
    // The mode last: a change of the group takes the set-group-ID bit away.
    if (group != UINT32_MAX && fchown(fd, (uid_t)-1, (gid_t)group) < 0) return -errno;
    return result(fchmod(fd, (mode_t)mode));
}

/// Nobody can connect before `listen`.
static int bind_unix(int fd, const struct sockaddr_un *address, uint32_t mode, uint32_t group, struct stat *about) {
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) < 0) return -errno;
    const char *path = address->sun_path;
    if ((group == UINT32_MAX || lchown(path, (uid_t)-1, (gid_t)group) == 0) && chmod(path, (mode_t)mode) == 0
        && lstat(path, about) == 0)
        return 0;
    int error = -errno;
    unlink(path);
    return error;
}

int tl_host_listen_unix(const char *path, int backlog, uint32_t mode, uint32_t group, struct tl_socket_file *made) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int stale = remove_stale(&address);
    if (stale < 0) return stale;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    struct stat about;
    int bound = bind_unix(fd, &address, mode, group, &about);
    if (bound >= 0 && listen(fd, backlog) < 0) bound = -errno;
    if (bound < 0) {
        close(fd);
        return bound;
    }
    *made = (struct tl_socket_file){.device = about.st_dev, .inode = about.st_ino};
    return fd;
}

void tl_host_remove_socket(const char *path, struct tl_socket_file made) {
    struct stat about;
    if (lstat(path, &about) == 0 && about.st_dev == made.device && about.st_ino == made.inode) unlink(path);
}
