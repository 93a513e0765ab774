// What clients asked and were answered, judged without a look at the servers: every block is a register, and its history must be
// linearizable. Each write has a stamp of its own, so this needs no search (Gibbons and Korach, Testing Shared Memories, 1997,
// section 4.3): a write and the reads of its value make a cluster. If one of its operations ended before the last of them began, the value must have
// stood in between; no two such stretches overlap, and no cluster whose operations all overlap fits inside of another's stretch.
//
// A write that was never answered may have happened or not: if its value was read, it began when it was asked, and ended
// never; if not, it did not happen. A read that was not answered says nothing.

package struct History {
    private struct Cluster {
        var begun: UInt64
        /// The earliest end and the latest beginning of its operations.
        var firstEnd = UInt64.max
        var lastBeginning: UInt64
        var isSeen = false

        /// The value must have stood from the one to the other.
        var isForced: Bool { firstEnd < lastBeginning }
        var low: UInt64 { min(firstEnd, lastBeginning) }
        var high: UInt64 { max(firstEnd, lastBeginning) }
    }

    /// By block and stamp. A block begins with stamp 0, written before everything.
    private var clusters: [[UInt64: Cluster]]
    private var problem: String?

    package init(blocks: Int) {
        let beginning = Cluster(begun: 0, firstEnd: 0, lastBeginning: 0, isSeen: true)
        clusters = Array(repeating: [0: beginning], count: blocks)
    }

    /// A write got its stamp; it was asked at `begun`.
    package mutating func issued(_ block: Int, _ stamp: UInt64, begun: UInt64) {
        clusters[block][stamp] = Cluster(begun: begun, lastBeginning: begun)
    }

    package mutating func written(_ block: Int, _ stamp: UInt64, end: UInt64) {
        clusters[block][stamp]?.firstEnd.lower(to: end)
        clusters[block][stamp]?.isSeen = true
    }

    package mutating func read(_ block: Int, _ stamp: UInt64, begun: UInt64, end: UInt64) {
        guard let cluster = clusters[block][stamp] else {
            problem = problem ?? "a client reads stamp \(stamp) of block \(block), which no client wrote"
            return
        }
        if end < cluster.begun {
            problem = problem ?? "a client has read stamp \(stamp) of block \(block) before it was written"
        }
        clusters[block][stamp]?.firstEnd.lower(to: end)
        clusters[block][stamp]?.lastBeginning.raise(to: begun)
        clusters[block][stamp]?.isSeen = true
    }

    /// `nil` if every block's history is linearizable.
    package func violation() -> String? {
        if let problem { return problem }
        for block in clusters.indices {
            let seen = clusters[block].filter(\.value.isSeen).sorted { ($0.value.low, $0.key) < ($1.value.low, $1.key) }
            // The stretches of the forced ones, in order of their beginning, do not overlap: so their ends are in order too.
            var stretches: [(stamp: UInt64, low: UInt64, high: UInt64)] = []
            for (stamp, cluster) in seen where cluster.isForced {
                if let last = stretches.last, cluster.low < last.high {
                    return
                        "of block \(block), stamps \(last.stamp) and \(stamp) were both read where only one can have stood"
                }
                stretches.append((stamp, cluster.low, cluster.high))
            }
            for (stamp, cluster) in seen where !cluster.isForced {
                if let around = stretches.first(where: { $0.low < cluster.low && cluster.high < $0.high }) {
                    return
                        "of block \(block), stamp \(stamp) was written while stamp \(around.stamp) stood, before and after it"
                }
            }
        }
        return nil
    }
}

extension UInt64 {
    fileprivate mutating func lower(to bound: UInt64) { self = Swift.min(self, bound) }
    fileprivate mutating func raise(to bound: UInt64) { self = Swift.max(self, bound) }
}
