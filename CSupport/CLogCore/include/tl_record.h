// A record: its 64-byte header in bytes, and the rules by which a write becomes a list of records. The format is
// drawn in docs/FORMATS.md, "A record of the log".
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TL_HEADER_BYTES = 64,
    TL_UNIT_BYTES = 64,                  // records start at multiples of it
    TL_RECORD_PAYLOAD_BYTES = 1 << 20,   // the most that one record carries
    TL_MAXIMUM_RECORDS = 65535,          // of one write: a u16 on the medium
    TL_CONTROL_BYTES = 4096,             // of the ring, kept for control records (S6)
};
/// The most bytes of a volume that one record without payload covers; a larger range is split here.
#define TL_RECORD_RANGE_BYTES (UINT64_C(1) << 31)
/// LSNs count bytes ever written; this leaves room for every sum with a ring's size.
#define TL_MAXIMUM_LSN (UINT64_C(1) << 62)

typedef enum tl_kind {
    TL_KIND_DATA = 1,
    TL_KIND_DISCARD = 2,
    TL_KIND_WRITE_ZEROES = 3,
    TL_KIND_PAD = 4,
    TL_KIND_WATERMARK = 5,
} tl_kind;

enum { TL_FLAG_KEEP_SPACE = 1 };

typedef struct tl_record {
    uint64_t lsn, acknowledged, incarnation, offset;
    uint32_t payload_crc, payload_bytes, range_bytes, volume;
    uint16_t number, count; // in its write
    uint8_t kind, flags;
} tl_record;

/// A ring of log bytes and what its records are checked with.
typedef struct tl_ring {
    const uint8_t *bytes;
    uint64_t size; // a multiple of 4096
    uint64_t incarnation;
    uint32_t seed;
} tl_ring;

/// Bytes of the ring that a record occupies.
static inline uint64_t tl_record_bytes(uint64_t payload_bytes) {
    return TL_HEADER_BYTES + ((payload_bytes + TL_UNIT_BYTES - 1) & ~(uint64_t)(TL_UNIT_BYTES - 1));
}

/// Writes the header of `record` to `line` (64 bytes), its checksum included.
void tl_record_encode(const tl_record *record, uint32_t seed, uint8_t *line);
/// The header of `record` as eight words of a little-endian line, but for its checksum, which tl_stream_header adds.
static inline void tl_record_words(const tl_record *record, uint64_t words[8]) {
    words[0] = (uint64_t)record->payload_crc << 32;
    words[1] = record->lsn;
    words[2] = record->acknowledged;
    words[3] = record->incarnation;
    words[4] = record->offset;
    words[5] = (uint64_t)record->range_bytes << 32 | record->payload_bytes;
    words[6] = (uint64_t)record->number << 48 | (uint64_t)record->flags << 40 | (uint64_t)record->kind << 32 | record->volume;
    words[7] = record->count;
}

typedef enum tl_validity {
    TL_VALID = 0,
    TL_NOTHING_HERE = 1, // no sign that a record of this incarnation was ever issued at this LSN
    TL_BAD_HEADER = 2,   // one was, and its header fails
    TL_BAD_PAYLOAD = 3,  // the header is good (and in `out`), the payload fails
} tl_validity;

/// Judges the header at `lsn`: checksum, position, incarnation, and every length bounded by `end` and the ring's end
/// (S3, S21). Preconditions: `lsn` is a multiple of 64 and below `end`.
tl_validity tl_record_read_header(const tl_ring *ring, uint64_t lsn, uint64_t end, tl_record *out);
/// The same, and the payload's checksum.
tl_validity tl_record_read(const tl_ring *ring, uint64_t lsn, uint64_t end, tl_record *out);

/// Whether a header stands at `lsn` (a multiple of 64) that says of itself, where its LSN or its incarnation has rotted, that it
/// belongs there: with the right ones in their place its checksum is right.
bool tl_record_lost_its_place(const tl_ring *ring, uint64_t lsn);

/// The header of this incarnation that stands at `place` of the ring (a multiple of 64), whatever its lap: checksum and
/// lengths are judged as above. What it says was acknowledged was true once, and stays true for the incarnation.
bool tl_record_header_at_place(const tl_ring *ring, uint64_t place, tl_record *out);

/// A write, to be cut into records from its start LSN: pieces of at most TL_RECORD_PAYLOAD_BYTES, none across the end
/// of the ring, a pad where only 64 bytes are left before it.
typedef struct tl_layout {
    uint64_t lsn, done, length, ring_size;
    tl_kind kind;
} tl_layout;

typedef struct tl_piece {
    uint64_t lsn;
    uint64_t at;    // first byte, relative to the write's
    uint64_t range; // bytes of the volume
    tl_kind kind;   // the write's, or pad
} tl_piece;

tl_layout tl_layout_begin(tl_kind kind, uint64_t length, uint64_t lsn, uint64_t ring_size);
/// False when there is no piece left.
bool tl_layout_next(tl_layout *layout, tl_piece *out);
