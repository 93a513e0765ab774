// Private: little-endian integers in bytes. Never a struct's memory as a format.
#pragma once
#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline void tl_put16(uint8_t *at, uint16_t value) { value = htole16(value), memcpy(at, &value, 2); }
static inline void tl_put32(uint8_t *at, uint32_t value) { value = htole32(value), memcpy(at, &value, 4); }
static inline void tl_put64(uint8_t *at, uint64_t value) { value = htole64(value), memcpy(at, &value, 8); }

static inline uint16_t tl_get16(const uint8_t *at) {
    uint16_t value;
    memcpy(&value, at, 2);
    return le16toh(value);
}
static inline uint32_t tl_get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return le32toh(value);
}
static inline uint64_t tl_get64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return le64toh(value);
}
