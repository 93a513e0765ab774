// The last things that happened on this node, for `twinlog events`. Bounded: older events are forgotten, and their numbers
// tell so. Lives on the node's event loop.

internal import AdminProtocol
internal import Foundation
internal import LogModel
internal import NIOCore

final class EventJournal {
    static let capacity = 1000

    private let node: NodeID
    private var events = CircularBuffer<NodeEvent>()
    private var lastSequence: UInt64 = 0
    private var waiting: [(after: UInt64, answer: ([NodeEvent]) -> Void)] = []

    init(node: NodeID) { self.node = node }

    func append(kind: String, message: String, group: GroupID?) {
        lastSequence += 1
        let time = Date().formatted(.iso8601.year().month().day().time(includingFractionalSeconds: true).timeZone(separator: .omitted))
        events.append(
            NodeEvent(
                sequence: lastSequence, time: time, node: node.rawValue, group: group?.rawValue, kind: kind, message: message))
        if events.count > Self.capacity { events.removeFirst() }
        let ready = waiting
        waiting = []
        for entry in ready { entry.answer(self.after(entry.after)) }
    }

    func after(_ sequence: UInt64) -> [NodeEvent] { events.filter { $0.sequence > sequence } }

    /// Answers as soon as there is an event after `sequence`; the caller sets a limit and calls ``stopWaiting()``.
    func wait(after sequence: UInt64, _ answer: @escaping ([NodeEvent]) -> Void) {
        let found = after(sequence)
        guard found.isEmpty else { return answer(found) }
        waiting.append((sequence, answer))
    }

    /// Answers everyone who waits, with nothing.
    func stopWaiting() {
        let ready = waiting
        waiting = []
        for entry in ready { entry.answer([]) }
    }
}
