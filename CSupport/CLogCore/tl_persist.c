// The persistence seam: see tl_persist.h for what it promises.
#include "tl_persist.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tl_kernels.h"
#include "tl_recorder.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

enum write_back_kind { WRITE_BACK_PLAIN = 0, WRITE_BACK_OPTIMIZED = 1, WRITE_BACK_KEEPING = 2 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint32_t best_write_back;

/// x86-64: clwb where present, else clflushopt, else clflush. arm64: to the point of persistence where the processor
/// has one, else to the point of coherency.
static uint32_t detect_write_back(void) {
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return WRITE_BACK_PLAIN;
    if (b & 1u << 24) return WRITE_BACK_KEEPING;
    return b & 1u << 23 ? WRITE_BACK_OPTIMIZED : WRITE_BACK_PLAIN;
#elif defined(__aarch64__)
    return getauxval(AT_HWCAP) & HWCAP_DCPOP ? WRITE_BACK_KEEPING : WRITE_BACK_PLAIN;
#else
    return WRITE_BACK_PLAIN;
#endif
}

#if defined(__x86_64__)
__attribute__((target("clwb"))) static void write_back_keeping(uint8_t *line, size_t lines) {
    for (; lines; lines--, line += 64) _mm_clwb(line);
}

__attribute__((target("clflushopt"))) static void write_back_optimized(uint8_t *line, size_t lines) {
    for (; lines; lines--, line += 64) _mm_clflushopt(line);
}

static void write_back_lines(uint32_t kind, uint8_t *line, size_t lines) {
    if (kind == WRITE_BACK_KEEPING) return write_back_keeping(line, lines);
    if (kind == WRITE_BACK_OPTIMIZED) return write_back_optimized(line, lines);
    for (; lines; lines--, line += 64) _mm_clflush(line);
}

static inline void fence(void) { _mm_sfence(); }
#elif defined(__aarch64__)
static void write_back_lines(uint32_t kind, uint8_t *line, size_t lines) {
    for (; lines; lines--, line += 64) {
        if (kind == WRITE_BACK_KEEPING)
            __asm__ volatile("sys #3, c7, c12, #1, %0" ::"r"(line) : "memory"); // dc cvap
        else
            __asm__ volatile("dc cvac, %0" ::"r"(line) : "memory");
    }
}

static inline void fence(void) { __asm__ volatile("dsb sy" ::: "memory"); }
#else
#error "TwinLog knows how to persist on x86-64 and arm64"
#endif

static void prepare(void) { best_write_back = detect_write_back(); }

void tl_persist_init(tl_persist *persist, tl_persist_mode mode, void *base, size_t length) {
    // Once a process: a virtual machine leaves the guest for it.
    pthread_once(&once, prepare);
    *persist = (tl_persist){
        .mode = mode, .isa = tl_isa_best(), .write_back = best_write_back, .base = base, .length = length};
}

static __attribute__((noinline, cold)) void note(const tl_persist *persist, tl_operation_kind kind, const uint8_t *at,
                                                 size_t count) {
    tl_recorder_note(persist->recorder, kind, at ? (uint64_t)(at - persist->base) : 0,
                     kind == TL_OPERATION_WRITE_BACK ? NULL : at, count);
}

static inline void record(const tl_persist *persist, tl_operation_kind kind, const uint8_t *at, size_t count) {
    if (__builtin_expect(persist->recorder != NULL, 0)) note(persist, kind, at, count);
}

static void write_back(const tl_persist *persist, uint8_t *at, size_t count) {
    if (persist->mode != TL_PERSIST_LINES) return;
    uint8_t *first = (uint8_t *)((uintptr_t)at & ~(uintptr_t)(TL_LINE_BYTES - 1));
    write_back_lines(persist->write_back, first, ((size_t)(at + count - first) + TL_LINE_BYTES - 1) / TL_LINE_BYTES);
    record(persist, TL_OPERATION_WRITE_BACK, at, count);
}

/// What is due after a store to [at, at + count). On an ordinary file it ends in the page cache, whatever it bypassed.
static inline __attribute__((always_inline)) void stored(const tl_persist *persist, uint8_t *at, size_t count,
                                                         bool bypassed_cache) {
    bool is_streamed = bypassed_cache && persist->mode != TL_PERSIST_DEFERRED;
    record(persist, is_streamed ? TL_OPERATION_STREAM : TL_OPERATION_STORE, at, count);
    if (!bypassed_cache) write_back(persist, at, count);
}

static void store_cached(const tl_persist *persist, uint8_t *to, const uint8_t *from, size_t count) {
    if (!count) return;
    memcpy(to, from, count);
    stored(persist, to, count, false);
}

void tl_stream(const tl_persist *persist, void *to, const void *from, size_t count) {
    uint8_t *target = to;
    const uint8_t *source = from;
    size_t edge = (TL_LINE_BYTES - ((uintptr_t)target & (TL_LINE_BYTES - 1))) & (TL_LINE_BYTES - 1);
    if (edge > count) edge = count;
    store_cached(persist, target, source, edge);
    target += edge, source += edge, count -= edge;
    size_t whole = count & ~(size_t)(TL_LINE_BYTES - 1);
    if (whole) {
        tl_kernel_copy(persist->isa, target, source, whole / TL_LINE_BYTES);
        stored(persist, target, whole, tl_kernel_bypasses_cache(persist->isa));
    }
    store_cached(persist, target + whole, source + whole, count - whole);
}

/// The bytes behind the last whole line, as a line that ends in zeros.
static __attribute__((noinline)) void copy_rest(const tl_persist *persist, uint8_t *to, const uint8_t *from, size_t rest) {
    uint8_t line[TL_LINE_BYTES] = {0};
    memcpy(line, from, rest);
    tl_kernel_copy(persist->isa, to, line, 1);
}

uint32_t tl_stream_crc32c(const tl_persist *persist, void *to, const void *from, size_t count, uint32_t seed) {
    uint8_t *target = to;
    const uint8_t *source = from;
    uint32_t state = ~seed;
    size_t whole = count & ~(size_t)(TL_LINE_BYTES - 1), rest = count - whole;
    if (whole) state = tl_kernel_lines(persist->isa, target, source, whole / TL_LINE_BYTES, state);
    if (rest) {
        state = tl_kernel_bytes(persist->isa, source + whole, rest, state);
        copy_rest(persist, target + whole, source + whole, rest);
    }
    if (count) stored(persist, target, whole + (rest ? TL_LINE_BYTES : 0), tl_kernel_bypasses_cache(persist->isa));
    return ~state;
}

void tl_stream_padded(const tl_persist *persist, void *to, const void *from, size_t count) {
    uint8_t *target = to;
    const uint8_t *source = from;
    size_t whole = count & ~(size_t)(TL_LINE_BYTES - 1), rest = count - whole;
    if (whole) tl_kernel_copy(persist->isa, target, source, whole / TL_LINE_BYTES);
    if (rest) copy_rest(persist, target + whole, source + whole, rest);
    if (count) stored(persist, target, whole + (rest ? TL_LINE_BYTES : 0), tl_kernel_bypasses_cache(persist->isa));
}

void tl_stream_header(const tl_persist *persist, void *to, const uint64_t words[8], uint32_t seed) {
    tl_kernel_header(persist->isa, to, words, ~seed);
    stored(persist, to, TL_LINE_BYTES, tl_kernel_bypasses_cache(persist->isa));
}

void tl_drain(const tl_persist *persist) {
    fence();
    if (persist->mode != TL_PERSIST_DEFERRED) record(persist, TL_OPERATION_DRAIN, NULL, 0);
}

void tl_note_sync(const tl_persist *persist, const void *at, size_t count, bool is_done) {
    if (is_done)
        record(persist, TL_OPERATION_DRAIN, NULL, 0);
    else
        record(persist, TL_OPERATION_WRITE_BACK, at, count);
}

void tl_store_block(const tl_persist *persist, void *to, const void *from, size_t count) {
    tl_stream(persist, to, from, count);
    tl_drain(persist);
}
