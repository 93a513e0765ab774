// The file coordinator: one winner per version whoever competes (S15), nothing believed that is not a record (S21), nothing
// in the way after a crash.

import Coordination
import Foundation
import Glibc
import LogModel
import RecordSupport
import TestSupport
import Testing

struct FileCoordinatorTests {
    let folder: Folder
    let coordinator: FileCoordinator

    init() throws {
        folder = try Folder()
        coordinator = try FileCoordinator(directory: folder.path)
    }

    // MARK: Compare and swap

    @Test func theFirstSwapCreatesTheRecord() throws {
        #expect(try coordinator.read(group) == nil)
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        #expect(try coordinator.read(group) == record(1))
        #expect(try coordinator.read(GroupID("other")) == nil)
        #expect(try FileCoordinator(directory: folder.path).read(group) == record(1))
    }

    @Test func everyFieldComesBack() throws {
        let process = ProcessIdentity(node: NodeID("b"), pid: 77, startTicks: .max, bootID: "boot")
        var full = GroupRecord(
            version: 1, group: group, logUUID: UUID128(high: .max, low: 1), owner: NodeID("a"), epoch: Epoch(1 << 52),
            phase: .claimed, holders: [NodeID("a"), NodeID("b")], mustFence: [process], ownerProcess: process,
            pools: ["a": UUID128(high: 5, low: 6), "b": .zero, "c": .zero], generation: 7, incarnation: Incarnation(9))
        full.claim?.previousHolders = [NodeID("c")]
        full.claim?.setsAsideLog = true
        full.claim?.isNew = true
        full.leftForMedium = true
        full.claim?.replayed = GroupRecord.Replayed(node: NodeID("c"), end: LSN(640), at: "2026-11-28T03:00:00Z")
        full.media = ["vol0": UUID128(high: 3, low: 4)]
        full.leaseMillis = 1000
        full.features = ["later"]
        full.fence(ProcessIdentity(node: NodeID("c"), pid: 1, startTicks: 1, bootID: "b", pidNamespace: "pid:[1]"))
        full.confirm(
            process, GroupRecord.Fence.Confirmation(method: "operator", by: "root", at: "2026-11-28T03:00:00Z"))
        #expect(try coordinator.swap(expecting: 0, to: full) == .won)
        #expect(try coordinator.read(group) == full)
        full.version = 2
        full.phase = .published
        full.fences = []
        full.claim?.previousHolders = []
        full.claim?.setsAsideLog = false
        full.claim?.isNew = false
        full.claim?.replayed = nil
        full.ownerProcess = nil
        #expect(try coordinator.swap(expecting: 1, to: full) == .won)
        #expect(try coordinator.read(group) == full)
    }

    @Test func aSwapFromAWrongVersionLosesAndTellsTheRecord() throws {  // S15
        #expect(try coordinator.swap(expecting: 4, to: record(5)) == .lost(nil))
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        #expect(try coordinator.swap(expecting: 0, to: record(1, by: "beta")) == .lost(record(1)))
        #expect(try coordinator.swap(expecting: 1, to: record(2)) == .won)
        #expect(try coordinator.swap(expecting: 1, to: record(2, by: "beta")) == .lost(record(2)))
        #expect(try coordinator.swap(expecting: 5, to: record(6, by: "beta")) == .lost(record(2)))
        #expect(try coordinator.read(group) == record(2))
    }

    @Test func manyThreadsWinEachVersionOnce() async throws {  // S15
        let directory = folder.path
        let wins = try await withThrowingTaskGroup(of: (String, [UInt64]).self) { tasks in
            for index in 0..<8 {
                tasks.addTask { ("n\(index)", try winVersions(25, as: "n\(index)", in: directory)) }
            }
            var wins: [UInt64: String] = [:]
            for try await (node, versions) in tasks {
                for version in versions {
                    #expect(wins.updateValue(node, forKey: version) == nil, "version \(version) was won twice")
                }
            }
            return wins
        }
        #expect(wins.count == 200)
        let last = try #require(try coordinator.read(group))
        // A winner that was overtaken at once is told that it lost, so versions may be missing, never doubled.
        #expect(last.version >= 200)
        if let winner = wins[last.version] { #expect(last.owner == NodeID(winner)) }
    }

    /// One coordinator, used by many threads at once, as a node does.
    @Test func oneCoordinatorIsThreadSafe() async throws {  // S15
        let coordinator = coordinator
        try await withThrowingTaskGroup(of: [UInt64].self) { tasks in
            for index in 0..<8 {
                tasks.addTask {
                    var won: [UInt64] = []
                    for _ in 0..<40 {
                        let current = try coordinator.read(group)?.version ?? 0
                        let mine = record(current + 1, by: "n\(index)")
                        if try coordinator.swap(expecting: current, to: mine) == .won { won.append(current + 1) }
                    }
                    return won
                }
            }
            let all = try await tasks.reduce(into: []) { $0 += $1 }
            #expect(Set(all).count == all.count)
            #expect(!all.isEmpty)
        }
    }

    @Test func severalProcessesWinEachVersionOnce() async throws {  // S15
        let path = folder.path
        await withTaskGroup(of: Void.self) { tasks in
            for index in 0..<4 {
                tasks.addTask {
                    await #expect(processExitsWith: .success) { [path = path as String, index = index as Int] in
                        alarm(120)
                        let node = "n\(index)"
                        let won = try winVersions(30, as: node, in: path)
                        try put(won.map(String.init).joined(separator: " "), into: "\(path)/wins-\(node)")
                    }
                }
            }
        }
        var all: [UInt64] = []
        for index in 0..<4 {
            let text = String(decoding: try contents(of: folder.file("wins-n\(index)")), as: UTF8.self)
            all += text.split(separator: " ").compactMap { UInt64($0) }
        }
        #expect(all.count == 120)
        #expect(Set(all).count == 120)
    }

    /// A swapper sleeps while others go on and remove the name that it is about to take.
    @Test func aSwapperThatSleptThroughVersionsLoses() throws {  // S15
        for version in 1...40 as ClosedRange<UInt64> {
            #expect(try coordinator.swap(expecting: version - 1, to: record(version)) == .won)
        }
        #expect(!folder.names.contains(fileName(2)))
        // What it does next in `swap`, its look at the listing being long past: link a low version, look again.
        try put(contents(of: folder.file(fileName(40))), into: folder.file(fileName(2)))
        #expect(try coordinator.read(group) == record(40))
        #expect(try coordinator.swap(expecting: 2, to: record(3, by: "beta")) == .lost(record(40)))
        #expect(try coordinator.swap(expecting: 40, to: record(41)) == .won)
        #expect(try coordinator.read(group) == record(41))
    }

    @Test func oldVersionsAreRemovedAndTheNewestAreKept() throws {
        for version in 1...30 as ClosedRange<UInt64> {
            #expect(try coordinator.swap(expecting: version - 1, to: record(version)) == .won)
        }
        #expect(folder.names == (23...30).map { fileName($0) })
    }

    @Test func groupsDoNotMeet() throws {
        let names = ["g0", "g0.1", "g", "g0.00000000000000000009"]
        for (index, name) in names.enumerated() {
            let group = GroupID(name)
            for version in 1...(UInt64(index) + 1) {
                #expect(try coordinator.swap(expecting: version - 1, to: record(version, group: group)) == .won)
            }
        }
        for (index, name) in names.enumerated() {
            #expect(try coordinator.read(GroupID(name))?.version == UInt64(index) + 1)
        }
    }

    // MARK: Crashes

    /// Killed at any moment, a swapper leaves the record as it was or as it wanted it, and nobody waits for it.
    @Test(arguments: 1...6) func aKilledSwapperHoldsNobodyUp(round: UInt32) async throws {  // S15
        try #require(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        let path = folder.path
        await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String, round = round as UInt32] in
            alarm(60)
            let victim = getpid()
            let coordinator = try FileCoordinator(directory: path)
            Thread.detachNewThread {
                usleep(round * 1700)
                kill(victim, SIGKILL)
            }
            while true {
                let current = try coordinator.read(group)?.version ?? 0
                _ = try coordinator.swap(expecting: current, to: record(current + 1, by: "victim"))
            }
        }
        let found = try #require(try coordinator.read(group))
        #expect(found == record(found.version, by: found.version == 1 ? "alpha" : "victim"))
        #expect(try coordinator.swap(expecting: found.version, to: record(found.version + 1)) == .won)
        #expect(try coordinator.read(group) == record(found.version + 1))
    }

    /// A swapper died between `link` and `unlink`: its temporary file is a second name of the record. The next process
    /// may have the same pid and count its files the same way; writing to that name would rewrite the record.
    @Test func theSecondNameOfARecordIsNeverWrittenTo() throws {  // S15
        try #require(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        let first = folder.file(fileName(1))
        let before = try contents(of: first)
        for kind in ["swap", "presence"] {
            for count in 0...40 { try #require(link(first, folder.file(".\(kind).\(getpid()).\(count)")) == 0) }
        }
        let other = try FileCoordinator(directory: folder.path)
        let process = try ProcessIdentity.current(node: NodeID("alpha"))
        for version in 2...5 as ClosedRange<UInt64> {
            #expect(try other.swap(expecting: version - 1, to: record(version)) == .won)
            try other.announce(Presence(process: process, counter: version, pool: .zero))
        }
        #expect(try contents(of: first) == before)
    }

    @Test func swapsAndAnnouncementsLeaveNoOtherFiles() throws {
        let process = try ProcessIdentity.current(node: NodeID("alpha"))
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .lost(record(1)))
        try coordinator.announce(Presence(process: process, counter: 1, pool: .zero))
        #expect(folder.names == [fileName(1), "presence.alpha"])
        for name in folder.names {
            var about = stat()
            try #require(stat(folder.file(name), &about) == 0)
            #expect(about.st_mode & 0o777 == 0o600)
        }
    }

    // MARK: What is in the files

    func refusal(_ bytes: [UInt8]) throws -> CoordinationError {
        let path = folder.file(fileName(3))
        try put(bytes, into: path)
        let error = try #require(throws: CoordinationError.self) { _ = try coordinator.read(group) }
        #expect(error.code == .invalidRecord)
        #expect(error.message.contains(path))
        let swap = #expect(throws: CoordinationError.self) { try coordinator.swap(expecting: 2, to: record(3)) }
        #expect(swap?.code == .invalidRecord)
        #expect(try contents(of: path) == bytes)
        return error
    }

    /// The bytes of a record that the coordinator itself wrote as version 3.
    func validFile() throws -> [UInt8] {
        let other = try Folder()
        let writer = try FileCoordinator(directory: other.path)
        for version in 1...3 as ClosedRange<UInt64> {
            try #require(try writer.swap(expecting: version - 1, to: record(version)) == .won)
        }
        return try contents(of: other.file(fileName(3)))
    }

    @Test func aTruncatedRecordIsRefused() throws {  // S21
        let whole = try validFile()
        // The last byte is the closing brace.
        for count in stride(from: 0, to: whole.count, by: 7) { _ = try refusal(Array(whole[..<count])) }
        _ = try refusal(Array(whole.dropLast()))
    }

    @Test func garbageIsRefused() throws {  // S21
        var random = SplitMix64(seed: 5)
        for count in [1, 100, 4096, 65536] {
            _ = try refusal((0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) })
        }
        _ = try refusal([UInt8](repeating: 0, count: 500))
        _ = try refusal([UInt8](repeating: UInt8(ascii: "["), count: 60_000))
        _ = try refusal(Array("{}".utf8))
    }

    @Test func aHugeFileIsNotLoaded() throws {  // S21
        let error = try refusal([UInt8](repeating: 32, count: 65537))
        #expect(error.message.contains("larger than 65536"))
    }

    @Test func damagedRecordsAreRefusedOrRecordsAndNeverACrash() throws {  // S21
        var random = SplitMix64(seed: 9)
        let whole = try validFile()
        let path = folder.file(fileName(3))
        for _ in 0..<600 {
            var bytes = whole
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            try put(bytes, into: path)
            do throws(CoordinationError) {
                guard let read = try coordinator.read(group) else { continue }
                #expect(read.version == 3 && read.group == group)
            } catch {
                #expect(error.code == .invalidRecord)
            }
        }
    }

    @Test func aRecordOfANewerFormatIsRefusedByName() throws {  // S21
        let error = try refusal(Array(#"{"format": 3, "record": "whatever comes"}"#.utf8))
        #expect(error.message.contains("format 3"))
    }

    @Test(arguments: [
        (#""version" : 3"#, #""version" : 4"#, "version 4"), (#""version" : 3"#, #""version" : 0"#, "begin at 1"),
        (#""epoch" : 3"#, #""epoch" : 0"#, "begin at 1"),
        (#""epoch" : 3"#, #""epoch" : 18446744073709551615"#, "beyond counting"),
        (#""epoch" : 3"#, #""epoch" : 9007199254740993"#, "beyond counting"),
        (#""epoch" : 3"#, #""epoch" : -1"#, "not a record"), (#""group" : "g0""#, #""group" : "g1""#, "group g1"),
        (#""group" : "g0""#, #""group" : "../g""#, "name"), (#""owner" : "alpha""#, #""owner" : "beta""#, "member"),
        (#""role" : "owner""#, #""role" : "out""#, "in-sync"),
        (#""phase" : "published""#, #""phase" : "x""#, "not a record"),
    ]) func anImpossibleRecordIsRefused(valid: String, impossible: String, reason: String) throws {  // S21
        let text = String(decoding: try validFile(), as: UTF8.self)
        let parts = text.components(separatedBy: valid)
        try #require(parts.count == 2)
        let error = try refusal(Array(parts.joined(separator: impossible).utf8))
        #expect(error.message.contains(reason))
    }

    /// The next swap would have to be version 2^64.
    @Test func aRecordThatCannotBeSucceededIsRefused() throws {  // S21
        let text = String(decoding: try validFile(), as: UTF8.self)
        let last = text.components(separatedBy: #""version" : 3"#).joined(
            separator: #""version" : 18446744073709551615"#)
        try put(last, into: folder.file(fileName(.max)))
        let error = #expect(throws: CoordinationError.self) { try coordinator.read(group) }
        #expect(error?.code == .invalidRecord)
    }

    @Test func filesThatAreNoVersionsAreIgnored() throws {
        try #require(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        let names = [
            "g0.+0000000000000000007", "g0.-0000000000000000007", "g0.0000000000000000007", "g0.000000000000000000007",
            "g0.99999999999999999999", "g0.0000000000000000000x", "g0.", "xg0.00000000000000000009", ".swap.left",
        ]
        for name in names { try put("junk", into: folder.file(name)) }
        #expect(try coordinator.read(group) == record(1))
        #expect(try coordinator.swap(expecting: 1, to: record(2)) == .won)
        #expect(Set(names).isSubset(of: folder.names))
    }

    // MARK: A directory that does not answer

    @Test func aMissingDirectoryIsMadePrivate() throws {
        let path = folder.file("made")
        defer { rmdir(path) }
        let made = try FileCoordinator(directory: path)
        var about = stat()
        try #require(stat(path, &about) == 0)
        #expect(about.st_mode & 0o777 == 0o700)
        #expect(try made.read(group) == nil)
    }

    @Test func aDirectoryThatIsGoneIsUnreachableAndNotEmpty() throws {  // S19, S20
        let path = folder.file("gone")
        let gone = try FileCoordinator(directory: path)
        try #require(rmdir(path) == 0)
        let process = try ProcessIdentity.current(node: NodeID("alpha"))
        let calls: [() throws -> Void] = [
            { _ = try gone.read(group) }, { _ = try gone.swap(expecting: 0, to: record(1)) },
            { try gone.announce(Presence(process: process, counter: 1, pool: .zero)) },
        ]
        for call in calls {
            let error = #expect(throws: CoordinationError.self) { try call() }
            #expect(error?.code == .unreachable)
            #expect(error?.message.contains(path) == true)
        }
        try put("", into: folder.file("file"))
        #expect(throws: CoordinationError.self) { try FileCoordinator(directory: folder.file("file")).read(group) }
        #expect(throws: CoordinationError.self) { try FileCoordinator(directory: folder.file("no/such")) }
    }

    // MARK: Presences

    @Test func theLastPresenceOfEachNodeIsSeen() throws {
        let process = try ProcessIdentity.current(node: NodeID("alpha"))
        #expect(try coordinator.presence(of: NodeID("alpha")) == nil)
        for counter in 1...5 as ClosedRange<UInt64> {
            try coordinator.announce(Presence(process: process, counter: counter, pool: UUID128(high: 1, low: 1)))
        }
        let seen = try #require(try coordinator.presence(of: NodeID("alpha")))
        #expect(seen == Presence(process: process, counter: 5, pool: UUID128(high: 1, low: 1)))
        #expect(try coordinator.presence(of: NodeID("beta")) == nil)
    }

    @Test func aPresenceThatIsNoneIsRefused() throws {  // S21
        let process = try ProcessIdentity.current(node: NodeID("alpha"))
        try coordinator.announce(Presence(process: process, counter: 1, pool: .zero))
        let whole = try contents(of: folder.file("presence.alpha"))
        for bytes in [[], Array(whole.prefix(60)), [0, 1, 2], [UInt8](repeating: 32, count: 65537)] {
            try put(bytes, into: folder.file("presence.alpha"))
            let error = #expect(throws: CoordinationError.self) { try coordinator.presence(of: NodeID("alpha")) }
            #expect(error?.code == .invalidRecord)
            #expect(error?.message.contains("presence.alpha") == true)
        }
        try put(whole, into: folder.file("presence.beta"))
        let foreign = #expect(throws: CoordinationError.self) { try coordinator.presence(of: NodeID("beta")) }
        #expect(foreign?.message.contains("'alpha'") == true)
    }
}
