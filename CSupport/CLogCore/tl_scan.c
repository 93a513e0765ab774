// The scan: see tl_scan.h.
#include "tl_scan.h"

tl_scan tl_scan_begin(const tl_ring *ring, uint64_t head, uint64_t acknowledged) {
    return (tl_scan){.ring = *ring, .head = head, .position = head, .acknowledged = acknowledged, .first_bad = head};
}

static inline void learn(tl_scan *scan, const tl_record *record) {
    if (record->acknowledged > scan->acknowledged) scan->acknowledged = record->acknowledged;
}

/// A record exists only where its writer was told that everything a ring's size below its end was destaged, and so
/// acknowledged (S6). One beyond our window therefore says that the newest head slot is lost.
static inline void learn_reclaimed(tl_scan *scan, const tl_record *record) {
    uint64_t end = record->lsn + tl_record_bytes(record->payload_bytes);
    if (end > scan->ring.size && end - scan->ring.size > scan->acknowledged) scan->acknowledged = end - scan->ring.size;
}

/// Looks at every place from the hole on for records, of whatever lap, and for what their writers knew was acknowledged.
/// Headers only, so that the work is one pass, whatever stands there. A client cannot plant one: it would need the
/// seed, and the LSN of the very place (S3).
static bool look_behind(tl_scan *scan, uint64_t end) {
    bool found = false;
    uint64_t place = scan->first_bad % scan->ring.size;
    for (uint64_t lsn = scan->first_bad; lsn < end; lsn += TL_UNIT_BYTES) {
        tl_record record;
        if (tl_record_header_at_place(&scan->ring, place, &record)) {
            learn(scan, &record);
            learn_reclaimed(scan, &record);
            if (record.lsn > scan->first_bad) found = true;
        }
        place += TL_UNIT_BYTES;
        if (place == scan->ring.size) place = 0;
    }
    return found;
}

static void judge(tl_scan *scan, uint64_t bad, bool trace, uint64_t end) {
    scan->first_bad = bad;
    bool behind = bad < end && look_behind(scan, end);
    if (scan->acknowledged > bad)
        scan->verdict = TL_VERDICT_CORRUPT;
    else
        scan->verdict = trace || behind ? TL_VERDICT_TORN : TL_VERDICT_CLEAN;
}

bool tl_scan_next(tl_scan *scan, tl_scanned_write *out) {
    uint64_t end = scan->head + scan->ring.size, lsn = scan->position;
    uint32_t number = 0, count = 1;
    while (number < count) {
        tl_record record;
        tl_validity validity = lsn < end ? tl_record_read(&scan->ring, lsn, end, &record) : TL_NOTHING_HERE;
        bool belongs = validity == TL_VALID && record.number == number && (number == 0 || record.count == count);
        if (!belongs) {
            if (validity == TL_VALID || validity == TL_BAD_PAYLOAD) learn(scan, &record);
            bool trace = validity != TL_NOTHING_HERE || (lsn < end && tl_record_lost_its_place(&scan->ring, lsn));
            judge(scan, lsn, number > 0 || trace, end);
            return false;
        }
        learn(scan, &record);
        count = record.count;
        lsn += tl_record_bytes(record.payload_bytes);
        number++;
    }
    *out = (tl_scanned_write){.start = scan->position, .end = lsn, .records = count};
    scan->position = lsn;
    scan->records += count;
    scan->writes++;
    scan->first_bad = lsn;
    return true;
}

uint64_t tl_scan_find_record(const tl_ring *ring, uint64_t from, uint64_t to) {
    tl_record record;
    for (uint64_t lsn = from; lsn < to; lsn += TL_UNIT_BYTES)
        if (tl_record_read_header(ring, lsn, to, &record) == TL_VALID) return lsn;
    return to;
}
