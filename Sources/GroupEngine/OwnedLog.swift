// The log of a group that this node owns, and what the parts of its data path share: how far everything is, what of it is still
// to reach the medium, and what the group allows. Lives in the engine's one place; not thread-safe.

package import ClusterProtocol
package import LogModel
internal import PersistentMemory
package import StorageMedium
package import WriteLog

package final class OwnedLog {
    /// How far the log and its mirror are.
    package struct Progress: Hashable {
        /// What is durable here and there.
        var local: LSN
        var mirror: LSN
        /// The oldest request that the mirror was sent and has not completed.
        var pending: UInt64?
    }

    /// What the group is told.
    package struct Listener {
        var progress: (Progress) -> Void
        var report: (Report) -> Void
        /// What the mirror lacks cannot be shipped to it.
        var cannotShip: (_ reason: String) -> Void
        /// Another node has taken the medium (S18).
        var mediumTaken: (_ reason: String) -> Void

        package init(
            progress: @escaping (Progress) -> Void = { _ in }, report: @escaping (Report) -> Void,
            cannotShip: @escaping (_ reason: String) -> Void = { _ in },
            mediumTaken: @escaping (_ reason: String) -> Void = { _ in }
        ) {
            self.progress = progress
            self.report = report
            self.cannotShip = cannotShip
            self.mediumTaken = mediumTaken
        }
    }

    let log: WriteLog
    let media: [VolumeID: any Medium]
    /// Those of `media` that batches are in.
    let mediumCalls: MediumCalls
    let runtime: any Runtime
    let listener: Listener
    /// What the group allows. It says so as soon as that changes.
    package var authority: Authority

    var acknowledgement: Acknowledgement
    /// End of the last fully acknowledged write; stored in records, so half a write is judged torn (S5).
    var acknowledgedWriteEnd: LSN
    var overlay = Overlay()
    /// What is destaged next, where the head is, what may be trimmed.
    var destage: DestageMachine {
        didSet {
            guard let onQuiet, !destage.isBusy else { return }
            self.onQuiet = nil
            onQuiet()
        }
    }
    var onQuiet: (() -> Void)?
    /// Of reads of the media that are made on the loop.
    var readBudget = ReadBudget()

    let stages: StageTimes
    /// When the first of the requests came that wait for the next scheduled pump.
    private var firstArrival: Nanos?

    /// Requests are carried out; otherwise they wait.
    var isServing = false
    /// Ownership is gone: nothing is answered any more.
    var isRevoked = false
    /// Nothing stored from now on may be called durable: an `msync` failed.
    var persistFailure: String?

    /// Since when each call runs that makes this log or its head durable, or reads it whole, the oldest first.
    private var memoryCalls: [(number: UInt64, since: Nanos)] = []
    private var memoryCallsMade: UInt64 = 0

    /// Moves everything that can move.
    var onPump: () -> Void = {}
    private var isPumpScheduled = false

    /// The calls of `media` are watched: one that does not return is known by its path.
    package convenience init(
        log: WriteLog, start: LSN, media: [VolumeID: (medium: any Medium, path: String)], runtime: any Runtime,
        authority: Authority, listener: Listener
    ) {
        let calls = MediumCalls()
        self.init(
            log: log, start: start,
            media: media.mapValues { WatchedMedium($0.medium, path: $0.path, calls: calls) }, mediumCalls: calls,
            runtime: runtime, authority: authority, listener: listener)
    }

    init(
        log: WriteLog, start: LSN, media: [VolumeID: any Medium], mediumCalls: MediumCalls = MediumCalls(),
        runtime: any Runtime, authority: Authority, listener: Listener
    ) {
        self.log = log
        self.media = media
        self.mediumCalls = mediumCalls
        self.runtime = runtime
        self.authority = authority
        self.listener = listener
        stages = StageTimes(now: runtime.now)
        acknowledgement = Acknowledgement(start)
        acknowledgedWriteEnd = start
        destage = DestageMachine(start: start)
    }

    var acknowledged: LSN { acknowledgement.acknowledged }

    /// Where the ring ends behind `lsn`. No record crosses it, and what lies before it is one READ of the mirror: a peer may take one at a time.
    func endOfLap(from lsn: LSN) -> LSN { lsn + (log.ringBytes - lsn.rawValue % log.ringBytes) }

    /// Requests may be carried out and answered now.
    var mayServe: Bool { isServing && authority.isValid(runtime.now) }

    /// What is acknowledged may be destaged and trimmed now.
    var mayDestage: Bool { !isRevoked && authority.isValid(runtime.now) }

    // MARK: Memory

    /// Runs `body`, which makes this log or its head durable, or reads it whole, where it may block, and then `done`.
    func runOnMemory<Value: Sendable>(
        _ body: @escaping @Sendable () throws -> Value, _ done: @escaping (Result<Value, any Error>) -> Void
    ) {
        memoryCallsMade += 1
        let number = memoryCallsMade
        memoryCalls.append((number, runtime.now))
        runtime.run(.memory, body) { [self] result in
            memoryCalls.removeAll { $0.number == number }
            done(result)
        }
    }

    /// A disk under the pool that does not answer stops the group as one under its medium does: nothing is acknowledged, or no space is
    /// given back. `isLogFull`: writers wait for space.
    func memoryTrouble(isLogFull: Bool, _ now: Nanos) -> MediumTrouble? {
        guard let since = memoryCalls.first?.since, now >= since + MediumWatch.usualCallLimit else { return nil }
        return MediumTrouble(
            since: since, reason: "the pool: making the log durable, or reading it, does not return",
            isLogFull: isLogFull)
    }

    func report(_ kind: EventKind, _ message: String) { listener.report(Report(kind, message)) }

    /// Calls `body` when nothing of this log is on its way to the medium.
    func whenQuiet(_ body: @escaping () -> Void) {
        guard destage.isBusy else { return body() }
        onQuiet = body
    }

    // MARK: The pump

    /// When a request that schedules the pump has come: the clock is read once for all that one turn of the loop brings.
    var arrival: Nanos {
        if let firstArrival { return firstArrival }
        let now = runtime.now
        firstArrival = now
        return now
    }

    /// Runs the pump once at the end of this turn, so that a burst of requests ships as one WRITE.
    func schedulePump() {
        guard !isPumpScheduled, !isRevoked else { return }
        isPumpScheduled = true
        runtime.execute { self.pumpNow() }
    }

    /// Requests are left that this turn did not bear.
    func pumpNextTurn() {
        guard !isPumpScheduled, !isRevoked else { return }
        isPumpScheduled = true
        runtime.executeNextTurn { self.pumpNow() }
    }

    private func pumpNow() {
        isPumpScheduled = false
        firstArrival = nil
        onPump()
    }

    // MARK: Reads

    /// A read of the medium began before the log's bytes of it were forgotten, and ends now.
    func endRead(_ id: UInt64) {
        let before = destage.unreferencedBelow
        destage.endRead(id)
        if destage.unreferencedBelow > before { forgetWhatNobodyReads() }
    }

    func forgetWhatNobodyReads() {
        overlay.forget(below: destage.unreferencedBelow)
        schedulePump()
    }
}
