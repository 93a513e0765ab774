// System calls around a pool file that Swift cannot name.
#pragma once
#include <stdbool.h>
#include <stddef.h>

/// Takes an open-file-description lock on the whole file without waiting: exclusive (the descriptor must be
/// writable) or shared. 0, or -1 with errno EAGAIN or EACCES if another description holds it.
int tl_file_lock(int descriptor, bool exclusive);
/// Ends the lock at once; closing alone would leave it as long as a mapping refers to the description.
int tl_file_unlock(int descriptor);
/// 1 if the file is on tmpfs or ramfs, 0 if not, -1 with errno.
int tl_file_is_in_memory(int descriptor);
/// Maps the first `length` bytes, shared, on a boundary that lets the kernel use huge pages. `is_dax` tells whether the kernel
/// agreed to MAP_SYNC: the file's memory is persistent memory itself. NULL with errno on failure.
void *tl_file_map(int descriptor, size_t length, bool writable, bool *is_dax);
/// Brings in all pages of a mapping, so that no later access takes a page fault; `for_stores` dirties them. 0, or -1 with
/// errno.
int tl_file_prefault(void *base, size_t length, bool for_stores);
