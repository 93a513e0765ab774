// Records in bytes: see tl_record.h.
#include "tl_record.h"

#include <string.h>

#include "tl_bytes.h"
#include "tl_crc32c.h"

// Places of the fields in the header.
enum {
    AT_HEADER_CRC = 0,
    AT_PAYLOAD_CRC = 4,
    AT_LSN = 8,
    AT_ACKNOWLEDGED = 16,
    AT_INCARNATION = 24,
    AT_OFFSET = 32,
    AT_PAYLOAD_BYTES = 40,
    AT_RANGE_BYTES = 44,
    AT_VOLUME = 48,
    AT_KIND = 52,
    AT_FLAGS = 53,
    AT_NUMBER = 54,
    AT_COUNT = 56,
    AT_ZEROS = 58,
};
_Static_assert(AT_ZEROS + 6 == TL_HEADER_BYTES, "the header is one line");
_Static_assert(TL_RECORD_RANGE_BYTES <= UINT32_MAX, "a range fits its field");

void tl_record_encode(const tl_record *record, uint32_t seed, uint8_t *line) {
    uint64_t words[8];
    tl_record_words(record, words);
    for (int word = 0; word < 8; word++) tl_put64(line + 8 * word, words[word]);
    tl_put32(line + AT_HEADER_CRC, tl_crc32c(seed, line + 4, TL_HEADER_BYTES - 4));
}

static void decode(const uint8_t *line, tl_record *out) {
    *out = (tl_record){
        .lsn = tl_get64(line + AT_LSN),
        .acknowledged = tl_get64(line + AT_ACKNOWLEDGED),
        .incarnation = tl_get64(line + AT_INCARNATION),
        .offset = tl_get64(line + AT_OFFSET),
        .payload_crc = tl_get32(line + AT_PAYLOAD_CRC),
        .payload_bytes = tl_get32(line + AT_PAYLOAD_BYTES),
        .range_bytes = tl_get32(line + AT_RANGE_BYTES),
        .volume = tl_get32(line + AT_VOLUME),
        .number = tl_get16(line + AT_NUMBER),
        .count = tl_get16(line + AT_COUNT),
        .kind = line[AT_KIND],
        .flags = line[AT_FLAGS],
    };
}

/// A kind has a payload, a range, both the same, or neither.
static bool is_consistent(const tl_record *record) {
    if (record->number >= record->count || record->acknowledged > record->lsn) return false;
    if (record->flags & ~TL_FLAG_KEEP_SPACE) return false;
    if (record->flags && record->kind != TL_KIND_WRITE_ZEROES) return false;
    if (record->offset + record->range_bytes < record->offset) return false;
    switch (record->kind) {
    case TL_KIND_DATA:
        return record->payload_bytes > 0 && record->payload_bytes <= TL_RECORD_PAYLOAD_BYTES &&
               record->payload_bytes == record->range_bytes;
    case TL_KIND_DISCARD:
    case TL_KIND_WRITE_ZEROES: return record->payload_bytes == 0 && record->range_bytes > 0;
    case TL_KIND_PAD: return record->payload_bytes == 0 && record->range_bytes == 0;
    case TL_KIND_WATERMARK: return record->payload_bytes == 0 && record->range_bytes == 0 && record->count == 1;
    default: return false;
    }
}

tl_validity tl_record_read_header(const tl_ring *ring, uint64_t lsn, uint64_t end, tl_record *out) {
    uint64_t place = lsn % ring->size;
    const uint8_t *line = ring->bytes + place;
    if (tl_get64(line + AT_LSN) != lsn || tl_get64(line + AT_INCARNATION) != ring->incarnation) return TL_NOTHING_HERE;
    if (tl_get32(line) != tl_crc32c(ring->seed, line + 4, TL_HEADER_BYTES - 4)) return TL_BAD_HEADER;
    decode(line, out);
    uint64_t bytes = tl_record_bytes(out->payload_bytes);
    if (bytes > ring->size - place || bytes > end - lsn || !is_consistent(out)) return TL_BAD_HEADER;
    return TL_VALID;
}

tl_validity tl_record_read(const tl_ring *ring, uint64_t lsn, uint64_t end, tl_record *out) {
    tl_validity header = tl_record_read_header(ring, lsn, end, out);
    if (header != TL_VALID) return header;
    const uint8_t *payload = ring->bytes + lsn % ring->size + TL_HEADER_BYTES;
    return tl_crc32c(ring->seed, payload, out->payload_bytes) == out->payload_crc ? TL_VALID : TL_BAD_PAYLOAD;
}

bool tl_record_header_at_place(const tl_ring *ring, uint64_t place, tl_record *out) {
    const uint8_t *line = ring->bytes + place;
    if (tl_get64(line + AT_INCARNATION) != ring->incarnation) return false; // before the dear division
    uint64_t lsn = tl_get64(line + AT_LSN);
    if (lsn > TL_MAXIMUM_LSN || lsn % ring->size != place) return false;
    return tl_record_read_header(ring, lsn, lsn + ring->size, out) == TL_VALID;
}

bool tl_record_lost_its_place(const tl_ring *ring, uint64_t lsn) {
    uint8_t line[TL_HEADER_BYTES];
    memcpy(line, ring->bytes + lsn % ring->size, sizeof line);
    tl_put64(line + AT_LSN, lsn);
    tl_put64(line + AT_INCARNATION, ring->incarnation);
    return tl_get32(line) == tl_crc32c(ring->seed, line + 4, TL_HEADER_BYTES - 4);
}

tl_layout tl_layout_begin(tl_kind kind, uint64_t length, uint64_t lsn, uint64_t ring_size) {
    return (tl_layout){.lsn = lsn, .length = length, .ring_size = ring_size, .kind = kind};
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

bool tl_layout_next(tl_layout *layout, tl_piece *out) {
    uint64_t left = layout->length - layout->done;
    bool is_watermark = layout->kind == TL_KIND_WATERMARK;
    if (is_watermark ? layout->done == 1 : left == 0) return false;
    uint64_t room = layout->ring_size - layout->lsn % layout->ring_size, payload = 0;
    *out = (tl_piece){.lsn = layout->lsn, .at = layout->done, .kind = layout->kind};
    if (is_watermark) {
        layout->done = 1;
    } else if (layout->kind != TL_KIND_DATA) {
        out->range = least(left, TL_RECORD_RANGE_BYTES);
    } else if (room == TL_HEADER_BYTES) {
        out->kind = TL_KIND_PAD;
    } else {
        out->range = payload = least(least(left, TL_RECORD_PAYLOAD_BYTES), room - TL_HEADER_BYTES);
    }
    layout->done += out->range;
    layout->lsn += tl_record_bytes(payload);
    return true;
}
