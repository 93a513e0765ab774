// etcd in trouble: members that die, hang, lose their disks or come back empty, and ways that lose what is said on them. What was won stays won,
// and what nobody knows is called so (S15, S20).

import Coordination
@testable import CoordinationEtcd
import EtcdSupport
import Foundation
import LogModel
import RecordSupport
import TestSupport
import Testing

@Suite(needsEtcd, .timeLimit(.minutes(5)))
struct EtcdOutageTests {
    /// Swaps until one is won, from whatever stands there: what is unknown is read back.
    private func win(_ coordinator: EtcdCoordinator, by owner: String = "alpha") async throws -> GroupRecord {
        var won: GroupRecord?
        let isWon = try await eventually(seconds: 60) {
            guard let present = try? coordinator.read(group)?.version ?? 0 else { return false }
            let wanted = record(present + 1, by: owner)
            guard try coordinator.swapOrNothing(expecting: present, to: wanted) == .won else { return false }
            won = wanted
            return true
        }
        try #require(isWon)
        return try #require(won)
    }

    @Test("three members: whichever dies, the others answer with all that was won", arguments: [0, 1, 2])
    func memberKilled(_ victim: Int) async throws {
        let rig = try await Rig(members: 3)
        let coordinator = rig.coordinator()
        let first = try await win(coordinator)
        rig.servers.kill(victim)
        try await rig.waitUntilAnswering(coordinator)
        #expect(try coordinator.read(group) == first)
        let second = try await win(coordinator, by: "beta")
        try rig.servers.start(victim)
        try await rig.waitUntilAnswering()
        #expect(try rig.coordinator().read(group) == second)
    }

    @Test("a member that hangs costs one try; the next one is remembered")
    func memberHangs() async throws {
        let rig = try await Rig(members: 3)
        let coordinator = rig.coordinator(tryMillis: 3000)
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        let way = try Way(to: rig.servers.endpoints[0])
        way.set(.slow(millis: 60_000))
        var settings = rig.servers.settings(tryMillis: 3000)
        settings.endpoints[0] = way.endpoint
        let patient = EtcdCoordinator(settings)
        #expect(try patient.read(group) == record(1))
        #expect(way.takeRequests() == 1)
        for _ in 0..<10 { #expect(try patient.read(group) == record(1)) }
        #expect(way.takeRequests() == 0)
    }

    @Test("without a quorum nothing is answered, and a swap is not called failed; with it again, what was won is there")
    func quorumLost() async throws {
        let rig = try await Rig(members: 3)
        let coordinator = rig.coordinator(tryMillis: 1000)
        let won = try await win(coordinator)
        rig.servers.kill(0)
        rig.servers.kill(1)
        let isLost = try await eventually(seconds: 60) { (try? coordinator.read(group)) == nil }
        #expect(isLost)
        let wanted = record(won.version + 1, by: "beta")
        let outcome = try coordinator.swapOrNothing(expecting: won.version, to: wanted)
        #expect(outcome != .won, "no member can know")
        if case .lost = outcome { Issue.record("a swap without a quorum is not lost") }
        #expect(throws: CoordinationError.self) { try coordinator.announce(try presence(of: "alpha", counter: 1)) }
        try rig.servers.start(0)
        try rig.servers.start(1)
        try await rig.waitUntilAnswering()
        // The barrier: from now on it is decided whether the swap came into effect.
        let barrier = record(won.version + 1, by: "barrier")
        let decided = try coordinator.swap(expecting: won.version, to: barrier)
        #expect(try rig.coordinator().read(group) == (decided == .won ? barrier : wanted))
    }

    @Test("a member whose disk was wiped is not a way to older records")
    func memberWiped() async throws {
        let rig = try await Rig(members: 3)
        let coordinator = rig.coordinator(tryMillis: 3000)
        let won = try await win(coordinator)
        rig.servers.kill(0)
        try rig.servers.wipe(0)
        try rig.servers.start(0)
        // Debian's etcd refuses to rejoin under its old name with nothing; whether it answers or not, nothing older may be read.
        for _ in 0..<20 { if let read = try? coordinator.read(group) { #expect(read == won) } }
        let next = try await win(coordinator, by: "beta")
        #expect(next.version > won.version)
        #expect(try rig.coordinator(tryMillis: 3000).read(group) == next)
    }

    @Test("S20: an etcd that came back empty is not believed by a node that knew it before")
    func restartedEmpty() async throws {
        let rig = try await Rig()
        let coordinator = rig.coordinator()
        for version in 1...5 as ClosedRange<UInt64> {
            #expect(try coordinator.swap(expecting: version - 1, to: record(version)) == .won)
        }
        rig.servers.kill(0)
        try rig.servers.wipe(0)
        try rig.servers.start(0)
        try await rig.waitUntilAnswering()
        let error = #expect(throws: CoordinationError.self) { try coordinator.read(group) }
        #expect(error?.message.contains("lost something (S20)") == true)
        #expect(try coordinator.swapOrNothing(expecting: 5, to: record(6)) != .won)
        #expect(
            try rig.coordinator().read(group) == nil,
            "a node that starts now sees that there is no record: the engine refuses that")
    }

    @Test("answers that are slower than a try are no answers; those that are not, are waited for")
    func slow() async throws {
        let rig = try await Rig()
        #expect(try rig.coordinator().swap(expecting: 0, to: record(1)) == .won)
        let way = try Way(to: rig.servers.endpoints[0])
        let coordinator = rig.coordinator(tryMillis: 3000, over: way)
        way.set(.slow(millis: 300))
        #expect(try coordinator.read(group) == record(1))
        #expect(try coordinator.swap(expecting: 1, to: record(2)) == .won)
        way.set(.slow(millis: 3500))
        #expect(throws: CoordinationError.self) { try coordinator.read(group) }
        guard case .unknown = try coordinator.swap(expecting: 2, to: record(3)) else {
            Issue.record("it is not known what came of it")
            return
        }
        way.set(.none)
        #expect(try coordinator.swap(expecting: 2, to: record(3)) == .won, "who asks again finds its own")
        #expect(try coordinator.read(group) == record(3))
    }

    @Test("S15: what was never sent is said to have failed; what lost its answer is not")
    func lost() async throws {
        let rig = try await Rig()
        let way = try Way(to: rig.servers.endpoints[0])
        let coordinator = rig.coordinator(tryMillis: 1000, over: way)
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        way.set(.losesAnswers)
        guard case .unknown = try coordinator.swap(expecting: 1, to: record(2)) else {
            Issue.record("the answer was lost")
            return
        }
        way.set(.none)
        #expect(try coordinator.read(group) == record(2))
        rig.servers.kill(0)
        let nowhere = rig.coordinator()
        #expect(throws: CoordinationError.self) { try nowhere.swap(expecting: 2, to: record(3)) }
    }

    @Test("S15: a swap that was sent is not called failed because its connection cannot be made anew")
    func lostWithItsWay() async throws {
        let rig = try await Rig()
        let way = try Way(to: rig.servers.endpoints[0])
        let coordinator = rig.coordinator(over: way)
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        way.set(.losesAnswers)
        try way.stopListening()
        guard case .unknown = try coordinator.swap(expecting: 1, to: record(2)) else {
            Issue.record("the answer was lost")
            return
        }
        #expect(try rig.coordinator().read(group) == record(2))
        #expect(throws: CoordinationError.self) { try coordinator.swap(expecting: 2, to: record(3)) }
    }

    @Test(
        "A2: behind a way that loses and delays, an unknown swap is decided by the next one that is answered",
        arguments: [1, 2, 3])
    func barrier(seed: UInt64) async throws {
        let rig = try await Rig()
        let way = try Way(to: rig.servers.endpoints[0])
        let worn = rig.coordinator(tryMillis: 200, over: way)
        let sound = rig.coordinator()
        var random = SplitMix64(seed: seed)
        let faults: [Way.Fault] = [
            .none, .none, .losesAnswers, .losesRequests, .late(millis: 20), .late(millis: 250), .slow(millis: 20),
        ]
        var version: UInt64 = 0
        var unknown = 0
        for _ in 0..<60 {
            way.set(faults.randomElement(using: &random) ?? .none)
            let wanted = record(version + 1, by: "worn")
            let outcome = try? worn.swap(expecting: version, to: wanted)
            way.set(.none)
            switch outcome {
            case .won: #expect(try sound.read(group) == wanted)
            case .lost(let present): Issue.record("nobody else swapped: \(String(describing: present))")
            case nil, .unknown:
                unknown += 1
                let barrier = record(version + 1, by: "barrier")
                let decided = try sound.swap(expecting: version, to: barrier)
                #expect(try sound.read(group) == (decided == .won ? barrier : wanted))
            }
            version += 1
        }
        #expect(unknown > 5)
        // What was late has arrived by now, or never will.
        let last = try sound.read(group)
        #expect(last?.version == version)
        #expect(try worn.read(group) == last)
    }
}

extension EtcdCoordinator {
    /// An error is no outcome: nothing was done.
    fileprivate func swapOrNothing(expecting version: UInt64, to record: GroupRecord) throws -> SwapOutcome? {
        do throws(CoordinationError) {
            return try swap(expecting: version, to: record)
        } catch {
            guard error.code == .unreachable else { throw error }
            return nil
        }
    }
}
