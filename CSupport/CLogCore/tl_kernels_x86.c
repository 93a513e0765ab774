// Inner loops for x86-64. Each checksums what it copies while that is in the cache, and stores it past the cache.
//
// Two ways to checksum:
//  - the crc32 instruction on three streams at once, since it takes 8 bytes a cycle but 3 cycles to answer. The three
//    remainders are joined by a carry-less multiplication with x^(bits behind them);
//  - with AVX-512, carry-less multiplication alone: 128-bit remainders in lanes, each multiplied forward by x^distance
//    modulo the polynomial (Gopal et al., "Fast CRC Computation Using PCLMULQDQ", 2009). The constant of a distance of
//    D bits is the pair x^(D+31) mod P and x^(D-33) mod P, bit-reversed.
// Narrower multiplication is no faster than the instruction on any processor that has both, and a third of it on some.
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "tl_kernels.h"

#define CRC __attribute__((target("avx,pclmul")))
#define FOLD __attribute__((target("avx,pclmul,avx512f,avx512vl,avx512dq,vpclmulqdq")))

// A stream of 64 lines would put the three exactly pages apart, in the same sets of the cache.
enum { FOLD_LEAST_LINES = 8, STREAM_MOST_LINES = 63, FETCH_BYTES = 4096 };

/// x^(512 n - 33) mod P, bit-reversed: moves a remainder over n lines.
static uint32_t over_lines[2 * STREAM_MOST_LINES + 1];

/// The product of two bit-reversed polynomials modulo P.
static uint32_t multiplied(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (; a; a <<= 1) {
        if (a >> 31) product ^= b;
        b = b >> 1 ^ (b & 1 ? 0x82F63B78u : 0);
    }
    return product;
}

static uint32_t power_of_x(unsigned exponent) {
    uint32_t power = 0x80000000u; // 1
    while (exponent--) power = multiplied(power, 0x40000000u);
    return power;
}

static void prepare_over_lines(void) {
    uint32_t line = power_of_x(512);
    over_lines[1] = power_of_x(512 - 33);
    for (int lines = 2; lines <= 2 * STREAM_MOST_LINES; lines++)
        over_lines[lines] = multiplied(over_lines[lines - 1], line);
}

tl_isa tl_kernel_prepare(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx") || !__builtin_cpu_supports("pclmul")) return TL_ISA_PORTABLE;
    prepare_over_lines();
    bool folds = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("vpclmulqdq");
    return folds ? TL_ISA_FOLD : TL_ISA_CRC;
}

/// Halves of a line: with quarters, long copies take up to half as long again.
CRC static inline void copy_lines(uint8_t *to, const uint8_t *from, size_t lines) {
    for (; lines; lines--, to += 64, from += 64) {
        __m256i low = _mm256_loadu_si256((const __m256i *)from), high = _mm256_loadu_si256((const __m256i *)from + 1);
        _mm256_stream_si256((__m256i *)to, low);
        _mm256_stream_si256((__m256i *)to + 1, high);
    }
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

/// `remainder` moved by the distance of `constant`: the 63-bit product, reduced by the instruction.
CRC static inline uint32_t moved(uint64_t remainder, uint32_t constant) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)remainder), _mm_cvtsi32_si128((int)constant), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

CRC static inline uint64_t crc_word(uint64_t state, const uint8_t *from) {
    uint64_t word;
    memcpy(&word, from, 8);
    return _mm_crc32_u64(state, word);
}

/// Without a copy, what is read comes from memory: a reader of a log meets a header and a page's end in each record, and the
/// processor's own prefetching begins anew at both. It is harmless beyond the end of what is mapped.
static inline void fetch_early(const uint8_t *line) { _mm_prefetch((const char *)line, _MM_HINT_T0); }

CRC static inline void copy_half_line(uint8_t *to, const uint8_t *from) {
    _mm256_stream_si256((__m256i *)to, _mm256_loadu_si256((const __m256i *)from));
}

/// How many lines each of three streams over `lines` takes.
static inline size_t each_of(size_t lines) {
    return lines / 3 < STREAM_MOST_LINES ? lines / 3 : STREAM_MOST_LINES;
}

/// The remainders of three streams, of `each` lines, as one.
CRC static inline uint32_t joined(uint64_t a, uint64_t b, uint64_t c, size_t each) {
    return moved(a, over_lines[2 * each]) ^ moved(b, over_lines[each]) ^ (uint32_t)c;
}

/// The copy goes on from line to line beside the streams, a store every few words: memory takes one at a time, and what stands
/// behind a store that waits waits too.
CRC static uint32_t crc_copied(uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
    for (size_t each; (each = each_of(lines)); lines -= 3 * each) {
        const uint8_t *first = from, *second = first + each * 64, *third = second + each * 64, *const end = second;
        uint64_t a = state, b = 0, c = 0;
        for (; first != end; first += 64, second += 64, third += 64, to += 3 * 64, from += 3 * 64)
            for (int word = 0; word < 8; word++) {
                a = crc_word(a, first + 8 * word);
                b = crc_word(b, second + 8 * word);
                c = crc_word(c, third + 8 * word);
                if (word < 6) copy_half_line(to + 32 * word, from + 32 * word);
            }
        state = joined(a, b, c, each);
    }
    copy_lines(to, from, lines);
    return crc_bytes(from, lines * 64, state);
}

/// `is_far`: not in the cache yet. What is in the cache is checked while the stores before it wait for memory (see "Stores" in
/// tl_log.c), so this makes as few as it can: hence one pointer and two distances.
CRC static inline __attribute__((always_inline)) uint32_t crc_checked(const uint8_t *from, size_t count, uint32_t state,
                                                                      bool is_far) {
    for (size_t each; (each = each_of(count / 64)); count -= 3 * 64 * each) {
        const size_t distance = each * 64;
        const uint8_t *const end = from + distance, *ahead = from + 3 * distance;
        uint64_t a = state, b = 0, c = 0;
        for (; from != end; from += 64, ahead += 3 * 64) {
            for (int line = 0; is_far && line < 3; line++) fetch_early(ahead + 64 * line);
            for (int word = 0; word < 64; word += 8) {
                a = crc_word(a, from + word);
                b = crc_word(b, from + distance + word);
                c = crc_word(c, from + 2 * distance + word);
            }
        }
        from += 2 * distance;
        state = joined(a, b, c, each);
    }
    return crc_bytes(from, count, state);
}

CRC static uint32_t crc_far(const uint8_t *from, size_t count, uint32_t state) {
    return crc_checked(from, count, state, true);
}

CRC static uint32_t crc_cached(const uint8_t *from, size_t count, uint32_t state) {
    return crc_checked(from, count, state, false);
}

FOLD static inline __m128i fold128(__m128i lane, __m128i constant, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(lane, constant, 0x00);
    __m128i high = _mm_clmulepi64_si128(lane, constant, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/// The CRC register of four adjacent lanes: three folds over 128 bits, then the instruction.
FOLD static inline uint32_t finish128(__m128i a, __m128i b, __m128i c, __m128i d) {
    const __m128i by128 = _mm_set_epi64x(0x493c7d27, 0xf20c0dfe);
    d = fold128(fold128(fold128(a, by128, b), by128, c), by128, d);
    uint64_t state = _mm_crc32_u64(0, (uint64_t)_mm_extract_epi64(d, 0));
    return (uint32_t)_mm_crc32_u64(state, (uint64_t)_mm_extract_epi64(d, 1));
}

FOLD static inline __m512i fold512(__m512i lanes, __m512i constant, __m512i next) {
    __m512i low = _mm512_clmulepi64_epi128(lanes, constant, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(lanes, constant, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96); // the xor of all three
}

FOLD static inline __m512i take512(uint8_t *to, const uint8_t *from, size_t line) {
    __m512i value = _mm512_loadu_si512(from + line * 64);
    if (to)
        _mm512_stream_si512((__m512i *)(to + line * 64), value);
    else
        fetch_early(from + line * 64 + FETCH_BYTES);
    return value;
}

FOLD static uint32_t fold_lines(uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
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
    if (isa == TL_ISA_FOLD && lines >= FOLD_LEAST_LINES) return fold_lines(to, from, lines, state);
    return crc_copied(to, from, lines, state);
}

uint32_t tl_kernel_bytes(tl_isa isa, const uint8_t *from, size_t count, uint32_t state) {
    if (isa == TL_ISA_PORTABLE) return tl_portable_bytes(from, count, state);
    if (isa == TL_ISA_FOLD && count >= FOLD_LEAST_LINES * 64) {
        state = fold_lines(NULL, from, count / 64, state);
        from += count / 64 * 64, count %= 64;
    }
    return crc_far(from, count, state);
}

uint32_t tl_kernel_cached(tl_isa isa, const uint8_t *from, size_t count, uint32_t state) {
    return isa == TL_ISA_CRC ? crc_cached(from, count, state) : tl_kernel_bytes(isa, from, count, state);
}

/// The words were stored just before, one by one: a load of several at once would wait until they have left the store queue,
/// where the payload is before them. So each goes through a register.
static inline long long in_register(uint64_t word) {
    __asm__("" : "+r"(word));
    return (long long)word;
}

CRC static void crc_header(uint8_t *to, const uint64_t words[8], uint32_t state) {
    uint64_t crc = _mm_crc32_u32(state, (uint32_t)(words[0] >> 32));
    for (int word = 1; word < 8; word++) crc = _mm_crc32_u64(crc, words[word]);
    long long first = (long long)((words[0] & ~UINT64_C(0xFFFFFFFF)) | (uint32_t)~crc);
    long long word[8];
    for (int index = 1; index < 8; index++) word[index] = in_register(words[index]);
    _mm256_stream_si256((__m256i *)to + 1, _mm256_set_epi64x(word[7], word[6], word[5], word[4]));
    _mm256_stream_si256((__m256i *)to, _mm256_set_epi64x(word[3], word[2], word[1], first));
}

void tl_kernel_header(tl_isa isa, uint8_t *to, const uint64_t words[8], uint32_t state) {
    if (isa == TL_ISA_PORTABLE)
        tl_plain_header(isa, to, words, state);
    else
        crc_header(to, words, state);
}

void tl_kernel_copy(tl_isa isa, uint8_t *to, const uint8_t *from, size_t lines) {
    if (isa == TL_ISA_PORTABLE)
        memcpy(to, from, lines * 64);
    else
        copy_lines(to, from, lines);
}
#endif
