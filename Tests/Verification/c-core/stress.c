// Several producers, one reader, one trimmer and one that only asks, on one small ring, for a given time. Every write must
// be read back exactly once, in its producer's order, with its bytes; positions must keep their order at every look.
// Under the thread sanitizer this checks the memory orders of tl_log.c: the bytes of the ring are plain memory, and each
// use of them must be ordered after the one before by the log's own atomics. So it runs the portable variant, whose stores
// the sanitizer sees.
//
// usage: stress SECONDS PRODUCERS [best]
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "check.h"

enum { MAXIMUM_PRODUCERS = 16, RING_BYTES = 65536, MAXIMUM_LENGTH = 3000, THREAD_SHIFT = 32 };

static test_log *shared;
static atomic_bool is_over;
static atomic_int producing;
/// The reader has verified what lies below. The only order between reader and trimmer.
static _Atomic uint64_t verified;
static uint64_t written[MAXIMUM_PRODUCERS], read_back[MAXIMUM_PRODUCERS];

static void *produce(void *argument) {
    uint64_t thread = (uint64_t)(uintptr_t)argument, random = thread, number = 0;
    uint8_t payload[MAXIMUM_LENGTH];
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        uint64_t name = thread << THREAD_SHIFT | number, length = 1 + next_random(&random) % MAXIMUM_LENGTH;
        if (next_random(&random) % 4) length = length % 200 + 1;
        fill_payload(payload, name, length);
        tl_write write = data_write(payload, length, name, 0);
        tl_reservation place;
        tl_log_result result = tl_log_append(shared->log, &write, &place);
        if (result == TL_LOG_DONE)
            number++;
        else if (result == TL_LOG_FULL)
            sched_yield();
        else
            CHECK(result != TL_LOG_TOO_LARGE);
    }
    written[thread] = number;
    atomic_fetch_sub(&producing, 1);
    return NULL;
}

/// Reads one record at `lsn`; answers where the next begins.
static uint64_t read_record(uint64_t lsn, uint64_t end) {
    tl_record record;
    CHECK(tl_record_read(&shared->ring, lsn, end, &record) == TL_VALID);
    if (record.kind == TL_KIND_DATA) {
        uint64_t name = record.offset >> NAME_SHIFT, thread = name >> THREAD_SHIFT;
        CHECK(thread < MAXIMUM_PRODUCERS && (name & 0xFFFFFFFF) == read_back[thread]);
        check_payload(&shared->ring, &record);
        if (record.number + 1 == record.count) read_back[thread]++;
    }
    return lsn + tl_record_bytes(record.payload_bytes);
}

static void *read_published(void *argument) {
    (void)argument;
    uint64_t position = 0;
    for (;;) {
        bool is_last = atomic_load(&producing) == 0;
        uint64_t end = tl_log_published(shared->log);
        while (position < end) position = read_record(position, end);
        CHECK(position == end);
        atomic_store_explicit(&verified, end, memory_order_release);
        if (is_last) break;
        sched_yield();
    }
    CHECK(position == tl_log_tail(shared->log));
    return NULL;
}

static void *trim(void *argument) {
    (void)argument;
    while (atomic_load(&producing)) {
        tl_log_set_reclaim(shared->log, atomic_load_explicit(&verified, memory_order_acquire));
        sched_yield();
    }
    return NULL;
}

static void *ask(void *argument) {
    (void)argument;
    uint64_t before = 0;
    while (atomic_load(&producing)) {
        uint64_t reclaim = tl_log_reclaim(shared->log), published = tl_log_published(shared->log);
        uint64_t tail = tl_log_tail(shared->log);
        CHECK(reclaim <= published && before <= published && published <= tail);
        before = published;
        tl_range range;
        if (tl_log_unpublished(shared->log, &range)) CHECK(before <= range.start && range.start < range.end);
        sched_yield();
    }
    return NULL;
}

static pthread_t start(void *(*body)(void *), uintptr_t number) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, body, (void *)number) == 0);
    return thread;
}

int main(int count, char **arguments) {
    double seconds = count > 1 ? atof(arguments[1]) : 2;
    int producers = count > 2 ? atoi(arguments[2]) : 4;
    CHECK(seconds > 0 && producers > 0 && producers <= MAXIMUM_PRODUCERS);
    shared = make_log(RING_BYTES, 0);
    if (count <= 3) shared->persist.isa = TL_ISA_PORTABLE;
    atomic_store(&producing, producers);
    pthread_t threads[MAXIMUM_PRODUCERS + 3];
    for (int i = 0; i < producers; i++) threads[i] = start(produce, (uintptr_t)i);
    threads[producers] = start(read_published, 0);
    threads[producers + 1] = start(trim, 0);
    threads[producers + 2] = start(ask, 0);
    struct timespec time = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
    atomic_store(&is_over, true);
    uint64_t total = 0;
    for (int i = 0; i < producers + 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < producers; i++) {
        CHECK(written[i] == read_back[i]);
        total += written[i];
    }
    uint64_t laps = tl_log_tail(shared->log) / RING_BYTES;
    printf("passed: %llu writes of %d producers over %llu laps\n", (unsigned long long)total, producers,
           (unsigned long long)laps);
    CHECK(total > 0);
    drop_log(shared);
}
