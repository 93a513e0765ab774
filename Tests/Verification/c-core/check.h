// What the C tests share: a check that ends the test with the place where it failed, seeded randomness, bytes that follow
// from a name, and a ring to write to.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "CLogCore.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fflush(stdout);                                                           \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

/// SplitMix64.
static inline uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/// A write's offset carries its name; its records' offsets carry the place in it too.
enum { NAME_SHIFT = 20 };

static inline uint8_t byte_of(uint64_t name, uint64_t place) {
    uint64_t state = name << NAME_SHIFT | place / 8;
    return (uint8_t)(next_random(&state) >> place % 8 * 8);
}

static inline void fill_payload(uint8_t *bytes, uint64_t name, uint64_t count) {
    for (uint64_t place = 0; place < count; place++) bytes[place] = byte_of(name, place);
}

/// Checks one record's payload against its name.
static inline void check_payload(const tl_ring *ring, const tl_record *record) {
    const uint8_t *payload = ring->bytes + record->lsn % ring->size + TL_HEADER_BYTES;
    uint64_t name = record->offset >> NAME_SHIFT, at = record->offset & ((UINT64_C(1) << NAME_SHIFT) - 1);
    for (uint32_t i = 0; i < record->payload_bytes; i++) CHECK(payload[i] == byte_of(name, at + i));
}

typedef struct test_log {
    uint8_t *memory;
    tl_persist persist;
    tl_ring ring;
    tl_log *log;
} test_log;

static inline test_log *make_log(uint64_t ring_bytes, uint64_t start) {
    test_log *made = calloc(1, sizeof *made);
    CHECK(made);
    made->memory = aligned_alloc(4096, ring_bytes);
    CHECK(made->memory);
    memset(made->memory, 0, ring_bytes);
    tl_persist_init(&made->persist, TL_PERSIST_LINES, made->memory, ring_bytes);
    made->ring = (tl_ring){.bytes = made->memory, .size = ring_bytes, .incarnation = 7, .seed = 42};
    CHECK(tl_log_create(&made->log, &made->persist, &made->ring, start) == 0);
    return made;
}

static inline void drop_log(test_log *log) {
    tl_log_destroy(log->log);
    free(log->memory);
    free(log);
}

static inline tl_write data_write(const uint8_t *payload, uint64_t length, uint64_t name, uint64_t acknowledged) {
    return (tl_write){.payload = payload,
                      .length = length,
                      .offset = name << NAME_SHIFT,
                      .acknowledged = acknowledged,
                      .volume = 3,
                      .kind = TL_KIND_DATA};
}
