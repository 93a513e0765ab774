// What a recording of a medium's writes must be: owners take turns, in the order of their claims. Each write begins and ends while its process
// holds the medium's lock, and the processes that wrote follow each other as the coordinator's record had them for owners. So no
// write of an epoch comes after one of a later epoch (S15, S16, S18).
//
// Not shown: a write that a process's end cut short has no end in the recording. It began in its turn, and ended with its process at the latest.

/// One call of a process, with the moments between which it took effect.
package struct RecordedCall: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case write
        /// When it was had.
        case lock(descriptor: UInt64)
        case unlock(descriptor: UInt64)
    }

    package var kind: Kind
    package var process: Int32
    package var begin: UInt64
    /// `nil`: the process ended first.
    package var end: UInt64?

    package init(_ kind: Kind, by process: Int32, begin: UInt64, end: UInt64?) {
        self.kind = kind
        self.process = process
        self.begin = begin
        self.end = end
    }
}

/// An owner, as the coordinator's record had it.
package struct RecordedClaim: Hashable, Sendable {
    package var epoch: UInt64
    package var process: Int32

    package init(epoch: UInt64, process: Int32) {
        self.epoch = epoch
        self.process = process
    }
}

package struct MediumAudit: Sendable {
    /// A process with the lock, and how often it wrote.
    package struct Turn: Hashable, Sendable {
        package var process: Int32
        package var writes: Int
    }

    private struct Holder: Hashable {
        var process: Int32
        var descriptor: UInt64
    }

    /// Of those who wrote.
    package private(set) var turns: [Turn] = []
    /// In words, at most twenty.
    package private(set) var violations: [String] = []
    private var holder: Holder?

    /// `claims`: in the order in which the coordinator had them.
    package init(of calls: [RecordedCall], claims: [RecordedClaim]) {
        for moment in Self.moments(of: calls) { note(moment) }
        turns.removeAll { $0.writes == 0 }
        checkOrder(claims)
    }

    package var writes: Int { turns.reduce(0) { $0 + $1.writes } }

    // MARK: Turns

    private struct Moment {
        var at: UInt64
        var isEnd: Bool
        var call: RecordedCall
    }

    private static func moments(of calls: [RecordedCall]) -> [Moment] {
        var moments = calls.map { Moment(at: $0.begin, isEnd: false, call: $0) }
        for call in calls where call.kind == .write {
            if let end = call.end { moments.append(Moment(at: end, isEnd: true, call: call)) }
        }
        return moments.sorted { $0.at < $1.at }
    }

    private mutating func note(_ moment: Moment) {
        let process = moment.call.process
        switch moment.call.kind {
        case .lock(let descriptor):
            holder = Holder(process: process, descriptor: descriptor)
            turns.append(Turn(process: process, writes: 0))
        case .unlock(let descriptor):
            if holder == Holder(process: process, descriptor: descriptor) { holder = nil }
        case .write:
            guard holder?.process == process else {
                let whose = holder.map { "process \($0.process)'s" } ?? "nobody's"
                return complain(
                    "process \(process) \(moment.isEnd ? "ended" : "began") a write at \(moment.at), when the medium was \(whose)"
                )
            }
            if !moment.isEnd { turns[turns.count - 1].writes += 1 }
        }
    }

    // MARK: Claims

    /// Each turn belongs to the claim of the turn before, or a later one.
    private mutating func checkOrder(_ claims: [RecordedClaim]) {
        var rest = claims[...]
        for turn in turns {
            guard let next = rest.firstIndex(where: { $0.process == turn.process }) else {
                let last = rest.first.map { "after the claim of epoch \($0.epoch)" } ?? "without any claim"
                return complain("process \(turn.process) wrote \(turn.writes) times \(last), and claimed no later")
            }
            rest = rest[next...]
        }
    }

    private mutating func complain(_ what: String) {
        if violations.count < 20 { violations.append(what) }
    }
}
