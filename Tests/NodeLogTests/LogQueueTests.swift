// The log's queue beside a reader that stops, goes, or is full; and how lines look.

import Foundation
import Glibc
import Logging
import Synchronization
import Testing

@testable import NodeLog

/// Of a test: moves when it is told to.
private final class Clock: Sendable {
    private let nanos = Mutex<UInt64>(1)
    func advance(seconds: UInt64) { nanos.withLock { $0 += seconds * 1_000_000_000 } }
    var now: UInt64 { nanos.withLock { $0 } }
}

private struct Pipe {
    let reader: CInt, writer: CInt
    init() {
        var ends: [CInt] = [0, 0]
        precondition(pipe(&ends) == 0)
        (reader, writer) = (ends[0], ends[1])
    }

    /// Reads until `isEnough`, at most 10 s.
    func read(until isEnough: (String) -> Bool) -> String {
        var bytes: [UInt8] = []
        let deadline = Date().addingTimeInterval(10)
        while Date() < deadline, !isEnough(String(decoding: bytes, as: UTF8.self)) {
            var entry = pollfd(fd: reader, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, 100) > 0 else { continue }
            var chunk = [UInt8](repeating: 0, count: 65536)
            let count = Glibc.read(reader, &chunk, chunk.count)
            guard count > 0 else { break }
            bytes += chunk.prefix(count)
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

@Suite struct LogQueueTests {
    private func cause(_ line: UInt) -> LogCause { LogCause(file: "test", line: line, subject: "") }

    private func line(_ message: String, _ place: UInt = 1) -> LogLine {
        LogLine(
            time: timespec(tv_sec: 1_764_288_000, tv_nsec: 7_000_000), level: .info, label: "node", message: message,
            cause: cause(place))
    }

    private func logger(_ queue: LogQueue) -> Logger {
        Logger(label: "node", factory: { QueuedLogHandler(label: $0, queue: queue) })
    }

    @Test("O1, S28: a reader that never reads holds up nobody; what is dropped is counted and told")
    func readerThatStops() {
        let pipe = Pipe()
        let queue = LogQueue(descriptor: pipe.writer, format: .text, level: .info)
        let text = String(repeating: "x", count: 200)
        let begin = Date()
        // 250 causes: 2,500 pass the limit of repeats, more than the queue and a pipe take.
        for number in 0..<5000 { queue.append(line("\(number) \(text)", UInt(number % 250))) }
        #expect(Date().timeIntervalSince(begin) < 5)
        let told = pipe.read { $0.contains("lines dropped") }
        #expect(told.hasPrefix("2025-11-28T00:00:00.007Z info node: 0 \(text)\n"))
        #expect(told.contains("lines dropped"))
    }

    @Test("O1: what fills the queue is bounded by count and by bytes")
    func bounded() {
        let pipe = Pipe()
        let queue = LogQueue(descriptor: pipe.writer, format: .text, level: .info)
        let large = String(repeating: "y", count: LogLine.maximumMessageBytes)
        for number in 0..<1000 { queue.append(line(large, UInt(number % 200))) }
        let told = pipe.read { $0.contains("lines dropped") }
        // What the queue holds, what the writer has taken from it, and the number of those dropped.
        #expect(told.utf8.count < 2 * LogQueue.capacityBytes + (64 << 10))
    }

    @Test("O1: a reader that has gone, and a full disk, are survived", arguments: [true, false])
    func readerThatFails(_ isGone: Bool) throws {
        signal(SIGPIPE, SIG_IGN)
        let pipe = Pipe()
        if isGone { close(pipe.reader) }
        let descriptor = isGone ? pipe.writer : open("/dev/full", O_WRONLY)
        let queue = LogQueue(descriptor: descriptor, format: .text, level: .info)
        for number in 0..<100 { queue.append(line("\(number)", UInt(number))) }
        queue.flush(atMostMillis: 5000)
        // Another reader at the same descriptor, as after a log's rotation.
        let other = Pipe()
        #expect(dup2(other.writer, descriptor) == descriptor)
        queue.append(line("last", 1000))
        let told = other.read { $0.contains("last") && $0.contains("dropped") }
        #expect(told.contains("100 lines dropped"), "\(told)")
    }

    @Test("O1: lines of one cause are limited, and the number of those held back is told; others pass")
    func repeats() {
        let clock = Clock()
        let pipe = Pipe()
        let queue = LogQueue(descriptor: pipe.writer, format: .text, level: .info, clock: { clock.now })
        for number in 0..<600 { queue.append(line("bad handshake \(number)", 1)) }
        queue.append(line("other", 2))
        let burst = pipe.read { $0.contains("other") }
        #expect(burst.components(separatedBy: "bad handshake").count == RepeatLimit.linesPerWindow + 1)
        clock.advance(seconds: 11)
        let later = pipe.read { $0.contains("held back") }
        #expect(later.contains("bad handshake 599 (and 589 more like this, held back)"), "\(later)")
    }

    @Test("S28: causes that are many share one limit")
    func manyCauses() {
        var limit = RepeatLimit()
        let passed = (0..<10_000).filter { limit.admit(line("x", UInt($0)), now: 1) != nil }.count
        #expect(passed == RepeatLimit.causeCount + RepeatLimit.linesPerWindow)
    }

    @Test("S21: no message ends its line or steers a terminal")
    func controlCharacters() throws {
        var line = line("a\nb\u{1B}[2J\u{9B}\"\\")
        line.metadata = [("kind", "t\t")]
        #expect(line.rendered(as: .text) == "2025-11-28T00:00:00.007Z info node: a\\u{a}b\\u{1b}[2J\\u{9b}\"\\\n")
        let json = line.rendered(as: .json)
        let fields = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: String])
        #expect(fields["message"] == line.message && fields["kind"] == "t\t" && fields["level"] == "info")
        #expect(json.firstIndex(of: "\n") == json.index(before: json.endIndex))
    }

    @Test("The level is one for all loggers, and can be changed")
    func level() {
        let pipe = Pipe()
        let queue = LogQueue(descriptor: pipe.writer, format: .text, level: .warning)
        var first = logger(queue)
        let second = logger(queue)
        second.info("unheard")
        first.logLevel = .debug
        second.debug("heard")
        let told = pipe.read { $0.contains("heard\n") }
        #expect(told.contains("debug node: heard") && !told.contains("unheard"))
    }
}
