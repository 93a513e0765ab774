// Appending: layout, wrap-around, full and reclaim (S6), one reservation per write (S7), threads.

import Glibc
import LogModel
import PersistentMemory
import Synchronization
import TestSupport
import Testing
import WriteLog

struct AppendTests {
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func whatIsAppendedIsScannedBackOverManyLaps(_ seed: UInt64) throws {
        let fixture = try LogFixture(start: LSN(UInt64(seed) * 64 * 1000))
        var generator = SplitMix64(seed: seed)
        var resident: [Found] = []
        for _ in 0..<(inGuest ? 400 : 1500) {
            let offset = UInt64.random(in: 0...(1 << 40), using: &generator)
            let (payload, bytes, kind, length) = Self.randomPayload(&generator)
            let outcome = bytes.withUnsafeBytes { raw in
                fixture.log.append(
                    volume: volume, offset: offset, payload ?? .data(raw), acknowledged: fixture.log.published)
            }
            switch outcome {
            case .appended(let place):
                #expect(fixture.log.published == place.end && fixture.log.durable == place.end)
                resident.append(
                    Found(
                        start: place.start, end: place.end, volume: volume, kind: kind,
                        range: ByteRange(offset: offset, length: length), bytes: bytes))
            case .full:
                let keep = Int.random(in: 0...resident.count, using: &generator)
                resident.removeFirst(resident.count - keep)
                try fixture.trim(to: resident.first?.start ?? fixture.log.published)
            case .tooLarge, .failed: Issue.record("nothing here is too large, nor fails")
            }
        }
        #expect(fixture.log.tail.rawValue > 20 * fixture.region.ringBytes, "several laps")
        let found = try scan(fixture.region)
        #expect(found.writes == resident)
        #expect(found.verdict == .clean && found.end == fixture.log.tail)
    }

    private static func randomPayload(
        _ generator: inout SplitMix64
    ) -> (WriteLog.Payload?, [UInt8], LogRecord.Kind, UInt64) {
        let length = UInt64.random(in: 1...(1 << 33), using: &generator)
        switch Int.random(in: 0..<10, using: &generator) {
        case 0: return (.discard(length: length), [], .discard, length)
        case 1:
            return (.writeZeroes(length: length, keepSpace: true), [], .writeZeroes(keepSpace: true), length)
        case 2: return (.writeZeroes(length: length, keepSpace: false), [], .writeZeroes(keepSpace: false), length)
        default:
            let bytes = generator.bytes(Int.random(in: 1...12_000, using: &generator))
            return (nil, bytes, .data, UInt64(bytes.count))
        }
    }

    // MARK: Layout

    @Test func aWriteMayEndExactlyAtTheRingsEnd() throws {
        let fixture = try LogFixture(start: LSN(60 * 1024))
        let bytes = [UInt8](repeating: 1, count: 4096 - 64)
        let place = try fixture.appended(bytes)
        #expect(place.end == LSN(64 * 1024))
        #expect(Array(place.records).count == 1)
        let next = try fixture.appended([7])
        #expect(next.start == LSN(64 * 1024))
        #expect(try scan(fixture.region).writes.map(\.bytes) == [bytes, [7]])
    }

    @Test func aPadFillsALastLineAndBelongsToTheWrite() throws {  // S7
        let fixture = try LogFixture(start: LSN(64 * 1024 - 64))
        let place = try fixture.appended([1, 2, 3])
        #expect(place.start == LSN(64 * 1024 - 64))
        #expect(place.end == LSN(64 * 1024 + 128))
        let record = try #require(Array(place.records).first)
        #expect(record.lsn == LSN(64 * 1024) && record.payloadLSN == LSN(64 * 1024 + 64))
        let found = try scan(fixture.region)
        #expect(found.writes.map(\.start) == [place.start])
        #expect(found.writes.map(\.bytes) == [[1, 2, 3]])
        // Without its pad the write is not whole.
        try fixture.flip(at: place.start + 32)
        #expect(try scan(fixture.region).writes.isEmpty)
    }

    @Test(arguments: [128, 192, 1024, 4096, 8192] as [UInt64])
    func aWriteIsSplitAtTheRingsEnd(_ room: UInt64) throws {
        let fixture = try LogFixture(start: LSN(64 * 1024 - room))
        var generator = SplitMix64(seed: room)
        let bytes = generator.bytes(10_000)
        let place = try fixture.appended(bytes, at: 512)
        let records = Array(place.records)
        #expect(records.map(\.length) == [room - 64, 10_000 - (room - 64)])
        #expect(records.map(\.volumeOffset) == [512, 512 + room - 64])
        for record in records {
            var payload = [UInt8](repeating: 0, count: Int(record.length))
            payload.withUnsafeMutableBytes { fixture.region.readRing(from: record.payloadLSN, into: $0) }
            let first = Int(record.volumeOffset - 512)
            #expect(payload[...] == bytes[first..<first + payload.count])
        }
        #expect(try scan(fixture.region).writes.map(\.bytes) == [bytes])
    }

    @Test func aLargeWriteIsSeveralRecordsOfAtMostAMebibyte() throws {
        let fixture = try LogFixture(ringBytes: 16 << 20)
        var generator = SplitMix64(seed: 8)
        let bytes = generator.bytes(fixture.log.maximumWriteBytes)
        #expect(bytes.count > 4_000_000)
        let place = try fixture.appended(bytes)
        #expect(Array(place.records).map(\.length) == [1 << 20, 1 << 20, 1 << 20, UInt64(bytes.count - 3 << 20)])
        let found = try scan(fixture.region)
        #expect(found.writes.count == 1)
        #expect(found.writes.first?.bytes == bytes)
    }

    @Test func discardsBeyondOneFieldAreSplit() throws {
        let fixture = try LogFixture()
        let length: UInt64 = 5 << 31
        guard
            case .appended(let place) = fixture.log.append(
                volume: volume, offset: 0, .discard(length: length + 7), acknowledged: .zero)
        else { throw LogFixture.NoRoom() }
        #expect(Array(place.records).map(\.length) == [UInt64](repeating: 1 << 31, count: 5) + [7])
        #expect(try scan(fixture.region).writes.map(\.range.length) == [length + 7])
    }

    @Test func theBoundsOfAWriteHoldWhereverItStarts() throws {
        let region = try LogFixture().region
        for start in stride(from: 0, to: UInt64(64 * 1024), by: inGuest ? 64 * 11 : 64) {
            try region.format(role: .owner, logUUID: logUUID, incarnation: Incarnation(100 + start), start: LSN(start))
            let fixture = try WriteLog(region: region)
            let most = fixture.maximumWriteBytes
            let bytes = [UInt8](repeating: 3, count: most)
            let outcome = bytes.withUnsafeBytes { raw in
                let outcome = fixture.append(volume: volume, offset: 0, .data(raw), acknowledged: LSN(start))
                if case .appended(let place) = outcome {
                    #expect(place.end - place.start <= fixture.reservationBytes(.data(raw)))
                }
                return outcome
            }
            guard case .appended = outcome else {
                Issue.record("start \(start): \(outcome)")
                return
            }
            let over = [UInt8](repeating: 3, count: 16 * 1024 - 63)
            let large = over.withUnsafeBytes {
                fixture.append(volume: volume, offset: 0, .data($0), acknowledged: LSN(start))
            }
            guard case .tooLarge = large else {
                Issue.record("start \(start): \(large)")
                return
            }
        }
    }

    // MARK: Full

    @Test func aFullLogRefusesUntilSpaceIsGivenBackAndOverwritesNothing() throws {  // S6
        let fixture = try LogFixture()
        var generator = SplitMix64(seed: 4)
        var writes: [[UInt8]] = []
        var ends: [LSN] = []
        while true {
            let bytes = generator.bytes(1000)
            guard case .appended(let place) = fixture.append(bytes) else { break }
            writes.append(bytes)
            ends.append(place.end)
        }
        #expect(fixture.log.tail - fixture.log.reclaimLimit <= fixture.region.ringBytes - 4096)
        #expect(try scan(fixture.region).writes.map(\.bytes) == writes)
        // The durable head alone gives nothing back: the mirror may still need it.
        try fixture.log.setHead(ends[3], acknowledged: ends[3])
        guard case .full = fixture.append(writes[0]) else {
            Issue.record("space was reused too early")
            return
        }
        fixture.log.setReclaimLimit(ends[3])
        try fixture.appended(writes[0])
        #expect(try scan(fixture.region).writes.map(\.bytes) == writes[4...] + [writes[0]])
    }

    @Test func watermarksHaveSpaceOfTheirOwn() throws {  // S5, S6
        let fixture = try LogFixture()
        while case .appended = fixture.append([UInt8](repeating: 1, count: 500)) {}
        guard case .full = fixture.append([1]) else {
            while case .appended = fixture.append([1]) {}
            return try finish(fixture)
        }
        try finish(fixture)
    }

    private func finish(_ fixture: LogFixture) throws {
        let acknowledged = fixture.log.published
        #expect(fixture.log.appendWatermark(acknowledged: acknowledged))
        let found = try scan(fixture.region)
        #expect(found.verdict == .clean && found.acknowledged == acknowledged)
        var more = 0
        while more < 1000, fixture.log.appendWatermark(acknowledged: acknowledged) { more += 1 }
        #expect((40...63).contains(more), "the control space is 4096 bytes, and bounded")
        #expect(try scan(fixture.region).verdict == .clean)
    }

    // MARK: Opening

    @Test func onlyAnEmptyOwnersRegionIsOpened() throws {  // S4
        let fixture = try LogFixture()
        try fixture.appended([1])
        #expect(throws: WriteLogError.self) { try WriteLog(region: fixture.region) }
        try fixture.region.format(role: .mirror, logUUID: logUUID, incarnation: Incarnation(6), start: .zero)
        #expect(throws: WriteLogError.self) { try WriteLog(region: fixture.region) }
        try fixture.region.format(role: .owner, logUUID: logUUID, incarnation: Incarnation(7), start: .zero)
        _ = try WriteLog(region: fixture.region)
    }

    // MARK: Threads

    @Test(arguments: [2, 4, 8])
    func threadsAppendWithoutLosingOrMixingAnything(_ threads: Int) throws {
        let fixture = try LogFixture(ringBytes: 256 * 1024)
        let log = fixture.log, region = fixture.region
        let perThread = inGuest ? 60 : 400
        let seen = Mutex<[UInt64: Int]>([:])
        let done = Atomic<Int>(0)
        onThreads(threads + 1) { index in
            if index == threads {
                Self.destage(log, region, seen, until: { done.load(ordering: .acquiring) == threads })
            } else {
                Self.produce(log, stream: index, count: perThread)
                done.add(1, ordering: .releasing)
            }
        }
        let counts = seen.withLock { $0 }
        #expect(counts.count == threads * perThread)
        #expect(counts.values.allSatisfy { $0 == 1 }, "every write exactly once")
        #expect(log.published == log.tail)
    }

    /// The offset names the write; its bytes follow from the offset.
    private static func bytes(of name: UInt64) -> [UInt8] {
        var generator = SplitMix64(seed: name)
        return generator.bytes(Int.random(in: 1...6000, using: &generator))
    }

    private static func produce(_ log: WriteLog, stream: Int, count: Int) {
        for number in 0..<count {
            let name = UInt64(stream) << 40 | UInt64(number)
            let bytes = bytes(of: name)
            while true {
                let outcome = bytes.withUnsafeBytes {
                    log.append(volume: volume, offset: name << 16, .data($0), acknowledged: log.head)
                }
                if case .appended = outcome { break }
                sched_yield()
            }
        }
    }

    /// Reads what is published, checks it, and gives the space back, until all producers are done.
    private static func destage(
        _ log: WriteLog, _ region: Region, _ seen: borrowing Mutex<[UInt64: Int]>, until isDone: () -> Bool
    ) {
        var position = log.head
        while true {
            let finished = isDone(), end = log.published
            var bytes: [UInt8] = []
            var name: UInt64?
            for entry in log.records(from: position, to: end) {
                guard case .record(let record) = entry else {
                    Issue.record("damaged: \(entry)")
                    return
                }
                if record.range.offset & 0xFFFF == 0 { name = record.range.offset >> 16 }
                bytes += record.payload
                guard record.endsWrite, let written = name else { continue }
                if bytes != Self.bytes(of: written) { Issue.record("write \(written) has other bytes") }
                seen.withLock { $0[written, default: 0] += 1 }
                bytes = []
                name = nil
            }
            position = end
            do { try log.setHead(end, acknowledged: end) } catch {
                Issue.record(error)
                return
            }
            log.setReclaimLimit(end)
            if finished && log.published == end { return }
            sched_yield()
        }
    }
}
