// Inner loops for arm64 (crc32c instructions, cached stores) and, portably, for anything else.
#if !defined(__x86_64__)
#include <string.h>

#include "tl_kernels.h"

#if defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

tl_isa tl_kernel_prepare(void) { return getauxval(AT_HWCAP) & HWCAP_CRC32 ? TL_ISA_CRC : TL_ISA_PORTABLE; }

#if defined(__clang__)
#define CRC __attribute__((target("crc")))
#else
#define CRC __attribute__((target("+crc")))
#endif

CRC static uint32_t crc_bytes(const uint8_t *from, size_t count, uint32_t state) {
    for (; count >= 8; count -= 8, from += 8) {
        uint64_t word;
        memcpy(&word, from, 8);
        state = __crc32cd(state, word);
    }
    for (; count; count--) state = __crc32cb(state, *from++);
    return state;
}
#else
tl_isa tl_kernel_prepare(void) { return TL_ISA_PORTABLE; }

static uint32_t crc_bytes(const uint8_t *from, size_t count, uint32_t state) {
    return tl_portable_bytes(from, count, state);
}
#endif

uint32_t tl_kernel_lines(tl_isa isa, uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
    if (isa == TL_ISA_PORTABLE) return tl_portable_lines(to, from, lines, state);
    for (; lines; lines--, from += 64) {
        if (to) {
            memcpy(to, from, 64);
            to += 64;
        }
        state = crc_bytes(from, 64, state);
    }
    return state;
}

uint32_t tl_kernel_bytes(tl_isa isa, const uint8_t *from, size_t count, uint32_t state) {
    return isa == TL_ISA_PORTABLE ? tl_portable_bytes(from, count, state) : crc_bytes(from, count, state);
}

uint32_t tl_kernel_cached(tl_isa isa, const uint8_t *from, size_t count, uint32_t state) {
    return tl_kernel_bytes(isa, from, count, state);
}

void tl_kernel_header(tl_isa isa, uint8_t *to, const uint64_t words[8], uint32_t state) {
    tl_plain_header(isa, to, words, state);
}

void tl_kernel_copy(tl_isa isa, uint8_t *to, const uint8_t *from, size_t lines) {
    (void)isa;
    memcpy(to, from, lines * 64);
}
#endif
