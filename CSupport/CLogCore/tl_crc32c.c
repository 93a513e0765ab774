// CRC32C: choice of the variant, and the portable one (slicing by eight tables, built once).
#include "tl_crc32c.h"

#include <pthread.h>
#include <string.h>

#include "tl_bytes.h"
#include "tl_kernels.h"

static uint32_t table[8][256];
static tl_isa best;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void prepare(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
        table[0][byte] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (int byte = 0; byte < 256; byte++)
            table[slice][byte] = (table[slice - 1][byte] >> 8) ^ table[0][table[slice - 1][byte] & 0xFF];
    best = tl_kernel_prepare();
}

tl_isa tl_isa_best(void) {
    pthread_once(&once, prepare);
    return best;
}

bool tl_isa_available(tl_isa isa) { return isa >= TL_ISA_PORTABLE && isa <= tl_isa_best(); }

uint32_t tl_portable_bytes(const uint8_t *from, size_t count, uint32_t state) {
    tl_isa_best(); // the tables
    for (; count >= 8; count -= 8, from += 8) {
        uint32_t low = state ^ ((uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24);
        state = table[7][low & 0xFF] ^ table[6][low >> 8 & 0xFF] ^ table[5][low >> 16 & 0xFF] ^ table[4][low >> 24] ^
                table[3][from[4]] ^ table[2][from[5]] ^ table[1][from[6]] ^ table[0][from[7]];
    }
    for (; count; count--) state = (state >> 8) ^ table[0][(state ^ *from++) & 0xFF];
    return state;
}

uint32_t tl_portable_lines(uint8_t *to, const uint8_t *from, size_t lines, uint32_t state) {
    if (to) memcpy(to, from, lines * 64);
    return tl_portable_bytes(from, lines * 64, state);
}

void tl_plain_header(tl_isa isa, uint8_t *to, const uint64_t words[8], uint32_t state) {
    uint8_t line[64];
    for (int word = 0; word < 8; word++) tl_put64(line + 8 * word, words[word]);
    tl_put32(line, ~tl_kernel_bytes(isa, line + 4, 60, state));
    memcpy(to, line, sizeof line);
}

uint32_t tl_crc32c_with(tl_isa isa, uint32_t seed, const void *bytes, size_t count) {
    return ~tl_kernel_bytes(isa, bytes, count, ~seed);
}

uint32_t tl_crc32c(uint32_t seed, const void *bytes, size_t count) {
    return tl_crc32c_with(tl_isa_best(), seed, bytes, count);
}
