// The lock-free log: see tl_log.h for the steps and invariants.
//
// Why publication is right. A slot belongs to the start LSN of one reservation at a time: two starts that share a slot
// are a whole window apart, and the later one is reserved only after the watermark has passed the earlier. What an
// earlier lap left in a slot is at or below the watermark, so it never looks like an end beyond it. The watermark only
// grows, so a compare-and-swap of it cannot mistake a new value for an old one.
//
// A producer publishes with one release store into its slot and touches nothing that others write. The watermark is
// moved by those who ask for it: whoever reads it walks over the slots that are filled, and then moves it in one step, if
// nobody else did meanwhile: a slot that was passed on the way can be taken anew only once the watermark has passed it, so
// while that stands where the walk began, all that the walk saw is still so. A write that was published before the question
// is never left behind, and producers meet in one place only, the tail.
//
// A reader that acquires the watermark sees the bytes: each writer drains (a fence, also for non-temporal stores)
// before it fills its slot, the mover acquires the slot and releases the watermark, and a mover that goes on from
// another's watermark acquires that first.
//
// Space. Reclaim limit and watermark only grow, so what was found to have room once has room for ever: reserving looks
// at `limit`, on the tail's own line, and goes to the two positions only when it has passed that.
//
// Stores. Between the drain of one append and the compare-and-swap of the next, which waits for it, the processor goes on
// as far as its store queue has room, and the queue still holds the bytes that drain. So that checksumming the next payload
// runs beside the drain, as little as possible is stored before it: no structure in memory, no call that saves registers.
#include "tl_log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tl_kernels.h"

// Room for four of the largest writes, so that a stopped producer does not stop the others at once; bounds the table
// to 8 MiB of memory.
#define MAXIMUM_WINDOW_BYTES (UINT64_C(64) << 20)
// How far reserving goes between two looks at the watermark, which walks over the slots meanwhile filled: few enough
// to be still in the cache.
#define STRIDE_BYTES (UINT64_C(256) << 10)
#define MAXIMUM_WRITE_BYTES (UINT64_C(16) << 20)
// Up to here the payload of a single record is checksummed before its place is known: that runs beside the drain of the
// append before, for which the compare-and-swap waits. A longer one fills the store queue by itself, so that nothing runs
// beside its drain; it is checksummed as it is copied, at the copy's pace.
#define CHECKED_FIRST_BYTES 2048
enum { MINIMUM_RING_BYTES = 16384, ISOLATION_BYTES = 128, MINIMUM_SLOT_BITS = 8, SLOTS_A_LINE_BITS = 3, WALK_AHEAD = 16 };

#define INLINED inline __attribute__((always_inline))

typedef _Atomic uint64_t position;

struct tl_log {
    const tl_persist *persist;
    uint8_t *bytes;
    tl_ring ring;
    position *slots;
    uint64_t slot_mask, window_bytes, maximum_bytes;
    uint64_t checked_first_bytes; // payloads up to here are (see CHECKED_FIRST_BYTES); none that is too large
    unsigned slot_bits;
    // Each group on lines of its own: reserving does not disturb publishing.
    _Alignas(ISOLATION_BYTES) position tail;
    position limit; // reservations up to here were found to have room: what follows from it only grows
    position lap;   // a multiple of the ring's size not far below the tail; a hint
    _Alignas(ISOLATION_BYTES) position published;
    _Alignas(ISOLATION_BYTES) position reclaim;
};

/// The line will be written: it is fetched once, as this core's own. (The builtin fetches it to be read, on x86-64.)
static inline void fetch_to_write(const void *at) {
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" ::"m"(*(const char *)at));
#else
    __builtin_prefetch(at, 1);
#endif
}

static inline uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t load(const position *at) { return atomic_load_explicit((position *)at, memory_order_acquire); }

/// The place of `lsn` in the ring. Divides only when a lap begins.
static inline uint64_t place_of(tl_log *log, uint64_t lsn) {
    uint64_t place = lsn - atomic_load_explicit(&log->lap, memory_order_relaxed);
    if (place < log->ring.size) return place;
    place = lsn % log->ring.size;
    atomic_store_explicit(&log->lap, lsn - place, memory_order_relaxed);
    return place;
}

int tl_log_create(tl_log **out, const tl_persist *persist, const tl_ring *ring, uint64_t start) {
    return tl_log_resume(out, persist, ring, start, start);
}

int tl_log_resume(tl_log **out, const tl_persist *persist, const tl_ring *ring, uint64_t head, uint64_t start) {
    if (ring->size < MINIMUM_RING_BYTES || ring->size % 4096 || start % TL_UNIT_BYTES) return -EINVAL;
    if (head > start || start - head > ring->size) return -EINVAL;
    tl_log *log = aligned_alloc(ISOLATION_BYTES, sizeof *log);
    if (!log) return -ENOMEM;
    *log = (tl_log){.persist = persist, .bytes = (uint8_t *)ring->bytes, .ring = *ring};
    uint64_t slots = UINT64_C(1) << MINIMUM_SLOT_BITS;
    log->slot_bits = MINIMUM_SLOT_BITS;
    for (; slots * TL_UNIT_BYTES < ring->size && slots * TL_UNIT_BYTES < MAXIMUM_WINDOW_BYTES; slots *= 2) log->slot_bits++;
    log->slot_mask = slots - 1;
    log->window_bytes = slots * TL_UNIT_BYTES;
    log->maximum_bytes = ring->size / 4 < MAXIMUM_WRITE_BYTES ? ring->size / 4 : MAXIMUM_WRITE_BYTES;
    log->checked_first_bytes = least(CHECKED_FIRST_BYTES, log->maximum_bytes - TL_HEADER_BYTES);
    log->slots = calloc(slots, sizeof *log->slots);
    if (!log->slots) {
        free(log);
        return -ENOMEM;
    }
    atomic_init(&log->tail, start);
    atomic_init(&log->limit, start);
    atomic_init(&log->lap, start - start % ring->size);
    atomic_init(&log->published, start);
    atomic_init(&log->reclaim, head);
    *out = log;
    return 0;
}

void tl_log_destroy(tl_log *log) {
    if (!log) return;
    free(log->slots);
    free(log);
}

uint64_t tl_log_maximum_bytes(const tl_log *log) { return log->maximum_bytes; }
uint64_t tl_log_tail(const tl_log *log) { return load(&log->tail); }
uint64_t tl_log_reclaim(const tl_log *log) { return load(&log->reclaim); }

void tl_log_set_reclaim(tl_log *log, uint64_t lsn) {
    uint64_t now = load(&log->reclaim);
    while (now < lsn &&
           !atomic_compare_exchange_weak_explicit(&log->reclaim, &now, lsn, memory_order_acq_rel, memory_order_acquire)) {
    }
}

static __attribute__((noinline)) tl_reservation plan_several(const tl_log *log, const tl_write *write, uint64_t start) {
    tl_layout layout = tl_layout_begin(write->kind, write->length, start, log->ring.size);
    tl_reservation result = {.start = start};
    for (tl_piece piece; tl_layout_next(&layout, &piece);) result.records++;
    result.end = layout.lsn;
    return result;
}

/// Where a write that starts at `start` ends, and in how many records.
static inline tl_reservation plan(tl_log *log, const tl_write *write, uint64_t start) {
    uint64_t room = log->ring.size - place_of(log, start);
    if (write->kind == TL_KIND_DATA && write->length <= TL_RECORD_PAYLOAD_BYTES && write->length + TL_HEADER_BYTES <= room)
        return (tl_reservation){.start = start, .end = start + tl_record_bytes(write->length), .records = 1};
    return plan_several(log, write, start);
}

/// Bounds a write before its layout is walked.
static inline bool is_hopeless(const tl_log *log, const tl_write *write) {
    if (write->kind == TL_KIND_WATERMARK) return false;
    uint64_t most = write->kind == TL_KIND_DATA ? log->maximum_bytes : TL_RECORD_RANGE_BYTES * TL_MAXIMUM_RECORDS;
    return write->length > most;
}

/// Neighbouring reservations, mostly of different threads, have slots on different cache lines.
static inline position *slot_of(tl_log *log, uint64_t start) {
    uint64_t unit = start / TL_UNIT_BYTES & log->slot_mask, lines = log->slot_bits - SLOTS_A_LINE_BITS;
    return &log->slots[(unit << lines | unit >> SLOTS_A_LINE_BITS) & log->slot_mask];
}

uint64_t tl_log_published(tl_log *log) {
    uint64_t first = load(&log->published);
    for (;;) {
        uint64_t watermark = first;
        for (uint64_t end; (end = load(slot_of(log, watermark))) > watermark; watermark = end)
            // Where the slots lie if writes go on at this size; one that another core filled is far away.
            __builtin_prefetch(slot_of(log, end + WALK_AHEAD * (end - watermark)));
        if (watermark == first) return first;
        // Acquire and release: what others moved over is seen by whoever sees this.
        if (atomic_compare_exchange_weak_explicit(&log->published, &first, watermark, memory_order_acq_rel,
                                                  memory_order_acquire))
            return watermark;
    }
}

bool tl_log_unpublished(tl_log *log, tl_range *out) {
    // The watermark first: the tail is never found below it.
    uint64_t watermark = tl_log_published(log), tail = load(&log->tail), above = watermark + TL_UNIT_BYTES;
    if (watermark == tail) return false;
    // A published write's slot holds an end beyond its start; what earlier laps left is at or below the watermark.
    while (above < tail && load(slot_of(log, above)) <= above) above += TL_UNIT_BYTES;
    *out = (tl_range){.start = watermark, .end = least(above, tail)};
    return true;
}

/// Looks at where the space ends now, and leaves it for the reservations that follow.
static bool has_room(tl_log *log, tl_kind kind, uint64_t end) {
    // Acquire: the stores that moved these positions, and the reads that allowed it, are over.
    uint64_t by_space = load(&log->reclaim) + log->ring.size, by_window = tl_log_published(log) + log->window_bytes;
    if (kind == TL_KIND_WATERMARK) return end <= by_space && end <= by_window;
    by_space -= TL_CONTROL_BYTES;
    uint64_t limit = least(least(by_space, by_window), end + STRIDE_BYTES);
    // A slower thread may put an older limit back: it only costs the next one this look.
    atomic_store_explicit(&log->limit, limit, memory_order_release);
    return end <= limit;
}

static inline tl_log_result reserve(tl_log *log, const tl_write *write, tl_reservation *out) {
    if (is_hopeless(log, write)) return TL_LOG_TOO_LARGE;
    fetch_to_write(&log->tail);
    uint64_t start = atomic_load_explicit(&log->tail, memory_order_relaxed);
    do {
        *out = plan(log, write, start);
        if (out->end - start > log->maximum_bytes || out->records > TL_MAXIMUM_RECORDS) return TL_LOG_TOO_LARGE;
        if (out->end > load(&log->limit) && !has_room(log, write->kind, out->end)) return TL_LOG_FULL;
    } while (!atomic_compare_exchange_weak_explicit(&log->tail, &start, out->end, memory_order_acq_rel,
                                                    memory_order_relaxed));
    fetch_to_write(slot_of(log, out->start)); // comes beside the copy
    return TL_LOG_DONE;
}

static inline bool is_checked_first(const tl_log *log, const tl_write *write) {
    return write->kind == TL_KIND_DATA && write->length <= log->checked_first_bytes;
}

static inline uint32_t check_first(const tl_log *log, const tl_write *write) {
    if (!is_checked_first(log, write)) return 0;
    return ~tl_kernel_cached(log->persist->isa, write->payload, write->length, ~log->ring.seed);
}

/// Copies the payload behind the header and answers its checksum; `checked`: of all of the write, if that is known.
static INLINED uint32_t store_payload(tl_log *log, const tl_write *write, const tl_piece *piece, uint8_t *to,
                                      const uint32_t *checked) {
    const uint8_t *from = (const uint8_t *)write->payload + piece->at;
    if (!checked) return tl_stream_crc32c(log->persist, to, from, piece->range, log->ring.seed);
    tl_stream_padded(log->persist, to, from, piece->range);
    return *checked;
}

static INLINED void store_record(tl_log *log, const tl_write *write, const tl_piece *piece, uint16_t number, uint16_t count,
                                 const uint32_t *checked) {
    uint8_t *at = log->bytes + place_of(log, piece->lsn);
    bool has_payload = piece->kind == TL_KIND_DATA, is_pad = piece->kind == TL_KIND_PAD;
    tl_record record = {
        .lsn = piece->lsn,
        .acknowledged = write->acknowledged,
        .incarnation = log->ring.incarnation,
        .offset = is_pad ? 0 : write->offset + piece->at,
        .payload_crc = log->ring.seed,
        .payload_bytes = has_payload ? (uint32_t)piece->range : 0,
        .range_bytes = (uint32_t)piece->range,
        .volume = write->volume,
        .number = number,
        .count = count,
        .kind = (uint8_t)piece->kind,
        .flags = is_pad ? 0 : write->flags,
    };
    if (has_payload) record.payload_crc = store_payload(log, write, piece, at + TL_HEADER_BYTES, checked);
    uint64_t words[8];
    tl_record_words(&record, words);
    tl_stream_header(log->persist, at, words, log->ring.seed);
}

static __attribute__((noinline)) void store_several(tl_log *log, const tl_write *write, const tl_reservation *reservation) {
    tl_layout layout = tl_layout_begin(write->kind, write->length, reservation->start, log->ring.size);
    uint16_t number = 0;
    for (tl_piece piece; tl_layout_next(&layout, &piece); number++)
        store_record(log, write, &piece, number, (uint16_t)reservation->records, NULL);
}

/// Most writes: no layout to walk. `crc` is what `check_first` answered.
static INLINED void store_one(tl_log *log, const tl_write *write, uint64_t start, uint32_t crc) {
    uint64_t range = write->kind == TL_KIND_WATERMARK ? 0 : write->length;
    tl_piece piece = {.lsn = start, .range = range, .kind = write->kind};
    store_record(log, write, &piece, 0, 1, is_checked_first(log, write) ? &crc : NULL);
    tl_drain(log->persist);
}

static inline void store(tl_log *log, const tl_write *write, const tl_reservation *reservation, uint32_t crc) {
    if (reservation->records == 1) return store_one(log, write, reservation->start, crc);
    store_several(log, write, reservation);
    tl_drain(log->persist);
}

static inline void publish(tl_log *log, const tl_reservation *reservation) {
    // Release: whoever sees the slot sees the record, which was drained before.
    atomic_store_explicit(slot_of(log, reservation->start), reservation->end, memory_order_release);
}

/// Takes room for one record, if the ring's end is not near and there is room by what was last found: nearly always. Else
/// zero, which is no record's end.
static inline uint64_t reserve_at_once(tl_log *log, uint64_t bytes) {
    fetch_to_write(&log->tail);
    uint64_t start = atomic_load_explicit(&log->tail, memory_order_relaxed), end;
    do {
        uint64_t place = start - atomic_load_explicit(&log->lap, memory_order_relaxed);
        end = start + bytes;
        if (place >= log->ring.size || bytes > log->ring.size - place || end > load(&log->limit)) return 0;
    } while (!atomic_compare_exchange_weak_explicit(&log->tail, &start, end, memory_order_acq_rel, memory_order_relaxed));
    return end;
}

static __attribute__((noinline)) tl_log_result append(tl_log *log, const tl_write *write, uint32_t crc, tl_reservation *out) {
    tl_reservation reservation;
    tl_log_result result = reserve(log, write, &reservation);
    if (result != TL_LOG_DONE) return result;
    store(log, write, &reservation, crc);
    publish(log, &reservation);
    *out = reservation;
    return TL_LOG_DONE;
}

/// All of it, if a payload that was checked first finds room at once. The write's end, or zero.
static INLINED uint64_t append_at_once(tl_log *log, const tl_write *write, uint32_t crc) {
    uint64_t bytes = tl_record_bytes(write->length), end = reserve_at_once(log, bytes);
    if (!end) return 0;
    tl_reservation reservation = {.start = end - bytes, .end = end, .records = 1};
    fetch_to_write(slot_of(log, reservation.start)); // comes beside the copy
    store_one(log, write, reservation.start, crc);
    publish(log, &reservation);
    return end;
}

tl_log_result tl_log_append(tl_log *log, const tl_write *write, tl_reservation *out) {
    if (!is_checked_first(log, write)) return append(log, write, 0, out);
    uint32_t crc = check_first(log, write);
    uint64_t end = append_at_once(log, write, crc);
    if (!end) return append(log, write, crc, out);
    *out = (tl_reservation){.start = end - tl_record_bytes(write->length), .end = end, .records = 1};
    return TL_LOG_DONE;
}

static inline tl_write data_write(const void *payload, uint64_t length, uint64_t offset, uint64_t acknowledged, uint32_t volume) {
    return (tl_write){.payload = payload, .length = length, .offset = offset, .acknowledged = acknowledged, .volume = volume,
                      .kind = TL_KIND_DATA};
}

/// The write is put together here once more: its address must not be taken where it lives in registers.
static __attribute__((noinline)) tl_placed append_data(tl_log *log, const void *payload, uint64_t length, uint64_t offset,
                                                       uint64_t acknowledged, uint32_t volume, uint32_t crc) {
    tl_write write = data_write(payload, length, offset, acknowledged, volume);
    tl_reservation reservation;
    tl_log_result result = append(log, &write, crc, &reservation);
    if (result != TL_LOG_DONE) return (tl_placed){.start = result};
    return (tl_placed){.start = reservation.start, .end = reservation.end};
}

tl_placed tl_log_append_data(tl_log *log, const void *payload, uint64_t length, uint64_t offset, uint64_t acknowledged,
                             uint32_t volume) {
    const tl_write write = data_write(payload, length, offset, acknowledged, volume);
    if (!is_checked_first(log, &write)) return append_data(log, payload, length, offset, acknowledged, volume, 0);
    uint32_t crc = check_first(log, &write);
    uint64_t end = append_at_once(log, &write, crc);
    if (!end) return append_data(log, payload, length, offset, acknowledged, volume, crc);
    return (tl_placed){.start = end - tl_record_bytes(length), .end = end};
}

tl_log_result tl_log_reserve(tl_log *log, const tl_write *write, tl_reservation *out) { return reserve(log, write, out); }
void tl_log_store(tl_log *log, const tl_write *write, const tl_reservation *reservation) {
    store(log, write, reservation, check_first(log, write));
}
void tl_log_publish(tl_log *log, const tl_reservation *reservation) { publish(log, reservation); }
