// Private: the inner loops of copy and checksum, one set per processor family. `state` is a CRC register (inverted
// CRC). A line is 64 bytes.
#pragma once
#include "tl_crc32c.h"

/// Copies `lines` lines to `to` (aligned to a line) and folds them into `state`.
uint32_t tl_kernel_lines(tl_isa isa, uint8_t *to, const uint8_t *from, size_t lines, uint32_t state);
/// Folds any number of bytes into `state`.
uint32_t tl_kernel_bytes(tl_isa isa, const uint8_t *from, size_t count, uint32_t state);
/// The same, of bytes that are in the cache.
uint32_t tl_kernel_cached(tl_isa isa, const uint8_t *from, size_t count, uint32_t state);
/// Copies whole lines to `to`, aligned to a line.
void tl_kernel_copy(tl_isa isa, uint8_t *to, const uint8_t *from, size_t lines);
/// Whether the stores of `isa` bypass the cache, so that no write-back is due.
static inline bool tl_kernel_bypasses_cache(tl_isa isa) {
#if defined(__x86_64__)
    return isa != TL_ISA_PORTABLE;
#else
    (void)isa;
    return false;
#endif
}
/// Stores a header line to `to`, aligned to a line: eight words in little-endian order, of which the first four bytes
/// become the checksum of the other 60, continuing from `state`.
void tl_kernel_header(tl_isa isa, uint8_t *to, const uint64_t words[8], uint32_t state);
/// Makes the loops ready, once, before any other use. Answers the best that the processor has.
tl_isa tl_kernel_prepare(void);

/// The portable loops, on any processor.
uint32_t tl_portable_bytes(const uint8_t *from, size_t count, uint32_t state);
uint32_t tl_portable_lines(uint8_t *to, const uint8_t *from, size_t lines, uint32_t state);
/// tl_kernel_header with cached stores.
void tl_plain_header(tl_isa isa, uint8_t *to, const uint64_t words[8], uint32_t state);
