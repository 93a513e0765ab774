// From a log to a mirror region: whoever mirrors a log posts it like this, a group's owner and a library's log alike.

package import ClusterProtocol
package import LogModel
package import RemoteMemory
package import WriteLog

extension MirrorSession {
    /// Posts what may be posted now: where the head is, then the log below `shippable`. Throws `noCredit`, after which the next completion
    /// asks again; of anything else the queue pair tells its delegate. Nothing of `[mirrorHead, shippable)` is reclaimed meanwhile.
    package mutating func post(
        _ log: WriteLog, upTo shippable: LSN, head: LSN, to queuePair: any QueuePair, key: RegionKey
    ) throws(RemoteMemoryError) {
        if needsTrim(to: head) {
            didPostTrim(to: head, id: try queuePair.postAtomicWrite(head.rawValue, key: key, offset: log.ringBytes))
        }
        while let range = next(published: shippable, creditBytes: UInt64(queuePair.creditBytes)) {
            // Zeros in the place of what was acknowledged must never reach the mirror (S26).
            guard log.isReadable(from: range.lowerBound, to: range.upperBound) else { break }
            try post(range, of: log, to: queuePair, key: key)
        }
    }

    /// Two WRITEs where the range spans the end of the ring. The second may meet the end of the window: the session knows of the first then.
    private mutating func post(
        _ range: Range<LSN>, of log: WriteLog, to queuePair: any QueuePair, key: RegionKey
    ) throws(RemoteMemoryError) {
        var from = range.lowerBound
        try log.withBytes(from: range.lowerBound, to: range.upperBound) { (bytes) throws(RemoteMemoryError) in
            let id = try queuePair.postWrite(bytes, key: key, offset: from.rawValue % log.ringBytes)
            let end = from + UInt64(bytes.count)
            didPost(from..<end, id: id)
            from = end
        }
    }
}
