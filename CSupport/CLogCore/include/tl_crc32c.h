// CRC32C (Castagnoli), the checksum of everything that TwinLog stores. All variants give the same result; the
// best one is chosen once, at run time, and tests run each.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum tl_isa {
    TL_ISA_PORTABLE = 0, // tables; stores through the cache
    TL_ISA_CRC = 1,      // the processor's crc32c instruction
    TL_ISA_FOLD = 2,     // carry-less multiplication, 256 bytes a step (x86-64: AVX-512 VPCLMULQDQ)
} tl_isa;

/// The best variant that this processor has.
tl_isa tl_isa_best(void);
/// Whether this processor can run `isa`.
bool tl_isa_available(tl_isa isa);

/// CRC32C of `bytes`, continuing from `seed` (0 for a fresh one): crc(crc(0, a), b) == crc(0, ab).
uint32_t tl_crc32c(uint32_t seed, const void *bytes, size_t count);
/// The same with a given variant, which must be available.
uint32_t tl_crc32c_with(tl_isa isa, uint32_t seed, const void *bytes, size_t count);
