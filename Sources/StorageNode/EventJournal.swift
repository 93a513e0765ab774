// What happened on this node, for `twinlog events`: the latest in memory, and all of that in the files beside the pool. An event is told
// when it is on disk, so that a number that anybody has seen is never given to another event, whatever ends the process. Files that do
// not take events for a second hold up nothing: the events are told from memory, and written when the files take them again. Lives on
// the node's event loop; the files have a thread of their own.

internal import AdminProtocol
internal import ClusterProtocol
internal import Foundation
internal import LogModel
internal import NIOCore
internal import NIOPosix

final class EventJournal {
    /// What the two files hold, about.
    static let capacity = 4000
    /// Of one answer.
    static let answerCount = 256
    static let maximumMessageBytes = 2048
    /// How long events wait for their files.
    static let patience = TimeAmount.seconds(1)

    /// Somebody who waits for the next event, and what ends the wait without one.
    private struct Wait {
        let number: UInt64
        let after: UInt64
        let answer: ([NodeEvent]) -> Void
        let end: Scheduled<Void>
    }

    private let node: NodeID
    private let file: EventFile
    private let eventLoop: any EventLoop
    let thread: NIOThreadPool
    /// Why the files do not take events, each time that it begins; `nil` when they do again.
    var onProblem: (String?) -> Void = { _ in }

    private(set) var kept: CircularBuffer<NodeEvent>
    private var lastSequence: UInt64
    private var writtenThrough: UInt64
    /// What may be told.
    private var toldThrough: UInt64
    private var writing: Scheduled<Void>?
    private var problem: String?
    private var waiting: [Wait] = []
    private var lastWait: UInt64 = 0
    private var flushes: [EventLoopPromise<Void>] = []
    /// Those who asked for all events up to one that is not told yet.
    private var asking: [(through: UInt64, promise: EventLoopPromise<Void>)] = []

    init(_ opened: OpenedEvents, eventLoop: any EventLoop) {
        node = opened.node
        file = opened.file
        self.eventLoop = eventLoop
        thread = NIOThreadPool(numberOfThreads: 1)
        thread.start()
        kept = CircularBuffer(opened.kept.suffix(Self.capacity))
        lastSequence = opened.lastSequence
        writtenThrough = lastSequence
        toldThrough = lastSequence
    }

    func append(kind: EventKind, message: String, group: GroupID?) {
        lastSequence += 1
        let isLong = message.utf8.count > Self.maximumMessageBytes
        let text = isLong ? String(decoding: message.utf8.prefix(Self.maximumMessageBytes), as: UTF8.self) : message
        kept.append(
            NodeEvent(
                sequence: lastSequence, time: Date().statusText, node: node.rawValue, group: group?.rawValue,
                kind: kind.rawValue,
                message: text))
        if kept.count > Self.capacity { kept.removeFirst() }
        write()
    }

    // MARK: The files

    /// One batch at a time.
    private func write() {
        guard writing == nil else { return }
        let batch = Array(kept.lazy.filter { $0.sequence > self.writtenThrough }.prefix(Self.answerCount))
        guard let last = batch.last?.sequence else { return flushed() }
        writing = eventLoop.assumeIsolated().scheduleTask(in: Self.patience) {
            self.tell(through: self.lastSequence)
            self.flushed()
        }
        let file = file
        thread.runIfActive(eventLoop: eventLoop) { try file.append(batch) }.assumeIsolated().whenComplete { result in
            self.writing?.cancel()
            self.writing = nil
            switch result {
            case .success: self.written(through: last)
            case .failure(let error): self.failed("\(error)")
            }
        }
    }

    private func written(through last: UInt64) {
        writtenThrough = last
        if problem != nil {
            problem = nil
            onProblem(nil)
        }
        tell(through: last)
        write()
    }

    /// The next event tries again.
    private func failed(_ reason: String) {
        tell(through: lastSequence)
        flushed()
        guard problem == nil else { return }
        problem = reason
        onProblem(reason)
    }

    /// Succeeds when all events are on disk, or the files do not take them.
    func flush() -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        flushes.append(promise)
        write()
        return promise.futureResult
    }

    private func flushed() {
        let ready = flushes
        flushes = []
        for promise in ready { promise.succeed() }
    }

    // MARK: Telling

    private func tell(through sequence: UInt64) {
        toldThrough = max(toldThrough, sequence)
        let content = asking.filter { $0.through <= toldThrough }
        asking.removeAll { $0.through <= toldThrough }
        for entry in content { entry.promise.succeed() }
        endWaits { !after($0.after).isEmpty }
    }

    /// Answers those with what there is for them.
    private func endWaits(where isOver: (Wait) -> Bool) {
        let over = waiting.filter(isOver)
        waiting.removeAll { wait in over.contains { $0.number == wait.number } }
        for wait in over {
            wait.end.cancel()
            wait.answer(after(wait.after))
        }
    }

    /// Succeeds when all that has happened so far is told, so that events are not behind a status that was answered before; at the latest
    /// when the files have had their time.
    func allTold() -> EventLoopFuture<Void> {
        guard toldThrough < lastSequence else { return eventLoop.makeSucceededVoidFuture() }
        let through = lastSequence
        let promise = eventLoop.makePromise(of: Void.self)
        asking.append((through, promise))
        let limit = eventLoop.assumeIsolated().scheduleTask(in: Self.patience) { self.tell(through: through) }
        promise.futureResult.assumeIsolated().whenComplete { _ in limit.cancel() }
        return promise.futureResult
    }

    /// The first of the events behind `sequence`; ask again from its last one.
    func after(_ sequence: UInt64) -> [NodeEvent] {
        Array(kept.lazy.filter { $0.sequence > sequence && $0.sequence <= self.toldThrough }.prefix(Self.answerCount))
    }

    /// Answers as soon as there is an event after `sequence`; with none when `limit` is over.
    func wait(after sequence: UInt64, atMost limit: TimeAmount, _ answer: @escaping ([NodeEvent]) -> Void) {
        let found = after(sequence)
        guard found.isEmpty else { return answer(found) }
        lastWait += 1
        let number = lastWait
        let end = eventLoop.assumeIsolated().scheduleTask(in: limit) { self.endWaits { $0.number == number } }
        waiting.append(Wait(number: number, after: sequence, answer: answer, end: end))
    }

    /// Answers everyone who waits, with nothing.
    func stopWaiting() { endWaits { _ in true } }
}

/// The files of a node's events, read.
struct OpenedEvents: Sendable {
    let node: NodeID
    let file: EventFile
    let kept: [NodeEvent]
    let lastSequence: UInt64
    /// Why they could not be read.
    let problem: String?

    /// Blocks. Files that are lost beside a pool that is not new leave their numbers behind: milliseconds since 1970 are above all that
    /// a node has given.
    init(path: String, node: NodeID, isNewPool: Bool, access: FileAccess = .ownerOnly) {
        self.node = node
        file = EventFile(path: path, node: node.rawValue, access: access)
        let found: [NodeEvent]?
        do throws(EventFileError) {
            found = try file.read()
            problem = nil
        } catch {
            found = nil
            problem = error.description
        }
        kept = found ?? []
        lastSequence = kept.last?.sequence ?? (isNewPool ? 0 : UInt64(Date().timeIntervalSince1970 * 1000))
    }
}
