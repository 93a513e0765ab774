// Reads a log that nobody writes, whole writes in order, and judges how it ends (S5, S7). Trusts nothing in the ring:
// every length is bounded before it is used, and the work is bounded by the ring's size.
#pragma once
#include "tl_record.h"

typedef enum tl_verdict {
    TL_VERDICT_CLEAN = 0,   // after the last write, no trace of another
    TL_VERDICT_TORN = 1,    // traces of writes that nobody was promised: may be discarded
    TL_VERDICT_CORRUPT = 2, // a promised record is missing or damaged: never discard silently
} tl_verdict;

typedef struct tl_scan {
    tl_ring ring;
    uint64_t head;         // where it began
    uint64_t position;     // the end of the last whole valid write
    uint64_t acknowledged; // the highest acknowledged LSN found
    uint64_t first_bad;    // of the record that stopped the scan; `position` if clean
    uint64_t records, writes;
    tl_verdict verdict; // once tl_scan_next has returned false
} tl_scan;

typedef struct tl_scanned_write {
    uint64_t start, end;
    uint32_t records; // pads included
} tl_scanned_write;

/// Starts at `head`, a multiple of 64. `acknowledged` is what the head slots say.
tl_scan tl_scan_begin(const tl_ring *ring, uint64_t head, uint64_t acknowledged);
/// The next write, every record of it verified; read them with tl_record_read_header from `start`. False at the end,
/// with the verdict set.
bool tl_scan_next(tl_scan *scan, tl_scanned_write *out);

/// The LSN of the first record with a valid header in [from, to), or `to`. Its payload is for the caller to judge: a
/// checksum at each step would let a hostile ring make the work quadratic.
uint64_t tl_scan_find_record(const tl_ring *ring, uint64_t from, uint64_t to);
