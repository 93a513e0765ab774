// Records what passes the persistence seam, so that tests can compute what memory may hold after a crash.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef enum tl_operation_kind {
    TL_OPERATION_STREAM = 1,     // non-temporal store: durable after its thread's next drain
    TL_OPERATION_STORE = 2,      // cached store: durable after a write-back of its line and then a drain
    TL_OPERATION_WRITE_BACK = 3, // of the lines of a range
    TL_OPERATION_DRAIN = 4,
    TL_OPERATION_MARK = 5, // a test's own note, with a number
} tl_operation_kind;

typedef struct tl_operation {
    tl_operation_kind kind;
    uint32_t thread;      // 0, 1, 2 … in the order of first appearance
    uint64_t offset;      // from the mapping's base; the number of a mark
    uint64_t count;       // bytes
    const uint8_t *bytes; // what was stored; owned by the recorder
} tl_operation;

typedef struct tl_recorder tl_recorder;

/// NULL if there is no memory. The recorder must outlive every tl_persist that refers to it.
tl_recorder *tl_recorder_create(void);
void tl_recorder_destroy(tl_recorder *recorder);
/// Operations so far. Safe while others are recorded.
size_t tl_recorder_count(tl_recorder *recorder);
/// The operation at `index`, below the count.
tl_operation tl_recorder_operation(tl_recorder *recorder, size_t index);
/// Notes `number` at this place of the sequence.
void tl_recorder_mark(tl_recorder *recorder, uint64_t number);
/// Adds a copy of an operation, of any thread: for recordings that are put together from others.
void tl_recorder_add(tl_recorder *recorder, const tl_operation *operation);

/// For the seam.
void tl_recorder_note(tl_recorder *recorder, tl_operation_kind kind, uint64_t offset, const void *bytes, uint64_t count);
