// What clients asked and were answered, judged without a look at the servers: every block is a register, and its history must be
// linearizable. Each write has a stamp of its own, so this needs no search (Gibbons and Korach, Testing Shared Memories, 1997,
// section 4.3): a write and the reads of its value make a cluster. If one of its operations ended before the last of them began, the value must have
// stood in between; no two such stretches overlap, and no cluster whose operations all overlap fits inside of another's stretch.
//
// A write that was never answered may have happened or not: if its value was read, it began when it was asked, and ended
// never; if not, it did not happen. A read that was not answered says nothing.

package struct History {
    private struct Cluster {
        let stamp: UInt64
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

    /// In ascending order of stamp. A block begins with stamp 0, written before everything.
    private var blocks: [[Cluster]]
    private var problem: String?

    package init(blocks: Int) {
        let beginning = Cluster(stamp: 0, begun: 0, firstEnd: 0, lastBeginning: 0, isSeen: true)
        self.blocks = Array(repeating: [beginning], count: blocks)
    }

    /// A write got its stamp; it was asked at `begun`.
    package mutating func issued(_ block: Int, _ stamp: UInt64, begun: UInt64) {
        precondition(blocks[block].last.map { $0.stamp < stamp } == true, "stamps are given in ascending order")
        blocks[block].append(Cluster(stamp: stamp, begun: begun, lastBeginning: begun))
    }

    /// Where the cluster of `stamp` is. Most that is asked for is new.
    private func place(of stamp: UInt64, in block: Int) -> Int? {
        let clusters = blocks[block]
        var index = clusters.count - 1
        while index >= 0, clusters[index].stamp > stamp { index -= 1 }
        return index >= 0 && clusters[index].stamp == stamp ? index : nil
    }

    package mutating func written(_ block: Int, _ stamp: UInt64, end: UInt64) {
        guard let place = place(of: stamp, in: block) else { return }
        blocks[block][place].firstEnd.lower(to: end)
        blocks[block][place].isSeen = true
    }

    package mutating func read(_ block: Int, _ stamp: UInt64, begun: UInt64, end: UInt64) {
        guard let place = place(of: stamp, in: block) else {
            problem = problem ?? "a client reads stamp \(stamp) of block \(block), which no client wrote"
            return
        }
        if end < blocks[block][place].begun {
            problem = problem ?? "a client has read stamp \(stamp) of block \(block) before it was written"
        }
        blocks[block][place].firstEnd.lower(to: end)
        blocks[block][place].lastBeginning.raise(to: begun)
        blocks[block][place].isSeen = true
    }

    /// `nil` if every block's history is linearizable.
    package func violation() -> String? {
        if let problem { return problem }
        for block in blocks.indices {
            let seen = blocks[block].filter(\.isSeen).sorted { ($0.low, $0.stamp) < ($1.low, $1.stamp) }
            // The stretches of the forced ones, in order of their beginning, do not overlap: so their ends are in order too.
            var stretches: [(stamp: UInt64, low: UInt64, high: UInt64)] = []
            for cluster in seen where cluster.isForced {
                if let last = stretches.last, cluster.low < last.high {
                    return
                        "of block \(block), stamps \(last.stamp) and \(cluster.stamp) were both read where only one can have stood"
                }
                stretches.append((cluster.stamp, cluster.low, cluster.high))
            }
            for cluster in seen where !cluster.isForced {
                if let around = stretches.first(where: { $0.low < cluster.low && cluster.high < $0.high }) {
                    return
                        "of block \(block), stamp \(cluster.stamp) was written while stamp \(around.stamp) stood, before and after it"
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
