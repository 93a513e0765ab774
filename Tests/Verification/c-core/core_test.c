// The C core by itself, on any processor that it knows: natively and, for arm64, under an emulator. Needs no libpmem.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

// MARK: Checksums and copies

static const tl_isa variants[] = {TL_ISA_PORTABLE, TL_ISA_CRC, TL_ISA_FOLD};
static const char *const variant_names[] = {"portable", "crc", "fold"};
enum { VARIANTS = sizeof variants / sizeof *variants };

/// One bit at a time: shares nothing with the library's.
static uint32_t bitwise_crc32c(uint32_t seed, const uint8_t *bytes, size_t count) {
    uint32_t crc = ~seed;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    }
    return ~crc;
}

static void checksums_agree(tl_isa isa) {
    CHECK(tl_crc32c_with(isa, 0, "123456789", 9) == 0xE3069283u);
    uint64_t random = 1;
    uint8_t *source = malloc(16384);
    for (int i = 0; i < 16384; i++) source[i] = (uint8_t)next_random(&random);
    for (size_t count = 0; count < 9000; count += count < 700 ? 1 : next_random(&random) % 300) {
        size_t from = next_random(&random) % 64;
        uint32_t seed = (uint32_t)next_random(&random);
        CHECK(tl_crc32c_with(isa, seed, source + from, count) == bitwise_crc32c(seed, source + from, count));
    }
    free(source);
}

/// Copies, checksums, fills the last line with zeros, and touches nothing else.
static void streams_copy(tl_isa isa) {
    uint64_t random = 2;
    uint8_t *source = malloc(16384), *target = aligned_alloc(4096, 16384);
    for (int i = 0; i < 16384; i++) source[i] = (uint8_t)next_random(&random);
    tl_persist persist;
    tl_persist_init(&persist, TL_PERSIST_LINES, target, 16384);
    persist.isa = isa;
    for (size_t count = 1; count < 9000; count += count < 300 ? 1 : next_random(&random) % 200) {
        size_t from = next_random(&random) % 64, padded = (count + 63) / 64 * 64;
        memset(target, 0xEE, 16384);
        uint32_t crc = tl_stream_crc32c(&persist, target + 64, source + from, count, 99);
        tl_drain(&persist);
        CHECK(crc == bitwise_crc32c(99, source + from, count));
        CHECK(memcmp(target + 64, source + from, count) == 0);
        for (size_t i = count; i < padded; i++) CHECK(target[64 + i] == 0);
        CHECK(target[63] == 0xEE && target[64 + padded] == 0xEE);
        memset(target + 64, 0xEE, padded);
        tl_stream_padded(&persist, target + 64, source + from, count);
        tl_drain(&persist);
        CHECK(memcmp(target + 64, source + from, count) == 0);
        for (size_t i = count; i < padded; i++) CHECK(target[64 + i] == 0);
        CHECK(target[63] == 0xEE && target[64 + padded] == 0xEE);

        size_t to = next_random(&random) % 64;
        memset(target, 0xEE, 16384);
        tl_stream(&persist, target + 64 + to, source + from, count);
        tl_drain(&persist);
        CHECK(memcmp(target + 64 + to, source + from, count) == 0);
        CHECK(target[63 + to] == 0xEE && target[64 + to + count] == 0xEE);
    }
    free(source);
    free(target);
}

// MARK: What passes the seam

/// Checks that all that was cached is written back before the drain (or, where caches persist, that nothing is), and
/// that there is one drain, the last operation; that on an ordinary file there is none, and nothing bypasses the page cache.
static void check_operations(tl_recorder *recorder, size_t first, tl_persist_mode mode) {
    size_t count = tl_recorder_count(recorder), drains = 0, stores = 0, write_backs = 0;
    for (size_t i = first; i < count; i++) {
        tl_operation operation = tl_recorder_operation(recorder, i);
        drains += operation.kind == TL_OPERATION_DRAIN;
        write_backs += operation.kind == TL_OPERATION_WRITE_BACK;
        stores += operation.kind == TL_OPERATION_STORE;
        CHECK(mode != TL_PERSIST_DEFERRED || operation.kind == TL_OPERATION_STORE);
        if (operation.kind != TL_OPERATION_STORE || mode != TL_PERSIST_LINES) continue;
        CHECK(i + 1 < count);
        tl_operation next = tl_recorder_operation(recorder, i + 1);
        CHECK(next.kind == TL_OPERATION_WRITE_BACK && next.offset == operation.offset && next.count == operation.count);
    }
    bool ends_in_drain = drains == 1 && tl_recorder_operation(recorder, count - 1).kind == TL_OPERATION_DRAIN;
    CHECK(mode == TL_PERSIST_DEFERRED ? drains == 0 : ends_in_drain);
    CHECK(write_backs == (mode == TL_PERSIST_LINES ? stores : 0));
}

static void appends_drain_once(tl_isa isa, tl_persist_mode mode) {
    test_log *log = make_log(16384, 16384 - 192);
    tl_recorder *recorder = tl_recorder_create();
    CHECK(recorder);
    tl_persist_init(&log->persist, mode, log->memory, log->ring.size);
    log->persist.isa = isa;
    log->persist.recorder = recorder;
    uint8_t payload[3000];
    fill_payload(payload, 1, sizeof payload);
    for (uint64_t length = 1; length < sizeof payload; length += 211) { // the first wraps around: a pad or two records
        tl_write write = data_write(payload, length, 1, 0);
        tl_reservation place;
        size_t first = tl_recorder_count(recorder);
        tl_log_result result = tl_log_append(log->log, &write, &place);
        if (result == TL_LOG_FULL) {
            CHECK(tl_recorder_count(recorder) == first);
            tl_log_set_reclaim(log->log, tl_log_published(log->log));
            continue;
        }
        CHECK(result == TL_LOG_DONE);
        check_operations(recorder, first, mode);
    }
    drop_log(log);
    tl_recorder_destroy(recorder);
}

// MARK: Log and scan

/// Scans from `head` and checks contents: the number of writes found, which are named from `name` on.
static uint64_t scan_all(const test_log *log, uint64_t head, uint64_t acknowledged, uint64_t name, tl_scan *scan) {
    *scan = tl_scan_begin(&log->ring, head, acknowledged);
    tl_scanned_write found;
    uint64_t writes = 0;
    for (; tl_scan_next(scan, &found); writes++) {
        for (uint64_t lsn = found.start; lsn < found.end;) {
            tl_record record;
            CHECK(tl_record_read(&log->ring, lsn, found.end, &record) == TL_VALID);
            if (record.kind == TL_KIND_DATA) {
                CHECK(record.offset >> NAME_SHIFT == name + writes);
                check_payload(&log->ring, &record);
            }
            lsn += tl_record_bytes(record.payload_bytes);
        }
    }
    return writes;
}

static void laps_are_scanned_back(void) {
    test_log *log = make_log(65536, UINT64_C(64) * 1021);
    uint64_t random = 3, starts[2000], head = tl_log_tail(log->log), name = 0, first = 0;
    uint8_t payload[8192];
    while (name < 2000) {
        uint64_t length = 1 + next_random(&random) % sizeof payload;
        fill_payload(payload, name, length);
        tl_write write = data_write(payload, length, name, tl_log_published(log->log));
        tl_reservation place;
        if (tl_log_append(log->log, &write, &place) == TL_LOG_DONE) {
            CHECK(tl_log_published(log->log) == place.end);
            starts[name++] = place.start;
            continue;
        }
        tl_scan scan;
        CHECK(scan_all(log, head, head, first, &scan) == name - first && scan.verdict == TL_VERDICT_CLEAN);
        first += (name - first) / 2 + 1;
        head = first < name ? starts[first] : tl_log_published(log->log);
        tl_log_set_reclaim(log->log, head);
    }
    CHECK(tl_log_tail(log->log) > 20 * log->ring.size);
    drop_log(log);
}

/// A damaged last record is a torn tail until something says that it was acknowledged (S5).
static void tails_are_judged(void) {
    test_log *log = make_log(65536, 0);
    uint8_t payload[500];
    tl_reservation places[3];
    for (uint64_t name = 0; name < 3; name++) {
        fill_payload(payload, name, sizeof payload);
        tl_write write = data_write(payload, sizeof payload, name, name ? places[name - 1].end : 0);
        CHECK(tl_log_append(log->log, &write, &places[name]) == TL_LOG_DONE);
    }
    tl_scan scan;
    for (uint64_t lsn = places[1].start; lsn < places[2].end; lsn++) {
        bool is_padding = (lsn - places[1].start) % (places[1].end - places[1].start) >= TL_HEADER_BYTES + sizeof payload;
        bool is_last = lsn >= places[2].start;
        log->memory[lsn] ^= 4;
        uint64_t writes = scan_all(log, 0, 0, 0, &scan);
        if (is_padding)
            CHECK(writes == 3 && scan.verdict == TL_VERDICT_CLEAN);
        else if (!is_last) // the third record's header says that the second was acknowledged
            CHECK(writes == 1 && scan.verdict == TL_VERDICT_CORRUPT && scan.first_bad == places[1].start);
        else
            CHECK(writes == 2 && scan.position == places[2].start && scan.verdict != TL_VERDICT_CORRUPT);
        if (is_last && !is_padding) CHECK(scan.verdict == TL_VERDICT_TORN);
        CHECK(is_padding || scan_all(log, 0, places[2].end, 0, &scan) == (is_last ? 2 : 1));
        CHECK(is_padding || scan.verdict == TL_VERDICT_CORRUPT);
        log->memory[lsn] ^= 4;
    }
    CHECK(scan_all(log, 0, 0, 0, &scan) == 3 && scan.verdict == TL_VERDICT_CLEAN);
    drop_log(log);
}

static void a_stopped_producer_blocks_what_lies_above(void) {
    test_log *log = make_log(65536, 0);
    uint8_t payload[100];
    fill_payload(payload, 0, sizeof payload);
    tl_write write = data_write(payload, sizeof payload, 0, 0);
    tl_reservation stopped, other;
    tl_range range;
    CHECK(!tl_log_unpublished(log->log, &range));
    CHECK(tl_log_reserve(log->log, &write, &stopped) == TL_LOG_DONE);
    CHECK(tl_log_append(log->log, &write, &other) == TL_LOG_DONE);
    CHECK(tl_log_published(log->log) == stopped.start);
    CHECK(tl_log_unpublished(log->log, &range) && range.start == stopped.start && range.end == stopped.end);
    tl_log_store(log->log, &write, &stopped);
    tl_log_publish(log->log, &stopped);
    CHECK(tl_log_published(log->log) == other.end && !tl_log_unpublished(log->log, &range));
    drop_log(log);
}

enum { PAGE_BYTES = 4096 };
static test_log *stored_to;
static uint64_t published_at_store;
static int stores_met;

/// The first store to each page of the ring stops here.
static void meet_store(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    uint8_t *at = info->si_addr, *memory = stored_to->memory;
    if (at < memory || (uint64_t)(at - memory) >= stored_to->ring.size) abort();
    uint64_t published = tl_log_published(stored_to->log);
    if (published > published_at_store) published_at_store = published;
    stores_met++;
    mprotect(memory + (at - memory) / PAGE_BYTES * PAGE_BYTES, PAGE_BYTES, PROT_READ | PROT_WRITE);
}

/// Whatever its size and its number of records, no byte of a write is stored when it is published already.
static void nothing_is_published_before_it_is_stored(void) {
    struct sigaction action = {.sa_sigaction = meet_store, .sa_flags = SA_SIGINFO}, before;
    CHECK(sigaction(SIGSEGV, &action, &before) == 0);
    const uint64_t ring = 8 << 20, lengths[] = {1, 64, 2000, 2048, 2049, 5000, 100000, 1 << 20, (1 << 20) + 1, 2000000};
    uint8_t *payload = malloc(2000000);
    fill_payload(payload, 0, 2000000);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        stored_to = make_log(ring, 0);
        tl_write write = data_write(payload, lengths[i], 0, 0);
        for (int through_registers = 0; through_registers < 2; through_registers++) {
            uint64_t start = tl_log_tail(stored_to->log), end;
            published_at_store = 0;
            stores_met = 0;
            CHECK(mprotect(stored_to->memory, ring, PROT_READ) == 0);
            if (through_registers) {
                tl_placed place = tl_log_append_data(stored_to->log, payload, lengths[i], 0, 0, 3);
                CHECK(place.start == start);
                end = place.end;
            } else {
                tl_reservation place;
                CHECK(tl_log_append(stored_to->log, &write, &place) == TL_LOG_DONE && place.start == start);
                end = place.end;
            }
            CHECK(stores_met > 0 && published_at_store == start);
            CHECK(tl_log_published(stored_to->log) == end);
        }
        CHECK(mprotect(stored_to->memory, ring, PROT_READ | PROT_WRITE) == 0);
        drop_log(stored_to);
    }
    free(payload);
    CHECK(sigaction(SIGSEGV, &before, NULL) == 0);
}

// MARK: Files

static void files_are_mapped(void) {
    char path[] = "/tmp/twinlog-core-test-XXXXXX";
    int one = mkstemp(path), two = open(path, O_RDWR | O_CLOEXEC);
    CHECK(one >= 0 && two >= 0 && ftruncate(one, 65536) == 0 && unlink(path) == 0);
    bool is_dax = true;
    void *base = NULL;
    CHECK(tl_file_map(one, 65536, true, &base, &is_dax) == 0 && !is_dax);
    uint8_t *bytes = base;
    tl_persist persist;
    tl_persist_init(&persist, TL_PERSIST_DEFERRED, bytes, 65536);
    tl_store_block(&persist, bytes + 4096, "stored", 6);
    char found[6];
    CHECK(pread(two, found, 6, 4096) == 6 && memcmp(found, "stored", 6) == 0);
    close(one);
    close(two);
}

int main(void) {
    for (int i = 0; i < VARIANTS; i++) {
        if (!tl_isa_available(variants[i])) {
            printf("skipped: this processor lacks the %s variant\n", variant_names[i]);
            continue;
        }
        checksums_agree(variants[i]);
        streams_copy(variants[i]);
        appends_drain_once(variants[i], TL_PERSIST_LINES);
        appends_drain_once(variants[i], TL_PERSIST_FENCE);
        appends_drain_once(variants[i], TL_PERSIST_DEFERRED);
        printf("passed: checksums, copies and drains, %s%s\n", variant_names[i], variants[i] == tl_isa_best() ? " (best)" : "");
    }
    laps_are_scanned_back();
    tails_are_judged();
    a_stopped_producer_blocks_what_lies_above();
    nothing_is_published_before_it_is_stored();
    files_are_mapped();
    puts("passed: laps, tails, a stopped producer, order of store and publication, files");
}
