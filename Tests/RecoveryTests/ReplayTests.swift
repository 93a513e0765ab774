// Replay: everything of a log, in order, onto the medium (S16), the newest wins (S9), all or none (S7), the same however
// often it is cut and begun again (S10), and nothing at all of a log that cannot be trusted (S5).

import Foundation
import LogModel
import PersistentMemory
import Recovery
import StorageMedium
import TestSupport
import Testing
import WriteLog

struct ReplayTests {
    private func replay(_ fixture: Fixture, dryRun: Bool = false) throws -> ReplayOutcome {
        var media: [VolumeID: any Medium] = [volume0: try fixture.medium()]
        if fixture.model[volume1] != nil { media[volume1] = try fixture.medium("vol1") }
        return try #require(try Replay.run(fixture.region, onto: media, dryRun: dryRun))
    }

    // MARK: What comes onto the medium

    @Test(arguments: [1, 2, 3] as [UInt64])
    func everythingInTheLogComesOntoTheMediumInOrder(seed: UInt64) throws {  // S9, S16
        let fixture = try Fixture(volumes: ["vol0", "vol1"])
        try fixture.fillRandomly(seed: seed, count: 200)
        let outcome = try replay(fixture)
        try fixture.mediaAreAsModelled()
        #expect(outcome.writes == 200 && outcome.verdict == .clean)
        #expect(outcome.headLSN == .zero && outcome.endLSN == fixture.log.published)
    }

    @Test func aLogThatWentRoundTheRingIsReplayedFromItsHead() throws {
        let fixture = try Fixture(ringBytes: 256 << 10)
        var random = SplitMix64(seed: 9)
        var ends: [LSN] = []
        for index in 0..<300 as Range<UInt64> {
            if ends.count > 20 { try fixture.trim(to: ends.removeFirst()) }
            ends.append(try fixture.write(random.bytes(5000), at: index * 5000).end)
        }
        // What was trimmed is on the medium already.
        let head = try #require(ends.first)
        let medium = try fixture.medium()
        try fixture.model[volume0]?.withUnsafeBytes {
            try medium.write([UnsafeRawBufferPointer(rebasing: $0[..<1_400_000])], at: 0)
        }
        #expect(fixture.log.published.rawValue > 5 * fixture.region.ringBytes && head > fixture.region.head)
        #expect(try replay(fixture).writes == 21)
        try fixture.mediaAreAsModelled()
    }

    @Test func discardsAndZeroesAreApplied() throws {
        let fixture = try Fixture()
        try fixture.write([UInt8](repeating: 1, count: 20000), at: 1000)
        try fixture.clear(5000, at: 3001, discard: true)
        try fixture.clear(5000, at: 10001, discard: false)
        try fixture.clear(5000, at: 100_000, discard: true)
        // And what is written into a hole again stands.
        try fixture.write([2, 3, 4], at: 4000)
        _ = try replay(fixture)
        try fixture.mediaAreAsModelled()
    }

    @Test func theNewestWinsAcrossBatchesToo() throws {  // S9
        // More records than one batch takes.
        let fixture = try Fixture(ringBytes: 16 << 20)
        for index in 0..<70_000 as Range<UInt64> {
            try fixture.write(
                [UInt8(truncatingIfNeeded: index), UInt8(truncatingIfNeeded: index >> 8)], at: index % 97)
        }
        #expect(try replay(fixture).writes == 70_000)
        try fixture.mediaAreAsModelled()
    }

    @Test func writesAreCoalesced() throws {
        let fixture = try Fixture()
        for round in 0..<10 as Range<UInt8> {
            for block in 0..<8 as Range<UInt64> {
                try fixture.write([UInt8](repeating: round, count: 512), at: block * 512)
            }
        }
        let medium = ObservedMedium(try fixture.medium())
        _ = try Replay.run(fixture.region, onto: [volume0: medium])
        #expect(medium.calls == [.write(ByteRange(offset: 0, length: 4096)), .flush])
        try fixture.mediaAreAsModelled()
    }

    @Test func aDiscardReleasesSpaceAndKeptZeroesDoNot() throws {
        let fixture = try Fixture()
        try fixture.append(.discard(length: 4096), at: 0)
        try fixture.append(.writeZeroes(length: 4096, keepSpace: true), at: 8192)
        let medium = ObservedMedium(try fixture.medium())
        _ = try Replay.run(fixture.region, onto: [volume0: medium])
        #expect(
            medium.calls == [
                .zero(ByteRange(offset: 0, length: 4096), releasingSpace: true),
                .zero(ByteRange(offset: 8192, length: 4096), releasingSpace: false), .flush,
            ])
    }

    @Test func neighbouringZerosOfOneKindAreOneCall() throws {
        let fixture = try Fixture()
        try fixture.append(.writeZeroes(length: 4096, keepSpace: true), at: 12288)
        try fixture.append(.writeZeroes(length: 4096, keepSpace: false), at: 4096)
        try fixture.append(.discard(length: 4096), at: 0)
        try fixture.append(.writeZeroes(length: 4096, keepSpace: true), at: 8192)
        try fixture.appendOnly([UInt8](repeating: 1, count: 512), at: 16384)
        try fixture.append(.discard(length: 512), at: 16896)
        let medium = ObservedMedium(try fixture.medium())
        _ = try Replay.run(fixture.region, onto: [volume0: medium])
        #expect(
            medium.calls == [
                .zero(ByteRange(offset: 0, length: 8192), releasingSpace: true),
                .zero(ByteRange(offset: 8192, length: 8192), releasingSpace: false),
                .write(ByteRange(offset: 16384, length: 512)),
                .zero(ByteRange(offset: 16896, length: 512), releasingSpace: true), .flush,
            ])
    }

    /// A discard is 64 bytes of log for every 2 GiB: a client can fill the log with thousands of them.
    @Test func aLogFullOfLongDiscardsIsOneCall() throws {
        let fixture = try Fixture()
        let length = UInt64(UInt32.max) / 4096 * 4096
        let vast = try FileMedium.open(
            path: fixture.folder.file("vast"), sizeBytes: 16 * length, createIfMissing: true)
        var discards: UInt64 = 0
        while case .appended = fixture.log.append(
            volume: volume0, offset: discards % 16 * length, .discard(length: length), acknowledged: .zero)
        {
            discards += 1
        }
        #expect(discards > 8000)
        let medium = ObservedMedium(vast)
        _ = try Replay.run(fixture.region, onto: [volume0: medium])
        #expect(
            medium.calls == [.zero(ByteRange(offset: 0, length: 16 * length), releasingSpace: true), .flush])
    }

    @Test func longDiscardsTakeAsManyCallsAsWritesDivideThem() throws {
        let fixture = try Fixture()
        let length = UInt64(UInt32.max) / 4096 * 4096
        let vast = try FileMedium.open(path: fixture.folder.file("vast"), sizeBytes: length, createIfMissing: true)
        for place in 0..<100 as Range<UInt64> {
            try fixture.append(.discard(length: length), at: 0)
            try fixture.appendOnly([1], at: place << 24)
        }
        // Of those only the last one is newer than the last discard; of these all are.
        for place in 0...100 as ClosedRange<UInt64> where place != 99 {
            try fixture.appendOnly([UInt8(place)], at: place << 24)
        }
        let medium = ObservedMedium(vast)
        _ = try Replay.run(fixture.region, onto: [volume0: medium])
        #expect(medium.calls.count == 101 + 101 + 1)
        var byte: [UInt8] = [0]
        for place in 0...100 as ClosedRange<UInt64> {
            try byte.withUnsafeMutableBytes { try vast.read(into: $0, at: place << 24) }
            #expect(byte[0] == (place == 99 ? 1 : UInt8(place)))
        }
    }

    @Test func anEmptyLogChangesNothing() throws {
        let fixture = try Fixture()
        #expect(try replay(fixture).writes == 0)
        try fixture.mediaAreUntouched()
    }

    @Test func aRegionThatWasNeverUsedHoldsNoLog() throws {
        let fixture = try Fixture()
        let folder = try Folder()
        let pool = try Pool.create(
            path: folder.file("pool"), sizeBytes: 1 << 20,
            identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .volatile)
        let region = try pool.allocateRegion(group: GroupID("g1"), ringBytes: 64 << 10)
        #expect(try Replay.run(region, onto: [volume0: try fixture.medium()]) == nil)
    }

    // MARK: Cut and begun again

    @Test func aSecondReplayChangesNothing() throws {  // S10
        let fixture = try Fixture(volumes: ["vol0", "vol1"])
        try fixture.fillRandomly(seed: 4, count: 150)
        let pool = try data(of: fixture.poolPath)
        let first = try replay(fixture)
        #expect(try replay(fixture) == first)
        try fixture.mediaAreAsModelled()
        #expect(try data(of: fixture.poolPath) == pool)
    }

    @Test func cutAnywhereAndRunAgainItGivesTheSameMedium() throws {  // S10
        let fixture = try Fixture()
        try fixture.fillRandomly(seed: 5, count: 60)
        let whole = ObservedMedium(try fixture.medium())
        _ = try Replay.run(fixture.region, onto: [volume0: whole])
        #expect(whole.calls.count > 20 && whole.calls.last == .flush)
        for failing in whole.calls.indices {
            let medium = try fixture.medium()
            try Fixture.blankMedium.withUnsafeBytes { try medium.write([$0], at: 0) }
            let cut = ObservedMedium(medium)
            cut.failingCall = failing
            let error = #expect(throws: ReplayError.self) { try Replay.run(fixture.region, onto: [volume0: cut]) }
            #expect(error?.code == .medium)
            // Nothing goes on behind a failure, least of all a flush (S8).
            #expect(cut.calls == Array(whole.calls[...failing]))
            _ = try replay(fixture)
            try fixture.mediaAreAsModelled()
        }
    }

    @Test func everyMediumThatWasWrittenIsFlushedLast() throws {  // S8
        let fixture = try Fixture(volumes: ["vol0", "vol1"])
        try fixture.write([1], at: 0)
        try fixture.write([2], at: 0, volume: volume1)
        let media = [
            volume0: ObservedMedium(try fixture.medium()), volume1: ObservedMedium(try fixture.medium("vol1")),
        ]
        _ = try Replay.run(fixture.region, onto: media)
        for medium in media.values { #expect(medium.calls == [.write(ByteRange(offset: 0, length: 1)), .flush]) }
    }

    // MARK: Nothing of a log that cannot be trusted

    private func refusal(_ fixture: Fixture) throws -> ReplayError? {
        let medium = try fixture.medium()
        let error = #expect(throws: ReplayError.self) { try Replay.run(fixture.region, onto: [volume0: medium]) }
        try fixture.mediaAreUntouched()
        return error
    }

    @Test(arguments: [0, 8, 24, 64, 500] as [UInt64])
    func damageBelowTheAcknowledgedEndIsRefused(at place: UInt64) throws {  // S5
        let fixture = try Fixture()
        let damaged = try (0..<10).map {
            try fixture.write([UInt8](repeating: $0, count: 1000), at: UInt64($0) * 1000)
        }[4]
        // The next record's header tells what was acknowledged by then.
        try fixture.write([1], at: 50_000, acknowledged: damaged.end)
        try fixture.flip(at: damaged.start + place)
        let error = try refusal(fixture)
        #expect(error?.code == .corrupt && error?.message.contains("LSN \(damaged.start)") == true)
    }

    @Test func damageAboveWhatWasAcknowledgedIsATornTail() throws {  // S5
        let fixture = try Fixture()
        let first = try fixture.write([UInt8](repeating: 1, count: 1000), at: 0)
        try fixture.write([UInt8](repeating: 2, count: 1000), at: 500, acknowledged: first.end)
        let torn = try fixture.appendOnly([UInt8](repeating: 3, count: 1000), at: 700, acknowledged: first.end)
        // Even though a whole record stands behind it: it must not be applied without the one before.
        try fixture.appendOnly([UInt8](repeating: 4, count: 1000), at: 1000, acknowledged: first.end)
        try fixture.flip(at: torn.start + 100)
        let outcome = try replay(fixture)
        #expect(outcome.verdict == .torn && outcome.endLSN == torn.start && outcome.writes == 2)
        try fixture.mediaAreAsModelled()
    }

    @Test func damageBelowTheHeadSlotsAcknowledgedEndIsRefused() throws {  // S5
        let fixture = try Fixture()
        let first = try fixture.write([1], at: 0)
        let second = try fixture.write([2], at: 1)
        try fixture.region.setHead(first.end, acknowledged: second.end)
        try fixture.flip(at: second.start + 64)
        #expect(try refusal(fixture)?.code == .corrupt)
    }

    @Test func aLogThatRotsUnderTheReplayIsRefused() throws {  // S26
        let fixture = try Fixture()
        let writes = try (0..<10).map { try fixture.write([UInt8](repeating: $0, count: 1000), at: UInt64($0) * 1000) }
        let medium = ObservedMedium(try fixture.medium())
        var calls = 0
        let error = #expect(throws: ReplayError.self) {
            try Replay.run(fixture.region, onto: [volume0: medium]) { _, _ in
                calls += 1
                // The judgement is over, the first write is taken: now the seventh goes bad.
                if calls == 1 { Result { try fixture.flip(at: writes[6].start + 64) }.expectSuccess() }
            }
        }
        #expect(error?.code == .corrupt && calls == 6 && !medium.calls.contains(.flush))
    }

    @Test func aRecordOfAnUnknownVolumeIsFoundBeforeAnythingIsWritten() throws {
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        try fixture.append(.discard(length: 10), at: 0, volume: VolumeID(name: "elsewhere"))
        #expect(try refusal(fixture)?.code == .unknownVolume)
    }

    @Test func aRecordBeyondTheMediumIsFoundBeforeAnythingIsWritten() throws {  // S21
        let fixture = try Fixture()
        try fixture.write([1], at: 0)
        try fixture.append(.discard(length: 2), at: Fixture.mediumBytes - 1)
        #expect(try refusal(fixture)?.code == .outOfRange)
    }

    @Test func aDryRunWritesNothingAndTellsTheSame() throws {
        let fixture = try Fixture()
        try fixture.fillRandomly(seed: 6, count: 100)
        let medium = ObservedMedium(try fixture.medium())
        let pool = try data(of: fixture.poolPath)
        let told = try Replay.run(fixture.region, onto: [volume0: medium], dryRun: true)
        #expect(medium.calls.isEmpty)
        try fixture.mediaAreUntouched()
        #expect(try data(of: fixture.poolPath) == pool)
        #expect(try replay(fixture) == told)
    }

    // MARK: All or none

    @Test(arguments: 0..<3)
    func aWriteOfManyRecordsIsAppliedAllOrNone(damaged: Int) throws {  // S7
        let fixture = try Fixture(ringBytes: 16 << 20)
        try fixture.write([UInt8](repeating: 1, count: 5000), at: 100)
        let big = try fixture.appendOnly([UInt8](repeating: 2, count: 2_500_000), at: 0)
        let records = Array(big.records)
        #expect(records.count == 3)
        try fixture.flip(at: records[damaged].payloadLSN + 17)
        let outcome = try replay(fixture)
        #expect(outcome.verdict == .torn && outcome.endLSN == big.start)
        try fixture.mediaAreAsModelled()
    }

    @Test func aWholeWriteOfManyRecordsIsApplied() throws {  // S7
        let fixture = try Fixture(ringBytes: 16 << 20)
        var random = SplitMix64(seed: 7)
        try fixture.write(random.bytes(2_500_000), at: 12345)
        #expect(try replay(fixture).payloadBytes == 2_500_000)
        try fixture.mediaAreAsModelled()
    }
}

extension Result {
    fileprivate func expectSuccess(sourceLocation: SourceLocation = #_sourceLocation) {
        if case .failure(let error) = self { Issue.record(error, sourceLocation: sourceLocation) }
    }
}
