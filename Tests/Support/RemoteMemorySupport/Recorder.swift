// What a queue pair told its delegate, held against the rules of the contract that concern the order of calls.

package import RemoteMemory

/// Bound to the event loop of its queue pair.
package final class Recorder: QueuePairDelegate {
    /// The numbers of the completions, as they came.
    package private(set) var completions: [WorkRequestID] = []
    package private(set) var reads: [(id: WorkRequestID, bytes: [UInt8])] = []
    package private(set) var messages: [[UInt8]] = []
    package private(set) var hasHeard = false
    package private(set) var failure: RemoteMemoryError?
    /// What the queue pair did that no queue pair may do.
    package private(set) var deviations: [String] = []
    /// A call of the queue pair has not returned yet.
    package var isInside = false
    package var onCompleted: (WorkRequestID) -> Void = { _ in }
    package var onMessage: ([UInt8]) -> Void = { _ in }

    package init() {}

    package var completed: WorkRequestID { completions.last ?? 0 }

    private func called(_ what: String) {
        if isInside { deviations.append("\(what) came from inside of a call of the queue pair") }
        if failure != nil { deviations.append("\(what) came after the failure") }
    }

    package func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {
        called("completion \(id)")
        if id <= completed { deviations.append("completion \(id) follows completion \(completed)") }
        completions.append(id)
        onCompleted(id)
    }

    package func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {
        called("the answer to READ \(id)")
        if id <= completed { deviations.append("READ \(id) was completed before it was answered") }
        if let last = reads.last, id <= last.id { deviations.append("READ \(id) was answered after READ \(last.id)") }
        reads.append((id, bytes))
    }

    package func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {
        called("a message")
        messages.append(message)
        onMessage(message)
    }

    package func queuePairHeard(_ queuePair: any QueuePair) {
        called("proof of life")
        hasHeard = true
    }

    package func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {
        called("the failure '\(error)'")
        failure = error
    }
}
