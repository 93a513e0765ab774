// See tl_file.h.
#include "tl_file.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ // glibc before 2.35
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum { SMALL_PAGE_BYTES = 4096, HUGE_PAGE_BYTES = 2 << 20 };

int tl_file_is_in_memory(int descriptor) {
    struct statfs about;
    if (fstatfs(descriptor, &about) != 0) return -errno;
    return about.f_type == TMPFS_MAGIC || about.f_type == RAMFS_MAGIC;
}

/// Room for `length` bytes at a multiple of a huge page, to be mapped over; NULL if there is none.
static void *aligned_room(size_t length) {
    uint8_t *room = mmap(NULL, length + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return NULL;
    size_t before = -(uintptr_t)room & (HUGE_PAGE_BYTES - 1);
    if (before) munmap(room, before);
    munmap(room + before + length, HUGE_PAGE_BYTES - before);
    return room + before;
}

/// Whether the file is persistent memory itself: asked of one page, at a place of the kernel's own choice.
static bool can_map_synchronously(int descriptor, int protection) {
    void *probe = mmap(NULL, SMALL_PAGE_BYTES, protection, MAP_SHARED_VALIDATE | MAP_SYNC, descriptor, 0);
    if (probe == MAP_FAILED) return false;
    munmap(probe, SMALL_PAGE_BYTES);
    return true;
}

int tl_file_map(int descriptor, size_t length, bool writable, void **base, bool *is_dax) {
    length = (length + SMALL_PAGE_BYTES - 1) & ~(size_t)(SMALL_PAGE_BYTES - 1);
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    *is_dax = can_map_synchronously(descriptor, protection);
    int flags = *is_dax ? MAP_SHARED_VALIDATE | MAP_SYNC : MAP_SHARED;
    void *room = length >= HUGE_PAGE_BYTES ? aligned_room(length) : NULL;
    // Over the room, and once: where it fails, the room may be gone already, and its place another thread's. So it is neither
    // tried again nor given back.
    *base = mmap(room, length, protection, flags | (room ? MAP_FIXED : 0), descriptor, 0);
    if (*base == MAP_FAILED) return -errno;
    madvise(*base, length, MADV_HUGEPAGE); // advice: most file systems have none
    return 0;
}

int tl_file_prefault(void *base, size_t length, bool for_stores) {
    if (madvise(base, length, for_stores ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) return 0;
    return errno == EINVAL ? 0 : -errno; // a kernel before 5.14: pages come with their first use
}
