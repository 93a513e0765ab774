// What every coordinator must pass, whatever it stands on: see `Coordinator`. Also behind a way that delays, repeats and loses answers.

import Coordination
import CoordinationEtcd
import EtcdSupport
import Foundation
import LogModel
import Synchronization
import TestSupport
import Testing

/// A coordinator in memory: the contract and nothing else.
final class MemoryCoordinator: Coordinator {
    private struct State {
        var records: [GroupID: GroupRecord] = [:]
        var presences: [NodeID: Presence] = [:]
    }
    private let state = Mutex(State())

    func read(_ group: GroupID) throws(CoordinationError) -> GroupRecord? { state.withLock { $0.records[group] } }

    func swap(expecting expected: UInt64, to record: GroupRecord) throws(CoordinationError) -> SwapOutcome {
        guard record.isPossible else { throw CoordinationError(.invalidRecord, "the record is impossible") }
        return state.withLock { state in
            let present = state.records[record.group]
            guard present?.version ?? 0 == expected else { return .lost(present) }
            state.records[record.group] = record
            return .won
        }
    }

    func announce(_ presence: Presence) throws(CoordinationError) {
        state.withLock { $0.presences[presence.process.node] = presence }
    }

    func presence(of node: NodeID) throws(CoordinationError) -> Presence? { state.withLock { $0.presences[node] } }
}

extension GroupRecord {
    /// By what comes of writing it down and reading it.
    fileprivate var isPossible: Bool {
        guard version > 0, epoch > .none, let member = members[owner] else { return false }
        return phase == .claimed ? !holders.isEmpty || replayed != nil : member.role == .owner && mustFence.isEmpty
    }
}

/// The way to another coordinator: swaps come into effect before, after, or instead of their answer, and twice.
final class WornWay: Coordinator {
    private struct State {
        var random: SplitMix64
        var late: [@Sendable () -> Void] = []
    }
    private let other: any Coordinator
    private let state: Mutex<State>

    init(to other: any Coordinator, seed: UInt64) {
        self.other = other
        state = Mutex(State(random: SplitMix64(seed: seed)))
    }

    private func chance() -> Int { state.withLock { Int.random(in: 0..<10, using: &$0.random) } }

    /// What is on its way arrives.
    func arrive() {
        let late = state.withLock { state in
            defer { state.late = [] }
            return state.late
        }
        for swap in late { swap() }
    }

    func read(_ group: GroupID) throws(CoordinationError) -> GroupRecord? {
        if chance() == 0 { throw CoordinationError(.unreachable, "lost") }
        return try other.read(group)
    }

    func swap(expecting expected: UInt64, to record: GroupRecord) throws(CoordinationError) -> SwapOutcome {
        let other = other
        switch chance() {
        case 0: throw CoordinationError(.unreachable, "never sent")
        case 1:
            _ = try other.swap(expecting: expected, to: record)
            return .unknown("the answer is lost")
        case 2:
            state.withLock { state in
                state.late.append { _ = try? other.swap(expecting: expected, to: record) }
            }
            return .unknown("it is still on its way")
        case 3:
            _ = try other.swap(expecting: expected, to: record)
            // Repeated: who asks a second time finds its own.
            let again = try other.swap(expecting: expected, to: record)
            if case .lost(let present) = again, present == record { return .won }
            return again
        default: return try other.swap(expecting: expected, to: record)
        }
    }

    func announce(_ presence: Presence) throws(CoordinationError) { try other.announce(presence) }
    func presence(of node: NodeID) throws(CoordinationError) -> Presence? { try other.presence(of: node) }
}

struct CoordinatorContract {
    enum Kind: CaseIterable, Sendable {
        case memory, file, etcd

        /// Those that this machine has what they stand on for.
        static var present: [Kind] { allCases.filter { $0 != .etcd || EtcdServers.isInstalled } }
    }

    @Test(
        "a real etcd is among the coordinators",
        .enabled(if: EtcdServers.isInstalled, "/usr/bin/etcd is missing: Debian's etcd-server"))
    func etcdIsPresent() { #expect(Kind.present.contains(.etcd)) }

    private func with(_ kind: Kind, _ body: (any Coordinator) async throws -> Void) async throws {
        switch kind {
        case .memory: try await body(MemoryCoordinator())
        case .file:
            let folder = try Folder()
            try await body(try FileCoordinator(directory: folder.path))
            withExtendedLifetime(folder) {}
        case .etcd:
            let folder = try Folder()
            let servers = try EtcdServers(members: 1, in: folder.path)
            let coordinator = EtcdCoordinator(servers.settings())
            let answers = try await eventually(seconds: 60) { (try? coordinator.presences(of: [])) != nil }
            try #require(answers, "\(servers.logs())")
            try await body(coordinator)
            withExtendedLifetime((folder, servers)) {}
        }
    }

    @Test("S15: one swap of a version wins, and the loser hears what is there", arguments: Kind.present)
    func oneWinner(_ kind: Kind) async throws {
        try await with(kind) { (coordinator: any Coordinator) async throws -> Void in
            #expect(try coordinator.read(group) == nil)
            #expect(try coordinator.swap(expecting: 4, to: record(5)) == .lost(nil))
            #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
            #expect(try coordinator.swap(expecting: 0, to: record(1, by: "beta")) == .lost(record(1)))
            #expect(try coordinator.swap(expecting: 1, to: record(2)) == .won)
            #expect(try coordinator.read(group) == record(2))
            #expect(try coordinator.read(GroupID("other")) == nil)
        }
    }

    @Test("S15: of many at once each version has one winner", arguments: Kind.present)
    func competition(_ kind: Kind) async throws {
        try await with(kind) { (coordinator: any Coordinator) async throws -> Void in
            let wins = try await withThrowingTaskGroup(of: [UInt64].self) { tasks in
                for index in 0..<4 {
                    tasks.addTask {
                        var won: [UInt64] = []
                        while won.count < 20 {
                            let version = (try coordinator.read(group)?.version ?? 0) + 1
                            let outcome = try coordinator.swap(
                                expecting: version - 1, to: record(version, by: "n\(index)"))
                            if outcome == .won { won.append(version) }
                        }
                        return won
                    }
                }
                return try await tasks.reduce(into: []) { $0 += $1 }
            }
            #expect(Set(wins).count == wins.count && wins.count == 80)
        }
    }

    @Test("C1, S21: a record that could not be read back is not written", arguments: Kind.present)
    func impossible(_ kind: Kind) async throws {
        try await with(kind) { (coordinator: any Coordinator) async throws -> Void in
            #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
            var impossible = record(2)
            impossible.setHolders([])
            let error = #expect(throws: CoordinationError.self) {
                try coordinator.swap(expecting: 1, to: impossible)
            }
            #expect(error?.code == .invalidRecord)
            #expect(try coordinator.read(group) == record(1))
            #expect(try coordinator.swap(expecting: 1, to: record(2)) == .won)
        }
    }

    @Test("a sign of life is the last one that was given", arguments: Kind.present)
    func presences(_ kind: Kind) async throws {
        try await with(kind) { (coordinator: any Coordinator) async throws -> Void in
            let process = try ProcessIdentity.current(node: NodeID("alpha"))
            for counter in 1...3 as ClosedRange<UInt64> {
                let presence = Presence(
                    process: process, counter: counter, pool: .zero, problems: counter == 2 ? ["g0": "no medium"] : nil)
                try coordinator.announce(presence)
                #expect(try coordinator.presence(of: NodeID("alpha")) == presence)
            }
            #expect(try coordinator.presence(of: NodeID("beta")) == nil)
        }
    }

    /// The rule that the machines keep: what is unknown counts as failed only when another swap of the same version has won.
    @Test(
        "A2: after a barrier is won, an unknown swap does not come into effect any more", arguments: Kind.present,
        [1, 2, 3, 4, 5])
    func barrier(_ kind: Kind, seed: UInt64) async throws {
        try await with(kind) { (coordinator: any Coordinator) async throws -> Void in
            let way = WornWay(to: coordinator, seed: seed)
            var expected: UInt64 = 0
            var unknown = 0
            for round in 0..<200 {
                let wanted = record(expected + 1, by: round % 2 == 0 ? "alpha" : "beta")
                guard case .unknown = try? way.swap(expecting: expected, to: wanted) else {
                    way.arrive()
                    expected = try coordinator.read(group)?.version ?? 0
                    continue
                }
                unknown += 1
                var barrier = record(expected + 1, by: "barrier")
                barrier.epoch = Epoch(expected + 1)
                let outcome = try coordinator.swap(expecting: expected, to: barrier)
                way.arrive()
                let present = try coordinator.read(group)
                #expect(present == (outcome == .won ? barrier : wanted))
                expected += 1
            }
            #expect(unknown > 20)
        }
    }
}

extension FileCoordinatorTests {
    @Test("C8: a sign of life takes the space of the one before; a full file system takes nobody's lease")
    func presenceInPlace() throws {
        let process = try ProcessIdentity.current(node: NodeID("alpha"))
        func about() throws -> stat {
            var about = stat()
            try #require(stat(folder.file("presence.alpha"), &about) == 0)
            return about
        }
        try coordinator.announce(Presence(process: process, counter: 1, pool: .zero))
        let before = try about()
        let problems = Dictionary(uniqueKeysWithValues: (0..<32).map { ("g\($0)", String(repeating: "x", count: 200)) })
        for counter in 2...20 as ClosedRange<UInt64> {
            try coordinator.announce(Presence(process: process, counter: counter, pool: .zero, problems: problems))
        }
        let after = try about()
        #expect(before.st_ino == after.st_ino && before.st_size == after.st_size && before.st_blocks == after.st_blocks)
        #expect(after.st_blocks * 512 >= after.st_size, "all of it is there from the beginning")
        #expect(folder.names == ["presence.alpha"])
    }

    @Test("D4: a directory that others may write to is refused, with what to do")
    func permissions() throws {
        try coordinator.checkPermissions()
        for mode in [0o722, 0o770, 0o777] as [mode_t] {
            try #require(chmod(folder.path, mode) == 0)
            let error = #expect(throws: CoordinationError.self) { try coordinator.checkPermissions() }
            #expect(error?.message.contains("chmod go-w") == true)
        }
        try #require(chmod(folder.path, 0o755) == 0)
        try coordinator.checkPermissions()
    }

    // MARK: Formats

    @Test("a record of format 1 is read and raised; what it does not tell is not known")
    func formatOne() throws {
        let text = """
            {"format": 1, "record": {"version": 3, "group": "g0", "logUUID": "00000000000000010000000000000002", "owner": "alpha",
             "epoch": 3, "phase": "claimed", "inSync": ["alpha"], "sources": ["alpha", "beta"], "leftForMedium": true,
             "mustFence": [{"node": "beta", "pid": 7, "startTicks": 8, "bootID": "b"}],
             "pools": {"alpha": "00000000000000010000000000000003", "beta": "00000000000000010000000000000004"}}}
            """
        try put(text, into: folder.file(fileName(3)))
        var raised = try #require(try coordinator.read(group))
        #expect(raised.holders == [NodeID("alpha"), NodeID("beta")] && raised.leftForMedium && !raised.setsAsideLog)
        #expect(raised.members[NodeID("beta")]?.pool == UUID128(high: 1, low: 4))
        #expect(
            raised.members[NodeID("beta")]?.generation == 0
                && raised.members[NodeID("beta")]?.incarnation == Incarnation.none)
        #expect(raised.mustFence.map(\.pid) == [7])
        raised.version += 1
        #expect(try coordinator.swap(expecting: 3, to: raised) == .won)
        #expect(String(decoding: try contents(of: folder.file(fileName(4))), as: UTF8.self).contains(#""format" : 2"#))
    }

    @Test("what a later version adds is kept and written back; what must not be passed over is refused by name")
    func laterVersions() throws {
        try #require(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        let path = folder.file(fileName(1))
        let text = String(decoding: try contents(of: path), as: UTF8.self)
        let later = text.replacing(
            #""group" : "g0""#, with: #""group" : "g0", "later" : {"a" : [1, -2, 3.5, true, null, "x"]}"#
        )
        .replacing(#""generation" : 1"#, with: #""generation" : 1, "colour" : "red""#)
        try put(later, into: path)
        var next = try #require(try FileCoordinator(directory: folder.path).read(group))
        next.version += 1
        #expect(try coordinator.swap(expecting: 1, to: next) == .won)
        let written = String(decoding: try contents(of: folder.file(fileName(2))), as: UTF8.self)
        #expect(written.contains(#""later""#) && written.contains("3.5") && written.contains(#""colour" : "red""#))
        try put(later.replacing(#""group" : "g0""#, with: #""group" : "g0", "critical" : ["time-travel"]"#), into: path)
        unlink(folder.file(fileName(2)))
        let error = #expect(throws: CoordinationError.self) { try FileCoordinator(directory: folder.path).read(group) }
        #expect(error?.code == .invalidRecord && error?.message.contains("time-travel") == true)
    }
}
