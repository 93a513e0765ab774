/// What the recorder writes and its reader maps: a header, then `capacity` calls in the order in which they began, then the checksum of each 4 KiB of
/// the medium. All numbers have 64 bits, in this machine's order.
#ifndef CMEDIUM_RECORDING_H
#define CMEDIUM_RECORDING_H

#include <stdint.h>

enum { RECORDING_BLOCK_BYTES = 4096 };

enum recorded_kind {
    RECORDED_NONE = 0,
    RECORDED_WRITE = 1,
    RECORDED_ZERO = 2,
    RECORDED_TRUNCATE = 3,
    RECORDED_LOCK = 4,
    RECORDED_UNLOCK = 5,
};

struct recorded_call {
    /// Written last: a call whose kind is `RECORDED_NONE` was cut short by the end of its process before it was made.
    uint64_t kind;
    uint64_t process;
    /// Moments of the recording's clock, which no two calls share. `end` is 0 until the call has returned.
    uint64_t begin;
    uint64_t end;
    /// Of a lock: the descriptor.
    uint64_t offset;
    uint64_t length;
};

struct recording {
    uint64_t clock;
    uint64_t calls;
    /// How many calls there is room for. More are counted, and not kept.
    uint64_t capacity;
    uint64_t blocks;
    struct recorded_call call[];
};

/// Of a block's checksum: never written through the recorder; being written, or written in part.
enum { CHECKSUM_UNTOUCHED = 0, CHECKSUM_UNKNOWN = 1 };

/// Of a whole block; neither of the values above.
uint64_t recording_checksum(const uint8_t *bytes);

#endif
