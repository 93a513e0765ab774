// How long the stages of the data path take, as status tells it: what is counted, from when to when, and for how long it is remembered.

import ClusterProtocol
import LogModel
import NIOCore
import RemoteMemory
import TestSupport
import Testing
import WriteLog

@testable import GroupEngine

private let milli: Nanos = 1_000_000
private let second: Nanos = 1_000_000_000

struct StageTimesTests {
    // MARK: The histogram

    @Test(
        "a percentile is not below the truth and at most a sixteenth above it", arguments: 1...4 as ClosedRange<UInt64>)
    func percentiles(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let counters = LatencyCounters(kinds: 2)
        var durations: [Nanos] = []
        for _ in 0..<5000 {
            let duration = Nanos.random(in: 0...1 << Nanos.random(in: 1...39, using: &random), using: &random)
            durations.append(duration)
            counters.record(1, duration)
        }
        durations.sort()
        let histogram = counters.histogram(1)
        #expect(histogram.count == 5000 && counters.histogram(0).count == 0)
        #expect(counters.takeGreatest(1) == durations.last && counters.greatest(1) == 0)
        for perMille in [1, 500, 990, 999, 1000] as [UInt64] {
            let truth = durations[(5000 * Int(perMille) + 999) / 1000 - 1]
            let told = histogram.percentile(perMille: perMille)
            #expect(truth...truth + truth / 16 ~= told, "\(perMille): \(told), and it is \(truth)")
        }
    }

    @Test("what takes longer than 18 minutes counts as that, and nothing recorded has no percentile")
    func ends() {
        let counters = LatencyCounters(kinds: 1)
        #expect(counters.histogram(0).percentile(perMille: 500) == 0)
        counters.record(0, .max)
        #expect(counters.histogram(0).percentile(perMille: 500) == (1 << 40) - 1)
        counters.record(0, 0)
        #expect(counters.histogram(0).percentile(perMille: 500) == 0 && counters.histogram(0).count == 2)
    }

    // MARK: The last minute

    private func times(_ times: StageTimes, of stage: Stage) throws -> StageSnapshot {
        try #require(times.snapshot().first { $0.stage == stage })
    }

    @Test("the last minute forgets after 60 to 70 s, and the beginning never")
    func lastMinute() throws {
        let stages = StageTimes(now: 0)
        stages.record(.read, from: 0, to: 7 * milli)
        for tenth in 1...700 as ClosedRange<Nanos> {
            stages.tick(tenth * second / 10)
            let told = try times(stages, of: .read)
            if tenth < 600 { #expect(told.lastMinute.count == 1 && told.lastMinute.max == 7 * milli) }
            #expect(told.sinceStart.count == 1 && told.sinceStart.max == 7 * milli)
        }
        stages.record(.read, from: 0, to: 3 * milli)
        let told = try times(stages, of: .read)
        #expect(told.lastMinute.count == 1 && told.lastMinute.max == 3 * milli && told.lastMinute.p999 == 3 * milli)
        #expect(told.sinceStart.count == 2 && told.sinceStart.max == 7 * milli)
    }

    @Test("after a pause nothing of before is in the last minute")
    func pause() throws {
        let stages = StageTimes(now: 0)
        stages.record(.destage, from: 0, to: milli)
        stages.tick(3600 * second)
        #expect(try times(stages, of: .destage).lastMinute.count == 0)
        #expect(try times(stages, of: .destage).sinceStart.count == 1)
    }

    // MARK: In the engine

    private func expect(
        _ rig: SteppedOwner, _ stage: Stage, _ count: UInt64, max: Nanos,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let told = try times(rig.owner.owned.stages, of: stage).sinceStart
        #expect(told.count == count, "\(stage)", sourceLocation: sourceLocation)
        #expect(told.max == max, "\(stage)", sourceLocation: sourceLocation)
    }

    @Test("each stage spans what it says, with a mirror that takes its time")
    func stages() throws {
        let rig = try SteppedOwner()
        let mirror = FakeMirror(ringBytes: ringBytes)
        rig.owner.owned.authority.rule.required = MemberSet(first: 1)
        rig.owner.attach(mirror, key: RegionKey(rawValue: 1), durable: .zero, isKept: false)
        rig.runtime.settle()

        func write(_ offset: UInt64) {
            rig.session.submit(.write(offset: offset, payload: ByteBuffer(repeating: 1, count: 4096))) { _ in }
        }
        write(0)
        rig.runtime.pass(5 * milli)  // until its turn
        write(4096)
        rig.runtime.pass(2 * milli)  // in the log, behind the WRITE that is out
        try expect(rig, .receive, 2, max: 5 * milli)
        try expect(rig, .ship, 1, max: 0)
        try expect(rig, .mirrorPersist, 0, max: 0)
        try expect(rig, .complete, 0, max: 0)

        rig.runtime.pass(4 * milli)
        rig.owner.mirrorCompleted(through: mirror.posted)  // and the second WRITE leaves
        rig.runtime.pass(3 * milli)
        rig.owner.mirrorCompleted(through: mirror.posted)
        try expect(rig, .append, 2, max: 0)
        try expect(rig, .ship, 2, max: 4 * milli)
        try expect(rig, .mirrorPersist, 2, max: 6 * milli)
        try expect(rig, .complete, 2, max: 7 * milli)
        try expect(rig, .reply, 2, max: 0)

        rig.session.submit(.read(offset: 0, length: 4096)) { _ in }
        try expect(rig, .read, 1, max: 0)
        rig.runtime.pass(DestageMachine.paceTime)
        try expect(rig, .destage, 1, max: 0)
    }

    @Test("what a mirror that left had not completed is not counted")
    func mirrorLeft() throws {
        let rig = try SteppedOwner()
        let mirror = FakeMirror(ringBytes: ringBytes)
        rig.owner.attach(mirror, key: RegionKey(rawValue: 1), durable: .zero, isKept: false)
        rig.runtime.settle()
        try rig.write(1)
        rig.owner.detachMirror()
        rig.runtime.pass(second)
        let next = FakeMirror(ringBytes: ringBytes)
        rig.owner.attach(next, key: RegionKey(rawValue: 2), durable: rig.log.tail, isKept: true)
        try rig.write(2)
        rig.owner.mirrorCompleted(through: next.posted)
        try expect(rig, .mirrorPersist, 1, max: 0)
    }
}
