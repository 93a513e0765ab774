// A log in two processes: what is in the other one when an append returns, and what happens when either of them, or the wire, is lost.

import Foundation
import TestSupport
import Testing
import TwinLog

private let secret = [UInt8](repeating: 7, count: 32)
private let capacity: UInt64 = 1 << 20

@Suite(.serialized) struct MirroredLogTests {
    private func mirror(_ folder: String, port: Int = 0, _ name: String = "mirror.pool") async throws -> LogMirror {
        try await LogMirror.start(
            path: "\(folder)/\(name)", capacityBytes: capacity, at: "127.0.0.1:\(port)", secret: secret)
    }

    private func create(_ folder: String, at port: Int, patience: Duration? = .seconds(20)) async throws -> MirroredLog
    {
        try await MirroredLog.create(
            path: folder + "/log.pool", capacityBytes: capacity, mirror: "127.0.0.1:\(port)", secret: secret,
            patience: patience)
    }

    private func open(
        _ path: String, at port: Int, patience: Duration? = .seconds(20)
    ) async throws(TwinLogError) -> MirroredLog {
        try await MirroredLog.open(path: path, mirror: "127.0.0.1:\(port)", secret: secret, patience: patience)
    }

    /// What the mirror's pool holds as it lies there now: what a takeover would find.
    private func found(in folder: String, _ name: String = "mirror.pool") async throws -> [String] {
        let copy = "\(folder)/copy-\(UUID().uuidString)"
        try FileManager.default.copyItem(atPath: "\(folder)/\(name)", toPath: copy)
        let log = try await Log.open(path: copy)
        let found = try await texts(log.read())
        await log.close()
        try FileManager.default.removeItem(atPath: copy)
        return found
    }

    @Test("S1, S11: a record is in both pools when its append returns", arguments: Place.allCases)
    func bothHoldIt(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            let mirror = try await mirror(folder)
            let log = try await create(folder, at: mirror.port)
            #expect(log.isMirrored && log.persistence == mirror.persistence)
            var expected: [String] = []
            for number in 0..<20 {
                expected.append("record \(number)")
                _ = try await log.append(bytes(expected[number]))
                #expect(try await found(in: folder) == expected)
                #expect(try await texts(log.read()) == expected)
            }
            await log.close()
            await mirror.close()
        }
    }

    @Test("Many producers at once, more than a lap of both logs", arguments: Place.allCases)
    func manyProducers(on place: Place) async throws {
        try await withFolder(on: place) { folder in
            let mirror = try await mirror(folder)
            let log = try await create(folder, at: mirror.port)
            for round in 0..<4 {
                let positions = try await withThrowingTaskGroup { group in
                    for producer in 0..<8 {
                        group.addTask {
                            var mine: [LogPosition: [UInt8]] = [:]
                            for number in 0..<20 {
                                let payload = [UInt8](repeating: UInt8(producer * 20 + number), count: 1 + number * 200)
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
                #expect(found == positions, "round \(round)")
                try await log.trim(to: log.end)
                #expect(try await self.found(in: folder).isEmpty, "the mirror's head is durable when a trim returns")
            }
            await log.close()
            await mirror.close()
        }
    }

    @Test(
        "A mirror that is killed: nothing more is promised, nothing that was is lost, and it is caught up when it is back"
    )
    func mirrorKilled() async throws {
        try await withFolder { folder in
            async let killed = #expect(processExitsWith: .signal(SIGKILL)) { [folder = folder as String] in
                let mirror = try await LogMirror.start(
                    path: folder + "/mirror.pool", capacityBytes: 1 << 20, at: "127.0.0.1:0",
                    secret: [UInt8](repeating: 7, count: 32))
                try "\(getpid()) \(mirror.port)\n".write(toFile: folder + "/there", atomically: true, encoding: .utf8)
                try await Task.sleep(for: .seconds(600))
                _ = mirror
            }
            let process = try await announced(folder)
            let log = try await create(folder, at: process.port, patience: .milliseconds(300))
            let producer = Task { () async -> (returned: [String], code: TwinLogError.Code?) in
                var returned: [String] = []
                let failure = await code { () async throws(TwinLogError) in
                    while true {
                        _ = try await log.append(bytes("\(returned.count)"))
                        returned.append("\(returned.count)")
                        if returned.count == 100 { kill(process.pid, SIGKILL) }
                    }
                }
                return (returned, failure)
            }
            let (returned, failure) = await producer.value
            _ = await killed
            #expect(failure == .partnerLost && !log.isMirrored)
            let there = try await found(in: folder)
            #expect(Array(there.prefix(returned.count)) == returned && returned.count >= 100)
            #expect(await code { () async throws(TwinLogError) in _ = try await log.append([1]) } == .partnerLost)
            #expect(Array(try await texts(log.read()).prefix(returned.count)) == returned)

            let mirror = try await mirror(folder, port: process.port)
            try #require(await eventually { log.isMirrored })
            _ = try await log.append(bytes("after"))
            let after = try await found(in: folder)
            #expect(Array(after.prefix(returned.count)) == returned && after.last == "after")
            #expect(try await texts(log.read()) == after, "both hold the same")
            await log.close()
            await mirror.close()
        }
    }

    private func announced(_ folder: String) async throws -> (pid: pid_t, port: Int) {
        let path = folder + "/there"
        try #require(
            await eventually { FileManager.default.fileExists(atPath: path) }, "the mirror's process did not start")
        let words = try String(contentsOfFile: path, encoding: .utf8).split(whereSeparator: \.isWhitespace)
        return (try #require(pid_t(words[0])), try #require(Int(words[1])))
    }

    @Test(
        "The log's own process is killed: the mirror's pool has every append that returned, and so does the log again")
    func logKilled() async throws {
        try await withFolder { folder in
            let mirror = try await mirror(folder)
            await #expect(processExitsWith: .signal(SIGKILL)) {
                [folder = folder as String, port = mirror.port as Int] in
                let log = try await MirroredLog.create(
                    path: folder + "/log.pool", capacityBytes: 1 << 20, mirror: "127.0.0.1:\(port)",
                    secret: [UInt8](repeating: 7, count: 32))
                let returned = Glibc.open(folder + "/returned", O_WRONLY | O_CREAT | O_APPEND, 0o600)
                for number in 0... {
                    _ = try await log.append(bytes("\(number)"))
                    _ = "\(number)\n".withCString { write(returned, $0, strlen($0)) }
                    if number == 150 { kill(getpid(), SIGKILL) }
                }
            }
            let returned = try String(contentsOfFile: folder + "/returned", encoding: .utf8)
                .split(separator: "\n").map(String.init)
            #expect(returned.count == 151)
            #expect(Array(try await found(in: folder).prefix(returned.count)) == returned)
            let log = try await open(folder + "/log.pool", at: mirror.port)
            #expect(Array(try await texts(log.read()).prefix(returned.count)) == returned)
            _ = try await log.append(bytes("after"))
            #expect(try await found(in: folder) == texts(log.read()))
            await log.close()
            await mirror.close()
        }
    }

    @Test("A wire that is cut wherever its bytes are: appends wait, and go on when it is mended; both hold the same")
    func wireCut() async throws {
        try await withFolder { folder in
            let mirror = try await mirror(folder)
            let wire = try await Wire.begin(to: mirror.port)
            let log = try await create(folder, at: wire.port, patience: nil)
            for round in 0..<10 {
                let producers = (0..<4).map { producer in
                    Task {
                        for number in 0..<10 {
                            _ = try await log.append(
                                bytes("\(round)/\(producer)/\(number) ") + [UInt8](repeating: 0x2E, count: 4000))
                        }
                    }
                }
                for _ in 0..<round { await Task.yield() }
                try await wire.cut()
                // What was promised up to now, however far that is, is there.
                let promised = try await texts(log.read())
                #expect(try await found(in: folder).starts(with: promised))
                try await wire.mend()
                for producer in producers { try await producer.value }
                let records = try await texts(log.read())
                #expect(records.count == 40 && records.allSatisfy { $0.hasPrefix("\(round)/") })
                #expect(try await found(in: folder) == records)
                try await log.trim(to: log.end)
            }
            await log.close()
            await mirror.close()
        }
    }

    @Test("S3, S5: records that only the mirror still holds come back before the log goes on")
    func missingRecords() async throws {
        try await withFolder { folder in
            let mirror = try await mirror(folder)
            let path = folder + "/log.pool"
            let log = try await create(folder, at: mirror.port)
            _ = try await log.append(bytes("kept"))
            // As a loss of power leaves a pool whose pages were not written: an earlier state of the file.
            try FileManager.default.copyItem(atPath: path, toPath: path + ".earlier")
            for number in 0..<30 {
                _ = try await log.append(bytes("\(number)") + [UInt8](repeating: 0x2E, count: 20_000))
            }
            let expected = try await texts(log.read())
            await log.close()
            try FileManager.default.removeItem(atPath: path)
            try FileManager.default.moveItem(atPath: path + ".earlier", toPath: path)
            let again = try await open(path, at: mirror.port)
            #expect(try await texts(again.read()) == expected && expected.count == 31)
            _ = try await again.append(bytes("after"))
            #expect(try await found(in: folder) == expected + ["after"])
            await again.close()
            await mirror.close()
        }
    }

    @Test("S26: what has rotted in the log is not sent to a mirror that lacks it, and nothing is promised any more")
    func rot() async throws {
        try await withFolder { folder in
            let first = try await mirror(folder)
            let log = try await create(folder, at: first.port)
            _ = try await log.append(bytes("one"))
            let second = try await log.append(bytes("two"))
            await first.close()
            try #require(await eventually { !log.isMirrored })
            try damage(folder + "/log.pool", at: second, offset: 64)
            // Appended before the new mirror comes, and behind the damage.
            let waiting = Task { () async -> TwinLogError.Code? in
                await code { () async throws(TwinLogError) in _ = try await log.append(bytes("three")) }
            }
            let empty = try await mirror(folder, port: first.port, "second.pool")
            #expect(await waiting.value == .corrupt)
            #expect(await code { () async throws(TwinLogError) in _ = try await log.append(bytes("four")) } == .corrupt)
            #expect(try await found(in: folder, "second.pool").isEmpty)
            #expect(try await found(in: folder) == ["one", "two"], "the first mirror's pool has all that was promised")
            await log.close()
            await empty.close()
        }
    }

    @Test("S12, S15: a mirror that was taken over goes on with a new mirror, and the earlier log is refused by both")
    func takeover() async throws {
        try await withFolder { folder in
            let first = try await mirror(folder)
            let log = try await create(folder, at: first.port)
            _ = try await log.append(bytes("one"))
            await log.close()
            await first.close()

            let second = try await mirror(folder, "second.pool")
            let taken = try await open(folder + "/mirror.pool", at: second.port)
            _ = try await taken.append(bytes("two"))
            #expect(try await found(in: folder, "second.pool") == ["one", "two"])
            await taken.close()
            // The earlier log, with the new mirror, which holds the same log by its name.
            #expect(
                await code { () async throws(TwinLogError) in
                    _ = try await open(folder + "/log.pool", at: second.port)
                } == .partnerRefused)
            #expect(try await found(in: folder, "second.pool") == ["one", "two"])
            await second.close()
            // A pool that is a log of its own never mirrors again.
            for name in ["mirror.pool", "log.pool"] {
                #expect(
                    await code { () async throws(TwinLogError) in
                        _ = try await LogMirror.start(
                            path: "\(folder)/\(name)", capacityBytes: capacity, at: "127.0.0.1:0", secret: secret)
                    } == .notThisPool)
            }
        }
    }

    @Test(
        "S27, S21: who does not hold the secret is told nothing; another log, another size, a wrong place are refused")
    func strangers() async throws {
        try await withFolder { folder in
            let mirror = try await mirror(folder)
            let log = try await create(folder, at: mirror.port)
            _ = try await log.append(bytes("one"))
            await log.close()
            func attempt(_ name: String, _ bytes: UInt64 = capacity, secret: [UInt8] = secret) async -> TwinLogError
                .Code?
            {
                await code { () async throws(TwinLogError) in
                    _ = try await MirroredLog.create(
                        path: "\(folder)/\(name)", capacityBytes: bytes, mirror: "127.0.0.1:\(mirror.port)",
                        secret: secret, patience: .milliseconds(200))
                }
            }
            #expect(await attempt("other.pool") == .partnerRefused)
            #expect(await attempt("larger.pool", 2 * capacity) == .partnerRefused)
            #expect(await attempt("stranger.pool", secret: [UInt8](repeating: 8, count: 32)) == .partnerLost)
            #expect(await attempt("short.pool", secret: [1]) == .invalidValue)
            for address in ["example.org:7000", "10.0.0.1:7000", "127.0.0.1", "127.0.0.1:99999", ""] {
                #expect(
                    await code { () async throws(TwinLogError) in
                        _ = try await MirroredLog.open(path: folder + "/log.pool", mirror: address, secret: secret)
                    } == .invalidValue, "\(address)")
            }
            #expect(try await found(in: folder) == ["one"])
            await mirror.close()
        }
    }

    @Test("Cancelled appends and trims return at once while the mirror is away; the log goes on when it is back")
    func cancellation() async throws {
        try await withFolder { folder in
            let mirror = try await mirror(folder)
            let wire = try await Wire.begin(to: mirror.port)
            let log = try await create(folder, at: wire.port, patience: nil)
            _ = try await log.append(bytes("one"))
            try await wire.cut()
            try #require(await eventually { !log.isMirrored })
            let waiting = (0..<20).map { number in
                Task { () async -> TwinLogError.Code? in
                    await code { () async throws(TwinLogError) in
                        if number % 2 == 0 {
                            _ = try await log.append(bytes("\(number)"))
                        } else {
                            try await log.trim(to: log.end)
                        }
                    }
                }
            }
            for task in waiting {
                task.cancel()
                #expect(await task.value == .cancelled)
            }
            try await wire.mend()
            _ = try await log.append(bytes("after"))
            let records = try await texts(log.read())
            #expect(records.count == 11 && records.last == "after", "cancelled appends are there all the same")
            #expect(try await found(in: folder) == records)
            await log.close()
            await mirror.close()
        }
    }

    @Test("Closing while the mirror is away ends what waits for it")
    func closing() async throws {
        try await withFolder { folder in
            let mirror = try await mirror(folder)
            let log = try await create(folder, at: mirror.port, patience: nil)
            await mirror.close()
            try #require(await eventually { !log.isMirrored })
            let waiting = Task { () async -> TwinLogError.Code? in
                await code { () async throws(TwinLogError) in _ = try await log.append([1]) }
            }
            await Task.yield()
            await log.close()
            #expect(await waiting.value == .closed)
            #expect(await code { () async throws(TwinLogError) in _ = try await log.append([1]) } == .closed)
        }
    }
}
