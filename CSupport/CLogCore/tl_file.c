// See tl_file.h.
#include "tl_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

static int set_lock(int descriptor, short type) {
    struct flock whole = {.l_type = type, .l_whence = SEEK_SET};
    return fcntl(descriptor, F_OFD_SETLK, &whole);
}

int tl_file_lock(int descriptor, bool exclusive) { return set_lock(descriptor, exclusive ? F_WRLCK : F_RDLCK); }
int tl_file_unlock(int descriptor) { return set_lock(descriptor, F_UNLCK); }

int tl_file_is_in_memory(int descriptor) {
    struct statfs about;
    if (fstatfs(descriptor, &about) != 0) return -1;
    return about.f_type == TMPFS_MAGIC || about.f_type == RAMFS_MAGIC;
}

void *tl_file_map(int descriptor, size_t length, bool writable, bool *is_dax) {
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *base = mmap(NULL, length, protection, MAP_SHARED_VALIDATE | MAP_SYNC, descriptor, 0);
    *is_dax = base != MAP_FAILED;
    if (base == MAP_FAILED) base = mmap(NULL, length, protection, MAP_SHARED, descriptor, 0);
    return base == MAP_FAILED ? NULL : base;
}
