// Torn is not corrupt (S5): whatever byte, line or page of a log is damaged, the scan says of it exactly what follows from
// what was written, never delivers a wrong byte, and never cuts off what was acknowledged without saying so.

import Foundation
import LogModel
import PersistentMemory
import Recovery
import TestSupport
import Testing
import WriteLog

struct TornOrCorruptTests {
    private static func small() throws -> DamagedLog {
        try DamagedLog(ringBytes: 64 << 10, largestWrite: 2500, seed: 21)
    }
    private static let lineBytes: UInt64 = 64
    private static let pageBytes = 4096

    /// A copy of the small log's file for one test, and what it held before it was damaged.
    private struct Subject {
        let log: DamagedLog
        let folder: Folder
        let sound: Data
        let path: String
        let slot: JournalSlot
        let ringOffset: Int
        let ringBytes: UInt64

        init(_ log: DamagedLog) throws {
            self.log = log
            folder = try Folder()
            path = folder.file("pool")
            sound = try data(of: log.copy.path)
            try sound.write(to: URL(fileURLWithPath: path))
            slot = log.model.slot(log.slots(sound))
            ringOffset = Int(log.copy.region.ringOffset)
            ringBytes = log.copy.region.ringBytes
        }

        func open(readOnly: Bool = false) throws -> Pool {
            try Pool.open(path: path, expecting: nil, persistence: .volatile, readOnly: readOnly)
        }

        /// By the model, for a whole file.
        func expectation(_ file: Data) -> DamageModel.Expectation {
            let slot = log.model.slot(log.slots(file))
            return file.withUnsafeBytes { file in
                let ring = UnsafeRawBufferPointer(rebasing: file[ringOffset..<ringOffset + Int(ringBytes)])
                return log.model.expectation(ring, slot: slot)
            }
        }

        /// By the model, for a ring in memory below an undamaged slot.
        func expectation(_ region: Region) -> DamageModel.Expectation {
            var expectation: DamageModel.Expectation?
            region.withRingBytes(from: .zero, count: ringBytes) { expectation = log.model.expectation($0, slot: slot) }
            guard let expectation else { preconditionFailure("from the ring's start it is one piece") }
            return expectation
        }
    }

    /// That a damage of one record or slot never hides a promise: all of them are there, or it is called corruption.
    private func keepsPromises(_ found: DamageModel.Expectation, _ subject: Subject) -> Bool {
        found.verdict == .corrupt || found.end >= subject.log.model.acknowledged
    }

    private func store(_ bytes: [UInt8], at place: UInt64, _ region: Region) throws {
        bytes.withUnsafeBytes { region.store($0, at: LSN(place)) }
        try region.drain()
    }

    private func bytes(at place: UInt64, count: UInt64, _ region: Region) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(count))
        bytes.withUnsafeMutableBytes { region.readRing(from: LSN(place), into: $0) }
        return bytes
    }

    // MARK: The log itself

    @Test func theModelAgreesOnTheSoundLog() throws {
        let subject = try Subject(Self.small())
        let pool = try subject.open(readOnly: true)
        let region = try #require(pool.region(of: Fixture.group))
        let found = try scanned(region)
        #expect(found == subject.expectation(subject.sound) && found.verdict == .clean)
        #expect(found.end == subject.log.log.published.rawValue && found.writes.count > 10)
        // The log goes around the ring's end, has writes of several records, and a tail that nobody was promised.
        let model = subject.log.model
        #expect(subject.slot.head % subject.ringBytes > found.end % subject.ringBytes && subject.slot.sequence > 2)
        #expect(model.records.contains { $0.lsn >= subject.slot.head && $0.lsn > $0.writeStart })
        #expect(model.acknowledged < found.end && model.acknowledged > subject.slot.head)
    }

    // MARK: Every byte of the ring

    @Test(arguments: 0..<4)
    func everyByteOfTheRing(quarter: UInt64) throws {
        let subject = try Subject(Self.small())
        let pool = try subject.open()
        let region = try #require(pool.region(of: Fixture.group))
        var verdicts: [LogScan.Verdict: Int] = [:]
        var wrong = 0
        let share = subject.ringBytes / 4
        for place in quarter * share..<(quarter + 1) * share where wrong < 5 {
            let sound = bytes(at: place, count: 1, region)
            try store([sound[0] ^ UInt8(1 << (place % 8))], at: place, region)
            let found = try scanned(region), expected = subject.expectation(region)
            verdicts[found.verdict, default: 0] += 1
            if found != expected || !keepsPromises(found, subject) {
                wrong += 1
                Issue.record("byte \(place): found \(found), expected \(expected)")
            }
            try store(sound, at: place, region)
        }
        #expect(verdicts.values.reduce(0, +) == Int(share))
        #expect(try scanned(region) == subject.expectation(subject.sound))
    }

    @Test func allThreeVerdictsAreMet() throws {
        // Else the test above would prove little.
        let subject = try Subject(Self.small())
        let pool = try subject.open()
        let region = try #require(pool.region(of: Fixture.group))
        var verdicts: Set<LogScan.Verdict> = []
        for place in stride(from: 1, to: subject.ringBytes, by: 64) {
            let sound = bytes(at: place, count: 1, region)
            try store([~sound[0]], at: place, region)
            verdicts.insert(try scanned(region).verdict)
            try store(sound, at: place, region)
        }
        #expect(verdicts == [.clean, .torn, .corrupt])
    }

    // MARK: Every line: judged, and healed from the other copy

    @Test(arguments: [false, true])
    func everyLineIsJudgedAndHealed(isZeroed: Bool) throws {
        let subject = try Subject(Self.small())
        let pool = try subject.open()
        let region = try #require(pool.region(of: Fixture.group)), mirror = subject.log.mirror.region
        let sound = try scanned(region)
        var random = SplitMix64(seed: 7), healedLines = 0
        for place in stride(from: 0, to: subject.ringBytes, by: Int(Self.lineBytes)) {
            let line = bytes(at: place, count: Self.lineBytes, region)
            try store(isZeroed ? [UInt8](repeating: 0, count: 64) : random.bytes(64), at: place, region)
            let found = try scanned(region)
            #expect(found == subject.expectation(region) && keepsPromises(found, subject), "line at \(place)")
            let outcome = try Heal.run(region, from: mirror)
            // The tail was never promised: it is not for healing.
            #expect(outcome.lost.isEmpty && outcome.verdict == (found.verdict == .corrupt ? .clean : found.verdict))
            #expect((outcome.healedRecords > 0) == (found.verdict == .corrupt), "line at \(place)")
            if outcome.healedRecords > 0 {
                healedLines += 1
                #expect(try scanned(region) == sound)
            }
            try store(line, at: place, region)
        }
        #expect(healedLines > 100)
    }

    @Test func aLineThatBothCopiesHaveLostIsNeverGuessed() throws {
        let subject = try Subject(Self.small())
        let mirrorFile = subject.folder.file("mirror")
        try data(of: subject.log.mirror.path).write(to: URL(fileURLWithPath: mirrorFile))
        let (pool, other) = (
            try subject.open(), try Pool.open(path: mirrorFile, expecting: nil, persistence: .volatile)
        )
        let region = try #require(pool.region(of: Fixture.group)),
            mirror = try #require(other.region(of: Fixture.group))
        var lost = 0
        for place in stride(from: 0, to: subject.ringBytes, by: Int(Self.lineBytes)) {
            let line = bytes(at: place, count: Self.lineBytes, region)
            for (index, region) in [region, mirror].enumerated() {
                var damaged = line
                damaged[0] ^= 0x40 >> UInt8(index)  // at one byte, differently
                try store(damaged, at: place, region)
            }
            let found = try scanned(region), before = bytes(at: 0, count: subject.ringBytes, region)
            let outcome = try Heal.run(region, from: mirror)
            #expect(outcome.healedRecords == 0 && outcome.verdict == found.verdict)
            #expect(outcome.lost.isEmpty == (found.verdict != .corrupt))
            #expect(bytes(at: 0, count: subject.ringBytes, region) == before)
            if !outcome.lost.isEmpty { lost += 1 }
            for region in [region, mirror] { try store(line, at: place, region) }
        }
        #expect(lost > 100)
    }

    // MARK: Every byte before the ring: superblock, directory, identity, head

    @Test(arguments: 0..<6)
    func everyByteBeforeTheRing(page: Int) throws {
        let subject = try Subject(Self.small())
        #expect(subject.ringOffset == 6 * Self.pageBytes)
        var file = subject.sound, wrong = 0
        for place in page * Self.pageBytes..<(page + 1) * Self.pageBytes where wrong < 5 {
            file[place] ^= UInt8(1 << (place % 8))
            try overwrite(subject.path, at: UInt64(place), with: [file[place]])
            let pool = try subject.open(readOnly: true)
            let found = try scanned(try #require(pool.region(of: Fixture.group)))
            // Each of these bytes has a twin: nothing is lost but the newer of two heads.
            let expected = subject.expectation(file)
            if found != expected || !keepsPromises(found, subject) {
                wrong += 1
                Issue.record("byte \(place): found \(found), expected \(expected)")
            }
            pool.close()
            file[place] = subject.sound[place]
            try overwrite(subject.path, at: UInt64(place), with: [file[place]])
        }
    }

    // MARK: Pages that fell back to older contents, whole or in part: judged, and healed from the other copy

    @Test(arguments: [0..<4096, 0..<512, 512..<4096, 1536..<2560])
    func everyTornPageIsJudgedAndHealed(part: Range<Int>) throws {
        let subject = try Subject(Self.small())
        let acknowledged = subject.log.model.acknowledged, mirror = subject.log.mirror.region
        #expect(subject.log.snapshots.count >= 8)
        var verdicts: Set<LogScan.Verdict> = [], healedPages = 0
        for (number, snapshot) in subject.log.snapshots.enumerated() {
            for page in stride(from: 0, to: subject.ringOffset + Int(subject.ringBytes), by: Self.pageBytes) {
                let place = page + part.lowerBound..<page + part.upperBound
                var file = subject.sound
                file.replaceSubrange(place, with: snapshot[place])
                try file.write(to: URL(fileURLWithPath: subject.path))
                let pool = try subject.open()
                defer { pool.close() }
                let region = try #require(pool.region(of: Fixture.group))
                let found = try scanned(region)
                #expect(found == subject.expectation(file), "page at \(page), snapshot \(number)")
                verdicts.insert(found.verdict)
                let before = bytes(at: 0, count: subject.ringBytes, region)
                switch Result(catching: { () throws(HealError) in try Heal.run(region, from: mirror) }) {
                case .success(let outcome):
                    #expect(outcome.lost.isEmpty && outcome.verdict != .corrupt, "page at \(page), snapshot \(number)")
                    #expect(try scanned(region).end >= acknowledged)
                    if outcome.healedRecords > 0 { healedPages += 1 }
                case .failure(let error):
                    // The newest head is lost, and records of the next lap stand where the older one points.
                    #expect(error.code == .contradiction && page < subject.ringOffset, "page at \(page): \(error)")
                    #expect(bytes(at: 0, count: subject.ringBytes, region) == before)
                }
            }
        }
        #expect(verdicts.contains(.corrupt) && verdicts.count > 1 && healedPages > 20, "\(verdicts), \(healedPages)")
    }

    // MARK: Large logs, sampled

    @Test(arguments: [31, 32] as [UInt64])
    func sampledDamageOfALargeLog(seed: UInt64) throws {
        let large = try DamagedLog(ringBytes: 24 << 20, largestWrite: 300_000, seed: seed)
        let subject = try Subject(large)
        let pool = try subject.open()
        let region = try #require(pool.region(of: Fixture.group)), mirror = large.mirror.region
        var random = SplitMix64(seed: seed &* 7), verdicts: Set<LogScan.Verdict> = []
        #expect(try scanned(region) == subject.expectation(region))
        for round in 0..<40 {
            // Half of the damage near the log's end, where torn and corrupt are neighbours.
            let end = large.log.published.rawValue
            let near = (end - min(UInt64.random(in: 64...2_000_000, using: &random), end)) % subject.ringBytes
            let place = (round % 2 == 0 ? near : UInt64.random(in: 0..<subject.ringBytes, using: &random)) / 64 * 64
            let count = min([64, 512, 4096, 65_536].randomElement(using: &random)!, subject.ringBytes - place)
            let sound = bytes(at: place, count: count, region)
            let old = large.snapshots.randomElement(using: &random)!
            let damaged: [UInt8] =
                switch round % 3 {
                case 0: [UInt8](repeating: 0, count: Int(count))
                case 1: Array(old[subject.ringOffset + Int(place)..<subject.ringOffset + Int(place + count)])
                default: sound.enumerated().map { $0 % 61 == round ? $1 ^ 0x04 : $1 }
                }
            try store(damaged, at: place, region)
            let found = try scanned(region)
            verdicts.insert(found.verdict)
            #expect(found == subject.expectation(region), "round \(round): \(count) bytes at \(place)")
            let outcome = try Heal.run(region, from: mirror)
            #expect(outcome.lost.isEmpty && outcome.verdict != .corrupt)
            #expect(try scanned(region).end >= large.model.acknowledged)
            try store(sound, at: place, region)
        }
        #expect(verdicts.contains(.corrupt) && verdicts.count > 1)
    }
}
