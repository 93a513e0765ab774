// A log of one's own: what is there after a crash, what many producers make of it, what full, trimmed and damaged mean.

import Foundation
import TestSupport
import Testing
import TwinLog

struct LogTests {
    private static let capacity: UInt64 = 256 << 10

    @Test("What is appended is read in order, and again after a new opening", arguments: Place.allCases)
    func appendAndRead(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            let path = folder + "/log.pool"
            let log = try await Log.create(path: path, capacityBytes: Self.capacity)
            #expect(log.persistence == (place == .memory ? .volatile : .msync))
            let first = try await log.append(bytes("one"))
            let second = try await log.append(bytes("two"))
            #expect(first == log.head && first < second && second < log.end)
            #expect(try await texts(log.read()) == ["one", "two"])
            #expect(try await texts(log.read(from: second)) == ["two"])
            await log.close()
            #expect(await code { () async throws(TwinLogError) in _ = try await log.append([1]) } == .closed)

            let again = try await Log.open(path: path)
            #expect(again.recovery.records == 2 && !again.recovery.hadTornTail)
            #expect(try await texts(again.read()) == ["one", "two"])
            let third = try await again.append(bytes("three"))
            #expect(third > second)
            #expect(try await texts(again.read()) == ["one", "two", "three"])
            await again.close()
        }
    }

    @Test("S1, S2: a process that is killed between appends has lost none that returned", arguments: Place.allCases)
    func killedBetweenAppends(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            for round in 0..<3 {
                await #expect(processExitsWith: .signal(SIGKILL)) { [folder = folder as String, round = round as Int] in
                    try await Self.appendUntilKilled(in: folder, round: round)
                }
            }
            let returned = try String(contentsOfFile: folder + "/returned", encoding: .utf8)
                .split(separator: "\n").map(String.init)
            let log = try await Log.open(path: folder + "/log.pool")
            let found = try await texts(log.read())
            #expect(returned.count > 100)
            #expect(Set(returned).subtracting(found).isEmpty, "an append returned, and its record is not there")
            #expect(Set(found).count == found.count, "no record is there twice")
            for producer in 0..<4 {
                for round in 0..<3 {
                    let mine = found.filter { $0.hasPrefix("\(round)/\(producer)/") }
                    #expect(
                        mine == mine.indices.map { "\(round)/\(producer)/\($0)" },
                        "in the order of the appends, none left out")
                }
            }
            await log.close()
        }
    }

    /// Four producers append, and note each append that returned, until the process is killed in the midst of it.
    private static func appendUntilKilled(in folder: String, round: Int) async throws {
        let path = folder + "/log.pool"
        let log =
            round == 0
            ? try await Log.create(path: path, capacityBytes: 8 << 20) : try await Log.open(path: path)
        let returned = open(folder + "/returned", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        try #require(returned >= 0)
        try await withThrowingTaskGroup { group in
            for producer in 0..<4 {
                group.addTask {
                    for number in 0... {
                        let text = "\(round)/\(producer)/\(number)"
                        _ = try await log.append(bytes(text))
                        _ = (text + "\n").withCString { write(returned, $0, strlen($0)) }
                        if producer == 0, number == 100 + round { kill(getpid(), SIGKILL) }
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test("Many producers at once: every record is there once, none is mixed with another", arguments: Place.allCases)
    func manyProducers(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            let log = try await Log.create(path: folder + "/log.pool", capacityBytes: 4 << 20)
            let each = place == .memory ? 500 : 50
            let positions = try await withThrowingTaskGroup { group in
                for producer in 0..<8 {
                    group.addTask {
                        var mine: [LogPosition: [UInt8]] = [:]
                        for number in 0..<each {
                            let payload = [UInt8](
                                repeating: UInt8(producer * 16 + number % 16), count: 1 + number % 300)
                            mine[try await log.append(payload)] = payload
                        }
                        return mine
                    }
                }
                var all: [LogPosition: [UInt8]] = [:]
                for try await mine in group { all.merge(mine) { first, _ in first } }
                return all
            }
            var found: [LogPosition: [UInt8]] = [:]
            for try await record in log.read() { found[record.position] = record.bytes }
            #expect(positions.count == 8 * each && found == positions)
            await log.close()
        }
    }

    @Test(
        "S6: a full log takes nothing and keeps everything, until it is trimmed; then around its end",
        arguments: Place.allCases)
    func fullAndTrimmed(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            let path = folder + "/log.pool"
            let log = try await Log.create(path: path, capacityBytes: 64 << 10)
            var positions: [LogPosition] = []
            let failure = await code { () async throws(TwinLogError) in
                while true {
                    positions.append(try await log.append([UInt8](repeating: UInt8(positions.count), count: 4000)))
                }
            }
            // 60 KiB of records of 4,064 bytes each, and perhaps a watermark that a slow disk left time for.
            let held = positions.count
            #expect(failure == .full && (14...15).contains(held))
            #expect(try await texts(log.read()).count == held)
            try await log.trim(to: positions[10])
            #expect(log.head == positions[10])
            for number in held..<held + 9 {
                positions.append(try await log.append([UInt8](repeating: UInt8(number), count: 4000)))
            }
            await log.close()

            let again = try await Log.open(path: path)
            var numbers: [UInt8] = []
            for try await record in again.read() { numbers.append(record.bytes[0]) }
            #expect(numbers == Array(10..<UInt8(held + 9)))
            #expect(
                await code { () async throws(TwinLogError) in for try await _ in again.read(from: positions[3]) {} }
                    == .invalidValue)
            try await again.trim(to: again.end)
            #expect(try await texts(again.read()).isEmpty)
            await again.close()
        }
    }

    @Test("Positions that are no record's are refused, and so are records of impossible sizes")
    func refusals() async throws {
        try await withFolder { folder in
            let log = try await Log.create(path: folder + "/log.pool", capacityBytes: Self.capacity)
            let position = try await log.append([UInt8](repeating: 7, count: 1000))
            let inside = LogPosition(rawValue: position.rawValue + 64)
            #expect(await code { () async throws(TwinLogError) in try await log.trim(to: inside) } == .invalidValue)
            #expect(
                await code { () async throws(TwinLogError) in for try await _ in log.read(from: inside) {} }
                    == .invalidValue)
            for odd in [LogPosition(rawValue: 1), LogPosition(rawValue: .max)] {
                #expect(await code { () async throws(TwinLogError) in try await log.trim(to: odd) } == .invalidValue)
                #expect(
                    await code { () async throws(TwinLogError) in for try await _ in log.read(from: odd) {} }
                        == .invalidValue)
            }
            #expect(await code { () async throws(TwinLogError) in _ = try await log.append([]) } == .invalidValue)
            let long = [UInt8](repeating: 0, count: log.maximumRecordBytes + 1)
            #expect(await code { () async throws(TwinLogError) in _ = try await log.append(long) } == .invalidValue)
            _ = try await log.append(Array(long.dropLast()))
            #expect(
                await code { () async throws(TwinLogError) in _ = try await Log.open(path: folder + "/log.pool") }
                    == .inUse)
            await log.close()
            await log.close()
        }
    }

    @Test("S7: a record that takes several of the log's, around the ring's end, is read whole")
    func longRecords() async throws {
        try await withFolder { folder in
            let path = folder + "/log.pool"
            let log = try await Log.create(path: path, capacityBytes: 16 << 20)
            var expected: [[UInt8]] = []
            for number in 0..<9 {
                let payload = [UInt8](repeating: UInt8(number), count: (3 << 20) + number * 77) + [0xEE]
                let position = try await log.append(payload)
                expected.append(payload)
                if expected.count > 4 {
                    expected.removeFirst()
                    var records = log.read().makeAsyncIterator()
                    let oldest = try await records.next()
                    try await log.trim(to: try #require(oldest).end)
                }
                #expect(position < log.end)
            }
            await log.close()
            let again = try await Log.open(path: path)
            var found: [[UInt8]] = []
            for try await record in again.read() { found.append(record.bytes) }
            #expect(found == expected)
            await again.close()
        }
    }

    // MARK: Damage

    @Test("S5: a torn tail is discarded and told, and never comes back", arguments: Place.allCases)
    func tornTail(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            let path = folder + "/log.pool"
            // Left without a close, as by a crash.
            await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
                let log = try await Log.create(path: path, capacityBytes: 256 << 10)
                for text in ["one", "two", "three"] { _ = try await log.append(bytes(text)) }
                kill(getpid(), SIGKILL)
            }
            // The record's payload: it was never known to be promised by anything in the log.
            try damage(path, at: LogPosition(rawValue: 256), offset: 64)
            let log = try await Log.open(path: path)
            #expect(log.recovery.hadTornTail && log.recovery.records == 2)
            #expect(try await texts(log.read()) == ["one", "two"])
            _ = try await log.append(bytes("four"))
            await log.close()
            let again = try await Log.open(path: path)
            #expect(!again.recovery.hadTornTail)
            #expect(try await texts(again.read()) == ["one", "two", "four"])
            await again.close()
        }
    }

    @Test("S5: damage below what was promised is refused, and changes nothing")
    func corruption() async throws {
        try await withFolder { folder in
            let path = folder + "/log.pool"
            let log = try await Log.create(path: path, capacityBytes: Self.capacity)
            var last = log.head
            for text in ["one", "two", "three"] { last = try await log.append(bytes(text)) }
            await log.close()
            // The last record of all: the watermark behind it says that it was promised.
            try damage(path, at: last, offset: 64)
            let before = try Data(contentsOf: URL(fileURLWithPath: path))
            #expect(await code { () async throws(TwinLogError) in _ = try await Log.open(path: path) } == .corrupt)
            #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
        }
    }

    @Test("S26: a record that rots under an open log is told by its position, and those before it are read")
    func rotUnderAnOpenLog() async throws {
        try await withFolder { folder in
            let path = folder + "/log.pool"
            let log = try await Log.create(path: path, capacityBytes: Self.capacity)
            _ = try await log.append(bytes("one"))
            let second = try await log.append(bytes("two"))
            try damage(path, at: second, offset: 64)
            var found: [String] = []
            let failure = await code { () async throws(TwinLogError) in
                for try await record in log.read() { found.append(String(decoding: record.bytes, as: UTF8.self)) }
            }
            #expect(failure == .corrupt && found == ["one"])
            await log.close()
        }
    }

    @Test("S21: what is no log of this library is refused by name")
    func strangers() async throws {
        try await withFolder { folder in
            let path = folder + "/stranger"
            #expect(await code { () async throws(TwinLogError) in _ = try await Log.open(path: path) } == .system)
            try Data(repeating: 0x5A, count: 200_000).write(to: URL(fileURLWithPath: path))
            #expect(await code { () async throws(TwinLogError) in _ = try await Log.open(path: path) } == .notThisPool)
            #expect(
                await code { () async throws(TwinLogError) in
                    _ = try await Log.create(path: path, capacityBytes: Self.capacity)
                } == .system)
            #expect(
                await code { () async throws(TwinLogError) in
                    _ = try await Log.create(path: folder + "/none", capacityBytes: 0)
                } == .invalidValue)
        }
    }

    // MARK: Tasks

    @Test("A cancelled task that appends neither hangs nor crashes, and the log goes on", arguments: Place.allCases)
    func cancellation(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            let log = try await Log.create(path: folder + "/log.pool", capacityBytes: 4 << 20)
            var returned: Set<String> = []
            for number in 0..<200 {
                let task = Task { () async -> Bool in
                    await code { () async throws(TwinLogError) in _ = try await log.append(bytes("\(number)")) } == nil
                }
                task.cancel()
                if await task.value { returned.insert("\(number)") }
            }
            _ = try await log.append(bytes("last"))
            let found = try await texts(log.read())
            #expect(returned.isSubset(of: Set(found)) && found.last == "last")
            #expect(found.count == 201, "a cancelled append is carried out all the same")
            await log.close()
        }
    }

    @Test("Closing waits for appends under way: each returns with its record, or throws")
    func closingUnderLoad() async throws {
        try await withFolder(on: .disk) { folder in
            let path = folder + "/log.pool"
            let log = try await Log.create(path: path, capacityBytes: 4 << 20)
            let producers = (0..<4).map { producer in
                Task { () async -> [String] in
                    var mine: [String] = []
                    while true {
                        let text = "\(producer)/\(mine.count)"
                        guard
                            await code(of: { () async throws(TwinLogError) in _ = try await log.append(bytes(text)) })
                                == nil
                        else {
                            return mine
                        }
                        mine.append(text)
                    }
                }
            }
            try #require(await eventually { log.end.rawValue >= 16 << 10 })
            await log.close()
            var returned: [String] = []
            for producer in producers { returned += await producer.value }
            let again = try await Log.open(path: path)
            #expect(Set(returned).subtracting(try await texts(again.read())).isEmpty)
            await again.close()
        }
    }
}
