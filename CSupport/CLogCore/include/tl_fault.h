// Memory faults (S26): a load or store that meets an uncorrectable error of a mapped pool, or a page that its file does not
// have any more, raises SIGBUS. For a mapping that is watched, the page is replaced by one of zeros, the range is noted, and the
// instruction runs again: what was there fails its checksum, like any other damage. Any other fault goes to whoever handled
// SIGBUS before, or ends the process.
//
// Invariant: a range is noted before its page is replaced, so whoever read zeros from it finds the note.
// What is stored to a replaced page never reaches the file: whoever finds a note must not call anything there durable.
// All functions are safe from any number of threads.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TL_FAULT_MAPPINGS = 256, // watched at once, in one process
    TL_FAULT_RANGES = 32,    // told apart in each; with more, the last one grows
};

/// Watches a mapping from now on. Its number, or -1 if too many are watched already: a fault there then ends the process.
/// The first call takes over SIGBUS.
int tl_fault_watch(void *base, size_t length);
/// Ends it, before the mapping is unmapped.
void tl_fault_unwatch(int mapping);
/// Whether any watched mapping has ever had a fault: one load, for hot paths.
bool tl_fault_any(void);
/// How many ranges of the mapping were replaced, at most TL_FAULT_RANGES.
size_t tl_fault_count(int mapping);
/// The range at `index`, below the count: bytes from the mapping's base.
void tl_fault_range(int mapping, size_t index, uint64_t *offset, uint64_t *length);
/// Loads a byte of every page of `bytes`, so that a fault there is met and noted before anything relies on them.
void tl_fault_touch(const void *bytes, size_t count);
