// Inner loops for x86-64. Each reads a line once, checksums it in registers and stores it past the cache.
//
// The folding variants keep 128-bit remainders in lanes and multiply them forward by x^distance modulo the polynomial
// (Gopal et al., "Fast CRC Computation Using PCLMULQDQ", 2009). The constant of a distance of D bits is the pair
// x^(D+31) mod P and x^(D-33) mod P, bit-reversed.
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "tl_kernels.h"

#define CRC __attribute__((target("sse4.2")))
#define FOLD128 __attribute__((target("sse4.2,pclmul")))
#define FOLD512 __attribute__((target("sse4.2,pclmul,avx512f,avx512vl,avx512dq,vpclmulqdq")))

enum { FOLD128_LEAST_LINES = 4, FOLD512_LEAST_LINES = 8 };

tl_isa tl_kernel_detect(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse4.2")) return TL_ISA_PORTABLE;
    if (!__builtin_cpu_supports("pclmul")) return TL_ISA_CRC;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("vpclmulqdq"))
        return TL_ISA_FOLD512;
    return TL_ISA_FOLD128;
}

bool tl_kernel_bypasses_cache(tl_isa isa) { return isa != TL_ISA_PORTABLE; }

static inline void stream128(uint8_t *to, __m128i a, __m128i b, __m128i c, __m128i d) {
    __m128i *line = (__m128i *)to;
    _mm_stream_si128(line, a);
    _mm_stream_si128(line + 1, b);
    _mm_stream_si128(line + 2, c);
    _mm_stream_si128(line + 3, d);
}

static inline __m128i load128(const uint8_t *from, int lane) { return _mm_loadu_si128((const __m128i *)from + lane); }

static void copy128(uint8_t *to, const uint8_t *from, size_t lines) {
    for (; lines; lines--, to += 64, from += 64)
        stream128(to, load128(from, 0), load128(from, 1), load128(from, 2), load128(from, 3));
}

CRC static uint32_t crc_bytes(const uint8_t *from, size_t count, uint32_t state) {
    uint64_t wide = state;
    for (; count >= 8; count -= 8, from += 8) {
        uint64_t word;
        memcpy(&word, from, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    state = (uint32_t)wide;
    for (; count; count--) state = _mm_crc32_u8(state, *from++);
    return state;
}

CRC static uint32_t crc_lines(uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
    for (; lines; lines--, from += 64) {
        if (to) {
            copy128(to, from, 1);
            to += 64;
        }
        state = crc_bytes(from, 64, state);
    }
    return state;
}

FOLD128 static inline __m128i fold128(__m128i lane, __m128i constant, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(lane, constant, 0x00);
    __m128i high = _mm_clmulepi64_si128(lane, constant, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/// The CRC register of four adjacent lanes: three folds over 128 bits, then the instruction.
FOLD128 static inline uint32_t finish128(__m128i a, __m128i b, __m128i c, __m128i d) {
    const __m128i by128 = _mm_set_epi64x(0x493c7d27, 0xf20c0dfe);
    d = fold128(fold128(fold128(a, by128, b), by128, c), by128, d);
    uint64_t state = _mm_crc32_u64(0, (uint64_t)_mm_extract_epi64(d, 0));
    return (uint32_t)_mm_crc32_u64(state, (uint64_t)_mm_extract_epi64(d, 1));
}

FOLD128 static uint32_t fold128_lines(uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
    const __m128i by512 = _mm_set_epi64x(0x9e4addf8, 0x740eef02);
    __m128i a = load128(from, 0), b = load128(from, 1), c = load128(from, 2), d = load128(from, 3);
    if (to) stream128(to, a, b, c, d);
    a = _mm_xor_si128(a, _mm_cvtsi32_si128((int)state));
    for (size_t line = 1; line < lines; line++) {
        from += 64;
        __m128i na = load128(from, 0), nb = load128(from, 1), nc = load128(from, 2), nd = load128(from, 3);
        if (to) stream128(to += 64, na, nb, nc, nd);
        a = fold128(a, by512, na);
        b = fold128(b, by512, nb);
        c = fold128(c, by512, nc);
        d = fold128(d, by512, nd);
    }
    return finish128(a, b, c, d);
}

FOLD512 static inline __m512i fold512(__m512i lanes, __m512i constant, __m512i next) {
    __m512i low = _mm512_clmulepi64_epi128(lanes, constant, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(lanes, constant, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96); // the xor of all three
}

FOLD512 static inline __m512i take512(uint8_t *to, const uint8_t *from, size_t line) {
    __m512i value = _mm512_loadu_si512(from + line * 64);
    if (to) _mm512_stream_si512((__m512i *)(to + line * 64), value);
    return value;
}

FOLD512 static uint32_t fold512_lines(uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
    const __m512i by2048 = _mm512_broadcast_i32x4(_mm_set_epi64x(0xb9e02b86, 0xdcb17aa4));
    const __m512i by512 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x9e4addf8, 0x740eef02));
    __m512i a = take512(to, from, 0), b = take512(to, from, 1), c = take512(to, from, 2), d = take512(to, from, 3);
    a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
    size_t line = 4;
    for (; line + 4 <= lines; line += 4) {
        a = fold512(a, by2048, take512(to, from, line));
        b = fold512(b, by2048, take512(to, from, line + 1));
        c = fold512(c, by2048, take512(to, from, line + 2));
        d = fold512(d, by2048, take512(to, from, line + 3));
    }
    d = fold512(fold512(fold512(a, by512, b), by512, c), by512, d);
    for (; line < lines; line++) d = fold512(d, by512, take512(to, from, line));
    return finish128(_mm512_extracti32x4_epi32(d, 0), _mm512_extracti32x4_epi32(d, 1), _mm512_extracti32x4_epi32(d, 2),
                     _mm512_extracti32x4_epi32(d, 3));
}

uint32_t tl_kernel_lines(tl_isa isa, uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
    if (isa == TL_ISA_PORTABLE) return tl_portable_lines(to, from, lines, state);
    if (isa >= TL_ISA_FOLD512 && lines >= FOLD512_LEAST_LINES) return fold512_lines(to, from, lines, state);
    if (isa >= TL_ISA_FOLD128 && lines >= FOLD128_LEAST_LINES) return fold128_lines(to, from, lines, state);
    return crc_lines(to, from, lines, state);
}

uint32_t tl_kernel_bytes(tl_isa isa, const uint8_t *from, size_t count, uint32_t state) {
    return isa == TL_ISA_PORTABLE ? tl_portable_bytes(from, count, state) : crc_bytes(from, count, state);
}

void tl_kernel_copy(tl_isa isa, uint8_t *to, const uint8_t *from, size_t lines) {
    if (isa == TL_ISA_PORTABLE)
        memcpy(to, from, lines * 64);
    else
        copy128(to, from, lines);
}
#endif
