// The scan: what validates, what never does (S3, S4), torn apart from corrupt (S5), all or none (S7).

import CLogCore
import LogModel
import PersistentMemory
import Testing
import WriteLog

struct ScanTests {
    let fixture: LogFixture

    init() throws { fixture = try LogFixture() }

    @Test func anEmptyLogIsClean() throws {
        let found = try scan(fixture.region)
        #expect(found.writes.isEmpty && found.verdict == .clean && found.end == .zero && found.firstBad == nil)
    }

    // MARK: What never validates

    @Test func aRecordForgedInsideAPayloadNeverValidates() throws {  // S3
        // The client knows everything but the seed, and even replays bytes of this very log at another place.
        let first = try fixture.appended([1, 2, 3])
        var image = [UInt8](repeating: 0, count: 128)
        image.withUnsafeMutableBytes { fixture.region.readRing(from: first.start, into: $0) }
        let carrier = try fixture.appended(image + image)
        // The carrier's header is lost; its payload stands where records could.
        try fixture.tamper([UInt8](repeating: 0, count: 64), at: carrier.start)
        let found = try scan(fixture.region)
        #expect(found.writes.map(\.start) == [first.start])
        #expect(found.end == first.end && found.verdict == .clean)
    }

    @Test func aForgedHeaderAtTheRightPlaceFailsWithoutTheSeed() throws {  // S3
        for seed: UInt32 in [0, 1, 0xFFFF_FFFF] {
            let fixture = try LogFixture()
            var record = tl_record()
            record.lsn = 128
            record.incarnation = 5
            record.kind = UInt8(TL_KIND_DISCARD.rawValue)
            record.range_bytes = 4096
            record.count = 1
            var line = [UInt8](repeating: 0, count: 64)
            tl_record_encode(&record, seed, &line)
            // The payload of a record at 0 begins at 64; a write behind it would begin at 192.
            try fixture.appended([UInt8](repeating: 0, count: 64) + line)
            try fixture.tamper([UInt8](repeating: 0, count: 64), at: .zero)
            var ring = try #require(fixture.region.ring)
            #expect(tl_scan_find_record(&ring, 0, 4096) == 4096)
        }
    }

    @Test func recordsOfAnEarlierLapAreStale() throws {  // S3
        var last = try fixture.appended([0])
        while last.end.rawValue < 3 * fixture.region.ringBytes {
            try fixture.trim(to: last.end)
            last = try fixture.appended([UInt8](repeating: 1, count: 3000))
        }
        // All around the ring stand good records of this incarnation, a lap too old.
        #expect(try scan(fixture.region).writes.map(\.start) == [last.start])
        try fixture.trim(to: last.end)
        let found = try scan(fixture.region)
        #expect(found.writes.isEmpty && found.verdict == .clean)
    }

    @Test func recordsOfAnotherIncarnationOrLogNeverComeBack() throws {  // S4
        for number in 0..<10 { try fixture.appended([UInt8(number)]) }
        // The same positions again, with fewer records: those behind the new end must not validate. Of another log with
        // the same incarnation they look like a torn tail, which may be discarded.
        for (uuid, incarnation, verdict) in [
            (UUID128(high: 0x1111, low: 0x2223), 5, .torn), (logUUID, 6, .clean),
        ] as [(UUID128, UInt64, LogScan.Verdict)] {
            try fixture.region.format(role: .owner, logUUID: uuid, incarnation: Incarnation(incarnation), start: .zero)
            let found = try scan(fixture.region)
            #expect(found.writes.isEmpty && found.verdict == verdict)
        }
        let log = try WriteLog(region: fixture.region)
        let bytes: [UInt8] = [0xAA]
        _ = bytes.withUnsafeBytes { log.append(volume: volume, offset: 0, .data($0), acknowledged: .zero) }
        let found = try scan(fixture.region)
        #expect(found.writes.map(\.bytes) == [[0xAA]] && found.verdict == .clean)
    }

    @Test func anIncarnationInTheHeaderAloneIsNotEnough() throws {  // S3: it is in the seed too
        let place = try fixture.appended([1, 2, 3])
        var ring = try #require(fixture.region.ring)
        var record = tl_record()
        ring.seed ^= 1
        #expect(tl_record_read(&ring, place.start.rawValue, 4096, &record) == TL_BAD_HEADER)
        ring.seed ^= 1
        ring.incarnation += 1
        #expect(tl_record_read(&ring, place.start.rawValue, 4096, &record) == TL_NOTHING_HERE)
    }

    @Test func hostileHeadersWithGoodChecksumsAreBounded() throws {  // S21
        var ring = try #require(fixture.region.ring)
        let sound = tl_record(
            lsn: 0, acknowledged: 0, incarnation: 5, offset: 0, payload_crc: ring.seed, payload_bytes: 0,
            range_bytes: 8,
            volume: 1, number: 0, count: 1, kind: UInt8(TL_KIND_DISCARD.rawValue), flags: 0)
        func validity(_ change: (inout tl_record) -> Void) throws -> tl_validity {
            var record = sound
            change(&record)
            var line = [UInt8](repeating: 0, count: 64)
            tl_record_encode(&record, ring.seed, &line)
            try fixture.tamper(line, at: .zero)
            return tl_record_read(&ring, 0, ring.size, &record)
        }
        #expect(try validity { _ in } == TL_VALID)
        let hostile: [(inout tl_record) -> Void] = [
            { $0.payload_bytes = 8 }, { $0.range_bytes = 0 }, { $0.offset = UInt64.max - 3 }, { $0.acknowledged = 64 },
            { $0.count = 0 }, { $0.number = 1 }, { $0.kind = 0 }, { $0.kind = 6 }, { $0.flags = 1 }, { $0.flags = 2 },
            {
                $0.kind = 1; $0.payload_bytes = 65_536; $0.range_bytes = 65_536
            },
            {
                $0.kind = 1; $0.payload_bytes = .max; $0.range_bytes = .max
            },
            {
                $0.kind = 1; $0.payload_bytes = 9
            }, { $0.kind = 4 },
            {
                $0.kind = 5; $0.range_bytes = 0; $0.count = 2
            },
        ]
        for (index, change) in hostile.enumerated() {
            #expect(try validity(change) == TL_BAD_HEADER, "number \(index)")
        }
    }

    @Test func recordsOfOneWriteAgreeOnItsCount() throws {  // S7
        let ring = try #require(fixture.region.ring)
        for counts in [[2, 2], [2, 3], [2, 1], [3, 2]] as [[UInt16]] {
            for (number, ofWrite) in [(0, counts[0]), (1, counts[1])] as [(UInt16, UInt16)] {
                var record = tl_record(
                    lsn: UInt64(number) * 64, acknowledged: 0, incarnation: 5, offset: UInt64(number) * 8,
                    payload_crc: ring.seed,
                    payload_bytes: 0, range_bytes: 8, volume: 1, number: number, count: ofWrite,
                    kind: UInt8(TL_KIND_DISCARD.rawValue), flags: 0)
                var line = [UInt8](repeating: 0, count: 64)
                tl_record_encode(&record, ring.seed, &line)
                try fixture.tamper(line, at: LSN(record.lsn))
            }
            let found = try scan(fixture.region), whole = counts == [2, 2]
            #expect(found.end == (whole ? LSN(128) : .zero) && found.verdict == (whole ? .clean : .torn), "\(counts)")
        }
    }

    @Test func aRecordBeyondTheEndOfRingOrRangeIsBounded() throws {  // S21
        var ring = try #require(fixture.region.ring)
        let start = ring.size - 4096
        func validity(_ payload: UInt64, end: UInt64) throws -> tl_validity {
            var record = tl_record(
                lsn: start, acknowledged: 0, incarnation: 5, offset: 0, payload_crc: 0, payload_bytes: UInt32(payload),
                range_bytes: UInt32(payload), volume: 1, number: 0, count: 1, kind: UInt8(TL_KIND_DATA.rawValue),
                flags: 0)
            var line = [UInt8](repeating: 0, count: 64)
            tl_record_encode(&record, ring.seed, &line)
            try fixture.tamper(line, at: LSN(start))
            return tl_record_read_header(&ring, start, end, &record)
        }
        // Up to the end itself it is a record; what goes on behind it is memory of somebody else.
        #expect(try validity(4032, end: 2 * ring.size) == TL_VALID)
        #expect(try validity(4033, end: 2 * ring.size) == TL_BAD_HEADER)
        #expect(try validity(1000, end: start + 1088) == TL_VALID)
        #expect(try validity(1000, end: start + 1024) == TL_BAD_HEADER)
    }

    // MARK: Torn and corrupt

    @Test func aFlippedByteInAnUnacknowledgedTailIsTorn() throws {  // S5
        let a = try fixture.appended([1, 2, 3])
        let b = try fixture.appended([UInt8](repeating: 4, count: 1000), acknowledged: a.end)
        for place in [0, 9, 25, 33, 63, 64, 500, 1063] as [UInt64] {
            let lsn = b.start + place
            try fixture.flip(at: lsn)
            let found = try scan(fixture.region)
            #expect(found.writes.map(\.start) == [a.start] && found.end == a.end)
            #expect(found.verdict == .torn, "byte \(place)")
            try fixture.flip(at: lsn)
        }
        #expect(try scan(fixture.region).writes.count == 2)
    }

    @Test func anyFlippedByteBelowTheAcknowledgedLSNIsCorruption() throws {  // S5
        let a = try fixture.appended([1, 2, 3])
        let b = try fixture.appended([4, 5, 6], acknowledged: a.end)
        let c = try fixture.appended([7], acknowledged: b.end)
        for place in (0..<67) as Range<UInt64> {  // header and payload of the second record
            try fixture.flip(at: b.start + place)
            let found = try scan(fixture.region)
            #expect(found.verdict == .corrupt, "byte \(place)")
            #expect(found.firstBad == b.start && found.end == a.end && found.acknowledged == b.end)
            try fixture.flip(at: b.start + place)
        }
        // The last record: only a head update knows that it was acknowledged.
        try fixture.flip(at: c.start)
        #expect(try scan(fixture.region).verdict == .torn)
        try fixture.log.setHead(.zero, acknowledged: c.end)
        #expect(try scan(fixture.region).verdict == .corrupt)
    }

    @Test func aZeroedAcknowledgedLogIsCorruptNotEmpty() throws {  // S5: zeros are not end-of-file
        let a = try fixture.appended([1, 2, 3])
        try fixture.log.setHead(.zero, acknowledged: a.end)
        try fixture.tamper([UInt8](repeating: 0, count: 4096), at: .zero)
        let found = try scan(fixture.region)
        #expect(found.verdict == .corrupt && found.firstBad == .zero)
    }

    @Test func aWatermarkLetsAnIdleTailBeJudged() throws {  // S5
        let a = try fixture.appended([1, 2, 3])
        try fixture.flip(at: a.start + 65)
        #expect(try scan(fixture.region).verdict == .torn)
        #expect(fixture.log.appendWatermark(acknowledged: a.end))
        #expect(try scan(fixture.region).verdict == .corrupt)
    }

    @Test func aWriteWithABadRecordIsNotDeliveredInPart() throws {  // S7
        let fixture = try LogFixture(start: LSN(64 * 1024 - 1024))
        let a = try fixture.appended([1])
        let b = try fixture.appended([UInt8](repeating: 2, count: 5000))
        let c = try fixture.appended([3])
        let second = try #require(Array(b.records).last)
        try fixture.flip(at: second.payloadLSN + 77)
        var found = try scan(fixture.region)
        #expect(found.writes.map(\.start) == [a.start])
        #expect(found.end == a.end && found.firstBad == second.lsn && found.verdict == .torn)
        try fixture.flip(at: second.payloadLSN + 77)
        // A record that is valid, but of another write, does not complete it either.
        try fixture.tamper([UInt8](repeating: 0, count: 64), at: second.lsn)
        found = try scan(fixture.region)
        #expect(found.writes.map(\.start) == [a.start] && found.firstBad == second.lsn)
        #expect(c.start == b.end)
    }

    /// A head that stands inside of a write, as only damage or a bug could put it there, delivers no part of it.
    @Test func aScanFromTheMiddleOfAWriteDeliversNothingOfIt() throws {  // S7
        let fixture = try LogFixture(start: LSN(64 * 1024 - 4096))
        let place = try fixture.appended([UInt8](repeating: 7, count: 8000))
        let records = Array(place.records)
        try #require(records.count == 2)
        try fixture.appended([1, 2, 3])  // must not be taken for what the write lacks
        var ring = try #require(fixture.region.ring)
        var scan = tl_scan_begin(&ring, records[1].lsn.rawValue, 0), write = tl_scanned_write()
        #expect(!tl_scan_next(&scan, &write) && scan.verdict == TL_VERDICT_TORN)
    }

    @Test func aScanBeginsAtTheHeadAndMayFillTheRing() throws {
        let a = try fixture.appended([1])
        let b = try fixture.appended([2])
        try fixture.log.setHead(a.end, acknowledged: a.end)
        #expect(try scan(fixture.region).writes.map(\.start) == [b.start])
    }

    // MARK: The live cursor

    @Test func theDestagerIsToldWhatFailsAndGoesOn() throws {  // S26
        let a = try fixture.appended([UInt8](repeating: 1, count: 300))
        let b = try fixture.appended([UInt8](repeating: 2, count: 300))
        let c = try fixture.appended([UInt8](repeating: 3, count: 300))
        func entries() -> [String] {
            fixture.log.records(from: .zero, to: c.end).map { entry in
                switch entry {
                case .record(let record): "\(record.lsn):\(record.payload.first ?? 0)x\(record.payload.count)"
                case .damaged(let from, let to): "damaged \(from)-\(to)"
                }
            }
        }
        #expect(entries() == ["0:1x300", "\(b.start):2x300", "\(c.start):3x300"])
        try fixture.flip(at: b.start + 100)  // payload
        #expect(entries() == ["0:1x300", "damaged \(b.start)-\(b.end)", "\(c.start):3x300"])
        try fixture.flip(at: b.start + 8)  // and header
        #expect(entries() == ["0:1x300", "damaged \(b.start)-\(b.end)", "\(c.start):3x300"])
        try fixture.flip(at: c.start + 1)
        #expect(entries() == ["0:1x300", "damaged \(b.start)-\(c.end)"])
        _ = a
    }

    @Test func shippedBytesAreTheMirrorsBytes() throws {
        let fixture = try LogFixture(start: LSN(64 * 1024 - 512))
        let place = try fixture.appended([UInt8](repeating: 7, count: 2000))
        let other = try LogFixture()
        try other.region.format(
            role: .mirror, logUUID: logUUID, incarnation: Incarnation(5), start: LSN(64 * 1024 - 512))
        var at = place.start
        fixture.log.withBytes(from: place.start, to: place.end) { piece in
            other.region.store(piece, at: at)
            at = at + UInt64(piece.count)
        }
        try other.region.drain()
        #expect(at == place.end)
        #expect(try scan(other.region).writes == scan(fixture.region).writes)
        #expect(try scan(other.region).writes.count == 1)
    }

    // MARK: msync

    @Test func onAnOrdinaryFileOnlyPersistMakesDurable() throws {
        let fixture = try LogFixture(parent: "/tmp")
        guard fixture.pool.persistence == .msync else {
            return print("skipped: /tmp is on \(fixture.pool.persistence) memory here, not on a disk")
        }
        let a = try fixture.appended([1])
        let b = try fixture.appended([2])
        #expect(fixture.log.published == b.end && fixture.log.durable == .zero)
        #expect(try fixture.log.persist() == b.end)
        #expect(fixture.log.durable == b.end)
        try fixture.trim(to: a.end)
        #expect(try scan(fixture.region).writes.map(\.start) == [b.start])
    }
}
