#include "CStreamFloor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/// As long as a rail's frame has it.
#define FRAME_HEADER_BYTES 48
#define RECORD_HEADER_BYTES 64
#define LARGEST_MESSAGE (1u << 20)
#define READ_BYTES (256u << 10)
#define VECTORS 512

typedef struct {
    uint32_t size;
    uint32_t crc;
    uint8_t rest[FRAME_HEADER_BYTES - 8];
} frame_header;

static uint64_t now_nanos(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/// The socket alone in an epoll of its own, non-blocking; a negative errno if that cannot be.
static int watch(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
    int poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (poller < 0) return -errno;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0) return poller;
    int error = errno;
    close(poller);
    return -error;
}

static int wait_ready(int poller) {
    struct epoll_event event;
    while (epoll_wait(poller, &event, 1, -1) < 0) {
        if (errno != EINTR) return -errno;
    }
    return 0;
}

/// Sends all of it; waits where the socket is full.
static int send_all(int fd, struct iovec *parts, int count) {
    while (count > 0) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)(count < VECTORS ? count : VECTORS)};
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            int poller = epoll_create1(EPOLL_CLOEXEC);
            struct epoll_event event = {.events = EPOLLOUT};
            int result = poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : wait_ready(poller);
            if (poller >= 0) close(poller);
            if (result < 0) return result;
            continue;
        }
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return -errno;
        while (count > 0 && (size_t)sent >= parts->iov_len) {
            sent -= (ssize_t)parts->iov_len;
            parts++;
            count--;
        }
        if (count > 0) {
            parts->iov_base = (uint8_t *)parts->iov_base + sent;
            parts->iov_len -= (size_t)sent;
        }
    }
    return 0;
}

/// Where a record of `size` bytes goes, a header line and its bytes.
static uint8_t *place(sf_ring ring, uint64_t *next, uint32_t size) {
    uint64_t bytes = (RECORD_HEADER_BYTES + (uint64_t)size + 63) / 64 * 64;
    if (*next + bytes > ring.bytes) *next = 0;
    uint8_t *at = ring.base + *next;
    *next += bytes;
    return at;
}

/// Copies the bytes and their header to `at`, and answers their checksum.
static uint32_t store(sf_ring ring, uint8_t *at, const uint8_t *bytes, uint32_t size) {
    uint32_t crc = tl_stream_crc32c(ring.persist, at + RECORD_HEADER_BYTES, bytes, size, 1);
    uint64_t words[8] = {0, crc, size};
    tl_stream_header(ring.persist, at, words, 1);
    return crc;
}

int sf_serve(int fd, sf_ring ring) {
    int result = 0;
    uint8_t *buffer = malloc(READ_BYTES + FRAME_HEADER_BYTES + LARGEST_MESSAGE);
    int poller = watch(fd);
    uint64_t answered = 0, next = 0;
    size_t held = 0;
    if (buffer == NULL) result = -ENOMEM;
    if (poller < 0) result = poller;
    while (result == 0) {
        result = wait_ready(poller);
        ssize_t count = result < 0 ? 0 : recv(fd, buffer + held, READ_BYTES, 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (count < 0) result = -errno;
        if (count <= 0) break;
        held += (size_t)count;
        size_t done = 0;
        uint64_t before = answered;
        while (held - done >= FRAME_HEADER_BYTES) {
            frame_header header;
            memcpy(&header, buffer + done, sizeof header);
            if (header.size > LARGEST_MESSAGE) {
                result = -EPROTO;
                break;
            }
            if (held - done < FRAME_HEADER_BYTES + header.size) break;
            uint32_t crc = store(ring, place(ring, &next, header.size), buffer + done + FRAME_HEADER_BYTES, header.size);
            if (crc != header.crc) {
                result = -EPROTO;
                break;
            }
            done += FRAME_HEADER_BYTES + header.size;
            answered++;
        }
        memmove(buffer, buffer + done, held - done);
        held -= done;
        if (result < 0 || answered == before) continue;
        tl_drain(ring.persist);
        struct iovec answer = {.iov_base = &answered, .iov_len = sizeof answered};
        result = send_all(fd, &answer, 1);
    }
    if (poller >= 0) close(poller);
    free(buffer);
    return result;
}

typedef struct {
    sf_ring ring;
    uint64_t next;
    uint64_t sent;
    uint64_t answered;
    const uint8_t *payload;
    frame_header *headers;
    struct iovec *parts;
    uint64_t *sent_at;
    uint32_t size;
    uint32_t depth;
} sender;

/// Stores and sends as many messages as `depth` lets it.
static int send_more(sender *s, int fd) {
    int parts = 0;
    while (s->sent - s->answered < s->depth) {
        uint32_t slot = (uint32_t)(s->sent % s->depth);
        s->sent_at[slot] = now_nanos();
        uint8_t *at = place(s->ring, &s->next, s->size);
        s->headers[slot] = (frame_header){.size = s->size, .crc = store(s->ring, at, s->payload, s->size)};
        s->parts[parts++] = (struct iovec){.iov_base = &s->headers[slot], .iov_len = FRAME_HEADER_BYTES};
        s->parts[parts++] = (struct iovec){.iov_base = at + RECORD_HEADER_BYTES, .iov_len = s->size};
        s->sent++;
    }
    tl_drain(s->ring.persist);
    return send_all(fd, s->parts, parts);
}

int64_t sf_run(int fd, sf_ring ring, uint32_t size, uint32_t depth, uint64_t nanos,
               void (*note)(void *context, uint64_t now, uint64_t nanos), void *context) {
    sender s = {.ring = ring, .size = size, .depth = depth};
    uint8_t *payload = malloc(size);
    s.payload = payload;
    s.headers = calloc(depth, sizeof *s.headers);
    s.parts = calloc(2 * (size_t)depth, sizeof *s.parts);
    s.sent_at = calloc(depth, sizeof *s.sent_at);
    int poller = watch(fd);
    int result = payload && s.headers && s.parts && s.sent_at ? 0 : -ENOMEM;
    if (poller < 0) result = poller;
    if (payload) memset(payload, 7, size);
    uint8_t answer[8];
    size_t held = 0;
    uint64_t begin = now_nanos();
    while (result == 0) {
        bool over = now_nanos() - begin >= nanos;
        if (over && s.answered == s.sent) break;
        if (!over) result = send_more(&s, fd);
        if (result == 0) result = wait_ready(poller);
        ssize_t count = result < 0 ? 0 : recv(fd, answer + held, sizeof answer - held, 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (count <= 0 && result == 0) result = count < 0 ? -errno : -ECONNRESET;
        if (result < 0) break;
        held += (size_t)count;
        if (held < sizeof answer) continue;
        held = 0;
        uint64_t through;
        memcpy(&through, answer, sizeof through);
        for (uint64_t now = now_nanos(); s.answered < through && s.answered < s.sent; s.answered++)
            note(context, now, now - s.sent_at[s.answered % depth]);
    }
    if (poller >= 0) close(poller);
    free(payload);
    free(s.headers);
    free(s.parts);
    free(s.sent_at);
    return result < 0 ? result : (int64_t)s.answered;
}
