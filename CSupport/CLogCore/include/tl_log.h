// The log of one group's owner: any number of threads append, without locks.
//
// A write goes through three steps, which `tl_log_append` does in one call:
//   reserve   one compare-and-swap of the tail takes room for all of the write's records, or says "full"
//   store     payload and headers go to the ring through the persistence seam, then ONE drain (S2)
//   publish   the write's end enters the slot table; the watermark moves over what is contiguous when it is asked for
// Invariants:
//  - reclaim <= published <= tail <= reclaim + ring size; published only passes drained writes;
//  - a producer stopped between reserve and publish blocks only what lies above it;
//  - bytes at or above `reclaim` are never stored to again before reclaim has passed them (S6).
#pragma once
#include "tl_persist.h"
#include "tl_record.h"

typedef struct tl_log tl_log;

typedef enum tl_log_result {
    TL_LOG_DONE = 0,
    TL_LOG_FULL = 1,      // no room until the reclaim limit or the watermark moves
    TL_LOG_TOO_LARGE = 2, // never fits: more than tl_log_maximum_bytes or TL_MAXIMUM_RECORDS
} tl_log_result;

typedef struct tl_write {
    const void *payload; // `length` bytes for data, else unused
    uint64_t length;     // bytes of the volume, above 0; ignored for a watermark
    uint64_t offset;     // in the volume; offset + length does not overflow
    uint64_t acknowledged; // the acknowledged LSN that the writer knows (S5); at most the published watermark
    uint32_t volume;
    tl_kind kind; // data, discard, write-zeroes or watermark
    uint8_t flags;
} tl_write;

typedef struct tl_reservation {
    uint64_t start, end;
    uint32_t records;
} tl_reservation;

typedef struct tl_range {
    uint64_t start, end;
} tl_range;

/// A write's place; if `end` is zero it has none, and `start` is the tl_log_result.
typedef struct tl_placed {
    uint64_t start, end;
} tl_placed;

/// Creates the log of an empty ring whose next record has LSN `start`, a multiple of 64. `persist` and the ring
/// outlive the log. 0, or -ENOMEM, or -EINVAL for a ring that is no multiple of 4096 or less than 16 KiB.
int tl_log_create(tl_log **out, const tl_persist *persist, const tl_ring *ring, uint64_t start);
/// The same of a ring that holds records from `head` up to `start`, which is all that any reader of it finds.
int tl_log_resume(tl_log **out, const tl_persist *persist, const tl_ring *ring, uint64_t head, uint64_t start);
void tl_log_destroy(tl_log *log);

/// Reserve, store, drain and publish. `out` is set if the result is TL_LOG_DONE.
tl_log_result tl_log_append(tl_log *log, const tl_write *write, tl_reservation *out);

/// The same of a data write, all in registers: what is stored to memory on the way delays an append (see tl_log.c).
tl_placed tl_log_append_data(tl_log *log, const void *payload, uint64_t length, uint64_t offset, uint64_t acknowledged,
                             uint32_t volume);

/// The steps of it, each once and in this order.
tl_log_result tl_log_reserve(tl_log *log, const tl_write *write, tl_reservation *out);
void tl_log_store(tl_log *log, const tl_write *write, const tl_reservation *reservation);
void tl_log_publish(tl_log *log, const tl_reservation *reservation);

/// The most bytes of the ring that one write takes: a quarter of it, at most 16 MiB.
uint64_t tl_log_maximum_bytes(const tl_log *log);
/// Positions, each with acquire order: what lies below `published` can be read. Whatever was published before the call
/// counts.
uint64_t tl_log_tail(const tl_log *log);
uint64_t tl_log_published(tl_log *log);
uint64_t tl_log_reclaim(const tl_log *log);

/// Whether anything is reserved and not published. If so, `out` is what the watermark stands before: from it to the start of
/// the first published write above it, or to the tail. The reservation of a stopped producer is in it. Looks at up to a
/// window of slots: to be asked now and then, not on the way of a write.
bool tl_log_unpublished(tl_log *log, tl_range *out);
/// Allows the bytes below `lsn` (at most `published`) to be used again. Never moves back.
void tl_log_set_reclaim(tl_log *log, uint64_t lsn);
