// The seam through which every store to persistent memory goes: stream, write back, drain.
//
// Invariants:
//  - nothing stored is durable before a drain made by the same thread after it (S2);
//  - a recorder, where a test has set one, sees every store, write-back and drain, in each thread's order.
// All functions are safe from any number of threads as long as they store to different bytes.
#pragma once
#include "tl_crc32c.h"

struct tl_recorder;

typedef enum tl_persist_mode {
    TL_PERSIST_LINES = 0,    // write cache lines back, then fence
    TL_PERSIST_FENCE = 1,    // caches are inside the persistence domain: a fence is enough
    TL_PERSIST_DEFERRED = 2, // an ordinary file: a drain only orders; the caller makes durable with msync
} tl_persist_mode;

/// What was learned about one mapping. Set up once, then read only.
typedef struct tl_persist {
    tl_persist_mode mode;
    tl_isa isa;
    uint32_t write_back; // private: how lines are written back on this processor
    uint8_t *base;       // the mapping, to which a recorder's offsets refer
    size_t length;
    struct tl_recorder *recorder; // tests only; NULL otherwise
} tl_persist;

enum { TL_LINE_BYTES = 64 };

void tl_persist_init(tl_persist *persist, tl_persist_mode mode, void *base, size_t length);

/// Copies `count` bytes to `to`, of any alignment. Durable after this thread's next drain.
void tl_stream(const tl_persist *persist, void *to, const void *from, size_t count);

/// Copies `count` bytes to `to` (a multiple of 64) and, in the same pass, computes their CRC32C continuing from
/// `seed`. The rest of the last line is filled with zeros. Durable after this thread's next drain.
uint32_t tl_stream_crc32c(const tl_persist *persist, void *to, const void *from, size_t count, uint32_t seed);

/// The same without the checksum.
void tl_stream_padded(const tl_persist *persist, void *to, const void *from, size_t count);

/// Stores a header line to `to` (a multiple of 64): eight words in little-endian order, of which the first four bytes become
/// the CRC32C of the other 60, continuing from `seed`. Durable after this thread's next drain.
void tl_stream_header(const tl_persist *persist, void *to, const uint64_t words[8], uint32_t seed);

/// Everything that this thread streamed before is durable (or, in deferred mode, visible in order) after it.
void tl_drain(const tl_persist *persist);

/// For the recorder, in deferred mode: this thread begins to make these bytes durable, or has made durable what it began.
void tl_note_sync(const tl_persist *persist, const void *at, size_t count, bool is_done);

/// One self-contained block (superblock copy, directory copy, slot): streamed, then drained once.
void tl_store_block(const tl_persist *persist, void *to, const void *from, size_t count);
