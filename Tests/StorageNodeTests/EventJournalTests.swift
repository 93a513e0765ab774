// Events on disk: numbers over restarts, torn and foreign lines, bounds, files that do not take them.

import AdminProtocol
import ClusterProtocol
import Foundation
import LogModel
import NIOCore
import NIOEmbedded
import NIOPosix
import Testing

@testable import GroupEngine
@testable import StorageNode

@Suite struct EventJournalTests {
    private let path = NSTemporaryDirectory() + "twinlog-events-\(UUID128.random())"
    private let eventLoop = MultiThreadedEventLoopGroup.singleton.next()

    private func removeFiles() { for name in [path, path + ".1"] { unlink(name) } }

    private func event(_ sequence: UInt64, node: String = "alpha", _ message: String = "m") -> NodeEvent {
        NodeEvent(
            sequence: sequence, time: "2026-11-28T00:00:00.000Z", node: node, group: nil, kind: "k", message: message)
    }

    private func opened(isNewPool: Bool = false) -> OpenedEvents {
        OpenedEvents(path: path, node: NodeID("alpha"), isNewPool: isNewPool)
    }

    /// Appends through a journal, as a start of the node would, until all is on disk; answers what it tells.
    private func live(isNewPool: Bool = false, appending count: Int) throws -> [NodeEvent] {
        let opened = opened(isNewPool: isNewPool)
        let eventLoop = eventLoop
        return try eventLoop.flatSubmit {
            let journal = EventJournal(opened, eventLoop: eventLoop)
            for number in 0..<count { journal.append(kind: .started, message: "\(number)", group: nil) }
            let bound = NIOLoopBound(journal, eventLoop: eventLoop)
            return journal.flush().map { Array(bound.value.kept) }
        }.wait()
    }

    @Test("O20: numbers go on over restarts, and what was told before is still there")
    func restarts() throws {
        defer { removeFiles() }
        for start in 0..<5 {
            let events = try live(isNewPool: start == 0, appending: 3)
            #expect(events.map(\.sequence) == Array(1...UInt64(3 * (start + 1))))
            #expect(opened().kept == events, "on disk")
        }
    }

    @Test("O20: nothing is told before it is on disk")
    func toldWhenDurable() throws {
        defer { removeFiles() }
        let opened = opened(isNewPool: true)
        let eventLoop = eventLoop
        let (path, node) = (path, "alpha")
        let told = try eventLoop.flatSubmit { () -> EventLoopFuture<([NodeEvent], [NodeEvent]?)> in
            let journal = EventJournal(opened, eventLoop: eventLoop)
            journal.append(kind: .started, message: "first", group: nil)
            #expect(journal.after(0).isEmpty)
            let answered = eventLoop.makePromise(of: ([NodeEvent], [NodeEvent]?).self)
            let bound = NIOLoopBound(journal, eventLoop: eventLoop)
            journal.wait(after: 0, atMost: .hours(1)) { events in
                _ = bound.value
                answered.completeWith(Result { (events, try EventFile(path: path, node: node).read()) })
            }
            return answered.futureResult
        }.wait()
        #expect(told.0.map(\.message) == ["first"] && told.1 == told.0)
    }

    @Test("a wait ends with its own limit, and no other with it")
    func waits() throws {
        defer { removeFiles() }
        let opened = opened(isNewPool: true)
        let loop = EmbeddedEventLoop()
        let journal = EventJournal(opened, eventLoop: loop)
        defer { journal.thread.shutdownGracefully { _ in } }
        var ended: [String] = []
        for (name, limit) in [("short", 20), ("long", 40)] as [(String, Int64)] {
            journal.wait(after: 0, atMost: .seconds(limit)) { events in ended.append("\(name) \(events.count)") }
        }
        loop.advanceTime(by: .seconds(20))
        #expect(ended == ["short 0"])
        journal.stopWaiting()
        #expect(ended == ["short 0", "long 0"])
    }

    @Test("O20: who asks is told all that happened before, as soon as it is on disk")
    func allTold() throws {
        defer { removeFiles() }
        let opened = opened(isNewPool: true)
        let eventLoop = eventLoop
        let (path, node) = (path, "alpha")
        let count = 2 * EventJournal.answerCount
        let (told, kept) = try eventLoop.flatSubmit { () -> EventLoopFuture<(UInt64?, Int?)> in
            let journal = EventJournal(opened, eventLoop: eventLoop)
            for number in 0..<count { journal.append(kind: .started, message: "\(number)", group: nil) }
            let bound = NIOLoopBound(journal, eventLoop: eventLoop)
            return journal.allTold().flatMapThrowing {
                (
                    bound.value.after(UInt64(count - 1)).last?.sequence,
                    try EventFile(path: path, node: node).read()?.count
                )
            }
        }.wait()
        #expect(told == UInt64(count) && kept == count)
    }

    @Test("S21: a torn last line is cut off; what is foreign, out of order or no event is passed over")
    func damaged() throws {
        defer { removeFiles() }
        let lines = try [event(1), event(2), event(2), event(9, node: "beta"), event(.max), event(5)].map { event in
            String(decoding: try AdminCodec.line(event), as: UTF8.self)
        }
        let text = lines.joined() + "\u{0}\u{0}\n{\"sequence\":7}\n[1,\n" + String(repeating: "x", count: 40_000) + "\n"
        try (text + lines[0].dropLast(9)).write(toFile: path, atomically: true, encoding: .utf8)
        #expect(opened().kept.map(\.sequence) == [1, 2, 5])
        #expect(try live(appending: 1).map(\.sequence) == [1, 2, 5, 6])
        #expect(opened().kept.map(\.sequence) == [1, 2, 5, 6], "the line behind the torn one is whole")
    }

    @Test("S28: two files of bounded size; numbers go on in the next")
    func bounded() throws {
        defer { removeFiles() }
        let file = EventFile(path: path, node: "alpha")
        let text = String(repeating: "t", count: EventJournal.maximumMessageBytes)
        for batch in 0..<80 as Range<UInt64> {
            try file.append((1...10).map { event(batch * 10 + $0, text) })
        }
        for name in [path, path + ".1"] {
            let bytes = try #require(try FileManager.default.attributesOfItem(atPath: name)[.size] as? Int)
            #expect(bytes <= EventFile.maximumBytes + 10 * EventFile.maximumLineBytes)
        }
        let kept = try #require(try file.read())
        #expect(kept.last?.sequence == 800)
        #expect(kept.map(\.sequence) == Array(kept[0].sequence...800), "no hole between the two files")
        #expect(try live(appending: 1).last?.sequence == 801)
    }

    @Test("O1, S28: files that do not take events are told of once, and the events are told from memory")
    func failing() throws {
        // The folder is missing.
        let opened = OpenedEvents(path: path + "/none/events", node: NodeID("alpha"), isNewPool: true)
        let eventLoop = eventLoop
        let (problems, told) = try eventLoop.flatSubmit {
            let journal = EventJournal(opened, eventLoop: eventLoop)
            let problems = NIOLoopBoundBox([String?](), eventLoop: eventLoop)
            journal.onProblem = { problems.value.append($0) }
            journal.append(kind: .started, message: "a", group: nil)
            let bound = NIOLoopBound(journal, eventLoop: eventLoop)
            return journal.flush().flatMap {
                bound.value.append(kind: .started, message: "b", group: nil)
                return bound.value.flush()
            }.map { (problems.value, bound.value.after(0).map(\.message)) }
        }.wait()
        #expect(told == ["a", "b"])
        #expect(problems.count == 1 && problems[0]?.contains("No such file") == true, "\(problems)")
    }

    @Test("O20: files that are lost beside a pool that is not new leave their numbers behind")
    func lost() throws {
        defer { removeFiles() }
        #expect(opened(isNewPool: true).lastSequence == 0)
        #expect(opened(isNewPool: false).lastSequence > 1_700_000_000_000)
        #expect(opened(isNewPool: false).lastSequence < NodeEvent.maximumSequence)
    }
}
