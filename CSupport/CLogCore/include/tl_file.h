// System calls around a pool file that Swift cannot name. Each answers a negative errno when it fails.
#pragma once
#include <stdbool.h>
#include <stddef.h>

/// 1 if the file is on tmpfs or ramfs, 0 if not.
int tl_file_is_in_memory(int descriptor);
/// Maps the first `length` bytes, shared, on a boundary that lets the kernel use huge pages. `is_dax` tells whether the kernel
/// agreed to MAP_SYNC: the file's memory is persistent memory itself.
int tl_file_map(int descriptor, size_t length, bool writable, void **base, bool *is_dax);
/// Brings in all pages of a mapping, so that no later access takes a page fault; `for_stores` dirties them.
int tl_file_prefault(void *base, size_t length, bool for_stores);
