// The least that a stream of mirrored appends costs: each message is checksummed and copied into memory on both ends of one TCP
// connection, drained and answered once for all that one read brought. One thread and one epoll an end; no log, no space to manage,
// no promises to keep.
#ifndef C_STREAM_FLOOR_H
#define C_STREAM_FLOOR_H

#include <CLogCore.h>
#include <stdint.h>

/// Where an end keeps what went through it, round and round.
typedef struct {
    uint8_t *base;
    uint64_t bytes;
    const tl_persist *persist;
} sf_ring;

/// Answers one connection until its end; `fd` is made non-blocking. 0, or a negative errno: -EPROTO if a message is too long or damaged.
int sf_serve(int fd, sf_ring ring);

/// Keeps `depth` messages of `size` bytes unanswered for `nanos`, then waits for the last of them. `note` is told when each was answered, by the
/// monotonic clock, and its latency, both in nanoseconds. The number of messages, or a negative errno; -ECONNRESET if the other end ended.
int64_t sf_run(int fd, sf_ring ring, uint32_t size, uint32_t depth, uint64_t nanos,
               void (*note)(void *context, uint64_t now, uint64_t nanos),
               void *context);

#endif
