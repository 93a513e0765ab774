/// Stands between a process and the kernel (LD_PRELOAD) and records each call that changes the file MEDIUM_RECORDED or takes its lock, in
/// MEDIUM_RECORDING, which all processes of a cluster map. Nothing of the recorded program takes part: it cannot tell that it is recorded.
/// With MEDIUM_HOST, a number, it also makes the medium's lock one that only processes with the same number see.
/// A change that goes another way, by a mapping or a system call of the program's own, shows in the checksums, which then are not the medium's.

#include <CMediumRecording.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static struct recording *recording;
static uint64_t *checksums;
static const char *medium;
/// 0: the machine's own locks.
static int host;

static void fail(const char *what) {
    perror(what);
    abort();
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("MEDIUM_RECORDING");
    medium = getenv("MEDIUM_RECORDED");
    const char *number = getenv("MEDIUM_HOST");
    host = number ? atoi(number) : 0;
    if (!path || !medium) fail("MEDIUM_RECORDING and MEDIUM_RECORDED");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) < 0) fail(path);
    recording = mmap(NULL, (size_t)about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (recording == MAP_FAILED) fail(path);
    close(fd);
    checksums = (uint64_t *)&recording->call[recording->capacity];
    // What the process starts, such as a fence agent, is not a writer.
    unsetenv("LD_PRELOAD");
}

/// The medium has its name only once it is complete: what makes it is not recorded.
static bool is_medium(int fd) {
    struct stat named, opened;
    if (!recording) return false;
    int before = errno;
    bool same = stat(medium, &named) == 0 && fstat(fd, &opened) == 0 && named.st_dev == opened.st_dev &&
                named.st_ino == opened.st_ino;
    errno = before;
    return same;
}

static uint64_t tick(void) { return __atomic_add_fetch(&recording->clock, 1, __ATOMIC_SEQ_CST); }

static struct recorded_call *begin(enum recorded_kind kind, uint64_t offset, uint64_t length) {
    static struct recorded_call beyond;
    uint64_t index = __atomic_fetch_add(&recording->calls, 1, __ATOMIC_SEQ_CST);
    struct recorded_call *call = index < recording->capacity ? &recording->call[index] : &beyond;
    call->process = (uint64_t)getpid();
    call->offset = offset;
    call->length = length;
    call->begin = tick();
    __atomic_store_n(&call->kind, kind, __ATOMIC_SEQ_CST);
    return call;
}

static void end(struct recorded_call *call) { __atomic_store_n(&call->end, tick(), __ATOMIC_SEQ_CST); }

// MARK: Checksums

static void set_checksum(uint64_t block, uint64_t sum) {
    if (block < recording->blocks) __atomic_store_n(&checksums[block], sum, __ATOMIC_RELAXED);
}

static void forget(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    for (uint64_t block = offset / RECORDING_BLOCK_BYTES; block <= (offset + length - 1) / RECORDING_BLOCK_BYTES; block++)
        set_checksum(block, CHECKSUM_UNKNOWN);
}

/// Copies out of `parts`, from byte `skip` of them on, one block.
static void gather(uint8_t *block, const struct iovec *parts, uint64_t skip) {
    for (size_t done = 0; done < RECORDING_BLOCK_BYTES; parts++) {
        if (skip >= parts->iov_len) {
            skip -= parts->iov_len;
            continue;
        }
        size_t count = parts->iov_len - skip;
        if (count > RECORDING_BLOCK_BYTES - done) count = RECORDING_BLOCK_BYTES - done;
        memcpy(block + done, (const uint8_t *)parts->iov_base + skip, count);
        done += count;
        skip = 0;
    }
}

/// `length` bytes of `parts` stand at `offset`; `parts` is NULL for zeros.
static void learn(uint64_t offset, uint64_t length, const struct iovec *parts) {
    uint8_t bytes[RECORDING_BLOCK_BYTES] = {0};
    uint64_t first = (offset + RECORDING_BLOCK_BYTES - 1) / RECORDING_BLOCK_BYTES;
    uint64_t past = (offset + length) / RECORDING_BLOCK_BYTES;
    for (uint64_t block = first; block < past; block++) {
        if (parts) gather(bytes, parts, block * RECORDING_BLOCK_BYTES - offset);
        set_checksum(block, recording_checksum(bytes));
    }
}

// MARK: Calls that write

static ssize_t write_parts(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    if (!is_medium(fd)) return syscall(SYS_pwritev2, fd, parts, (long)count, (long)offset, 0L, (long)flags);
    uint64_t length = 0;
    for (int index = 0; index < count; index++) length += parts[index].iov_len;
    struct recorded_call *call = begin(RECORDED_WRITE, (uint64_t)offset, length);
    forget((uint64_t)offset, length);
    ssize_t written = syscall(SYS_pwritev2, fd, parts, (long)count, (long)offset, 0L, (long)flags);
    int number = errno;
    if (written > 0) learn((uint64_t)offset, (uint64_t)written, parts);
    end(call);
    errno = number;
    return written;
}

static int allocate(int fd, int mode, off_t offset, off_t length) {
    if (!is_medium(fd)) return (int)syscall(SYS_fallocate, fd, (long)mode, offset, length);
    struct recorded_call *call = begin(RECORDED_ZERO, (uint64_t)offset, (uint64_t)length);
    bool zeros = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
    if (zeros) forget((uint64_t)offset, (uint64_t)length);
    int result = (int)syscall(SYS_fallocate, fd, (long)mode, offset, length);
    int number = errno;
    if (result == 0 && zeros) learn((uint64_t)offset, (uint64_t)length, NULL);
    end(call);
    errno = number;
    return result;
}

static int truncate_to(int fd, off_t length) {
    if (!is_medium(fd)) return (int)syscall(SYS_ftruncate, fd, length);
    struct recorded_call *call = begin(RECORDED_TRUNCATE, 0, (uint64_t)length);
    int result = (int)syscall(SYS_ftruncate, fd, length);
    int number = errno;
    end(call);
    errno = number;
    return result;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return write_parts(fd, parts, count, offset, 0);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return write_parts(fd, parts, count, offset, 0);
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return write_parts(fd, parts, count, offset, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    return write_parts(fd, parts, count, offset, flags);
}

static ssize_t write_one(int fd, const void *bytes, size_t length, off_t offset) {
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = length};
    return write_parts(fd, &part, 1, offset, 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return write_one(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return write_one(fd, bytes, length, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t length) { return allocate(fd, mode, offset, length); }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return allocate(fd, mode, offset, length); }
int ftruncate(int fd, off_t length) { return truncate_to(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_to(fd, length); }

// MARK: The lock

/// Of machines that share nothing but a disk, each has locks of its own: those of the whole medium are taken at a byte of the host's,
/// far beyond its end, where they meet no other host's.
static struct flock of_host(const struct flock *lock) {
    struct flock own = *lock;
    if (host && own.l_whence == SEEK_SET && own.l_start == 0 && own.l_len == 0) {
        own.l_start = ((off_t)1 << 62) + host;
        own.l_len = 1;
    }
    return own;
}

/// A lock counts from when it is had, and until it is given back.
static int set_lock(int fd, const struct flock *lock) {
    struct flock own = of_host(lock);
    if (lock->l_type == F_UNLCK) end(begin(RECORDED_UNLOCK, (uint64_t)fd, 0));
    int result = (int)syscall(SYS_fcntl, fd, (long)F_OFD_SETLK, &own);
    if (result == 0 && lock->l_type == F_WRLCK) end(begin(RECORDED_LOCK, (uint64_t)fd, 0));
    return result;
}

static int get_lock(int fd, struct flock *lock) {
    struct flock own = of_host(lock);
    int result = (int)syscall(SYS_fcntl, fd, (long)F_OFD_GETLK, &own);
    lock->l_type = own.l_type;
    lock->l_pid = own.l_pid;
    return result;
}

static int control(const char *name, int fd, int command, void *argument) {
    if (command == F_OFD_SETLK && is_medium(fd)) return set_lock(fd, argument);
    if (command == F_OFD_GETLK && is_medium(fd)) return get_lock(fd, argument);
    int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
    return next(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control("fcntl", fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return control("fcntl64", fd, command, argument);
}
