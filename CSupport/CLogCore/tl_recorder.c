// See tl_recorder.h. Tests only: a lock and a growing array are good enough here.
#include "tl_recorder.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAXIMUM_THREADS = 64 };

struct tl_recorder {
    pthread_mutex_t lock;
    tl_operation *operations;
    size_t count, capacity;
    pthread_t threads[MAXIMUM_THREADS];
    uint32_t thread_count;
};

tl_recorder *tl_recorder_create(void) {
    tl_recorder *recorder = calloc(1, sizeof *recorder);
    if (recorder && pthread_mutex_init(&recorder->lock, NULL) != 0) {
        free(recorder);
        return NULL;
    }
    return recorder;
}

void tl_recorder_destroy(tl_recorder *recorder) {
    if (!recorder) return;
    for (size_t i = 0; i < recorder->count; i++) free((void *)recorder->operations[i].bytes);
    free(recorder->operations);
    pthread_mutex_destroy(&recorder->lock);
    free(recorder);
}

size_t tl_recorder_count(tl_recorder *recorder) {
    pthread_mutex_lock(&recorder->lock);
    size_t count = recorder->count;
    pthread_mutex_unlock(&recorder->lock);
    return count;
}

tl_operation tl_recorder_operation(tl_recorder *recorder, size_t index) {
    pthread_mutex_lock(&recorder->lock);
    if (index >= recorder->count) abort();
    tl_operation operation = recorder->operations[index];
    pthread_mutex_unlock(&recorder->lock);
    return operation;
}

static uint32_t number_of_this_thread(tl_recorder *recorder) {
    pthread_t self = pthread_self();
    for (uint32_t i = 0; i < recorder->thread_count; i++)
        if (pthread_equal(recorder->threads[i], self)) return i;
    if (recorder->thread_count == MAXIMUM_THREADS) abort();
    recorder->threads[recorder->thread_count] = self;
    return recorder->thread_count++;
}

static void *copy_of(const void *bytes, uint64_t count) {
    if (!bytes) return NULL;
    void *copy = malloc(count);
    if (!copy) abort();
    return memcpy(copy, bytes, count);
}

/// With the lock held. Takes over the operation's bytes.
static void append(tl_recorder *recorder, tl_operation operation) {
    if (recorder->count == recorder->capacity) {
        size_t capacity = recorder->capacity ? recorder->capacity * 2 : 64;
        tl_operation *grown = realloc(recorder->operations, capacity * sizeof *grown);
        if (!grown) abort();
        recorder->operations = grown;
        recorder->capacity = capacity;
    }
    recorder->operations[recorder->count++] = operation;
}

void tl_recorder_note(tl_recorder *recorder, tl_operation_kind kind, uint64_t offset, const void *bytes, uint64_t count) {
    pthread_mutex_lock(&recorder->lock);
    append(recorder, (tl_operation){
                         .kind = kind,
                         .thread = number_of_this_thread(recorder),
                         .offset = offset,
                         .count = count,
                         .bytes = copy_of(bytes, count),
                     });
    pthread_mutex_unlock(&recorder->lock);
}

void tl_recorder_add(tl_recorder *recorder, const tl_operation *operation) {
    if (operation->thread >= MAXIMUM_THREADS) abort();
    tl_operation copy = *operation;
    copy.bytes = copy_of(operation->bytes, operation->count);
    pthread_mutex_lock(&recorder->lock);
    append(recorder, copy);
    pthread_mutex_unlock(&recorder->lock);
}

void tl_recorder_mark(tl_recorder *recorder, uint64_t number) {
    tl_recorder_note(recorder, TL_OPERATION_MARK, number, NULL, 0);
}
