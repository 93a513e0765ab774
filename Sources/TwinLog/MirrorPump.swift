// From a log to its mirror, and back to whoever waits: ships what is published, promises what is durable at both ends, gives back the space
// that both ends have trimmed. Dials the mirror again whenever the rail is lost.
//
// Invariants:
//  - nothing is promised that is not durable here and there (S1), and nothing is reused that the mirror has not trimmed (S6);
//  - what the mirror lacks when it attaches passes its checks before it is shipped (S26).

internal import ClusterProtocol
internal import GroupEngine
internal import LogModel
internal import NIOCore
internal import PersistentMemory
internal import RemoteMemory
internal import Synchronization
internal import WriteLog

/// Bound to its event loop, but for what is said otherwise.
final class MirrorPump {
    /// What appends look at, on any thread.
    final class Shared: Sendable {
        let appends = AppendWaiters()
        /// Who waits for the mirror's head.
        let trims = AppendWaiters()
        private let isBroken = Atomic(true)
        private let problem = Mutex<TwinLogError?>(nil)

        /// Both copies hold the log, or will as soon as they are told.
        var isMirrored: Bool { !isBroken.load(ordering: .acquiring) }

        /// Why appends are refused now; one load on a good day.
        var refusal: TwinLogError? { isMirrored ? nil : problem.withLock { $0 } }

        func isWhole() {
            problem.withLock { $0 = nil }
            isBroken.store(false, ordering: .releasing)
        }

        func isLost() { isBroken.store(true, ordering: .releasing) }

        func refuse(_ error: TwinLogError) {
            problem.withLock { $0 = error }
            appends.fail(error)
            trims.fail(error)
        }
    }

    private struct Attached {
        let queuePair: any QueuePair
        let key: RegionKey
        var session: MirrorSession
    }

    private static let interval = TimeAmount.milliseconds(50)
    /// A request that is not completed for so long has no partner behind it. A disk may take seconds for an `msync`.
    private static let silenceLimit = TimeAmount.seconds(5)

    /// A mirror reads its log before it answers.
    private static let attachLimit = TimeAmount.seconds(60)
    private static let refusedPause = TimeAmount.seconds(1)

    private let store: LogStore
    private let partner: LogPartner
    private let eventLoop: any EventLoop
    private let patience: TimeAmount?
    private let thread: BlockingThread
    let shared: Shared
    private var rail: LogRail?
    private var attached: Attached?
    /// The mirror lacks something below.
    private var catchUpEnd = LSN.zero
    /// When the mirror last came closer, while it is not whole.
    private var lastProgress = NIODeadline.now()
    private var dialed = NIODeadline.now()
    private var nextDial = NIODeadline.now()
    /// Why the mirror is not whole.
    private var problem: TwinLogError?
    private var oldest: (request: WorkRequestID?, since: NIODeadline) = (nil, .now())
    private var ticking: RepeatedTask?

    init(
        _ store: LogStore, _ partner: LogPartner, patience: TimeAmount?, thread: BlockingThread, shared: Shared,
        eventLoop: any EventLoop
    ) {
        self.store = store
        self.partner = partner
        self.patience = patience
        self.thread = thread
        self.shared = shared
        self.eventLoop = eventLoop
    }

    func start() {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        ticking = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.interval) { _ in bound.value.tick() }
    }

    func stop() {
        ticking?.cancel()
        ticking = nil
        detach()
    }

    // MARK: The rail

    private func tick() {
        let now = NIODeadline.now()
        let request = attached?.session.pending
        if request != oldest.request { oldest = (request, now) }
        let isSilent =
            rail?.isAsking == true && now - dialed > Self.attachLimit
            || request != nil && now - oldest.since > Self.silenceLimit
        if isSilent {
            lose(TwinLogError(.partnerLost, "\(partner.address): the log's mirror does not answer"))
        } else if rail == nil, now >= nextDial {
            dial(now)
        }
        if !shared.isMirrored, let patience, now - lastProgress > patience {
            shared.refuse(problem ?? TwinLogError(.partnerLost, "\(partner.address): the log's mirror is not there"))
        }
    }

    private func dial(_ now: NIODeadline) {
        let request = AttachRequest(store.log.region, of: store.pool, end: store.log.published)
        dialed = now
        let rail = LogRail(request, eventLoop: eventLoop) { [unowned self] in
            verify($0, head: request.head)
        } ended: { [unowned self] error in
            lose(error)
        }
        rail.completed = { [unowned self] in completed(through: $0) }
        self.rail = rail
        rail.dial(partner)
    }

    private func lose(_ error: TwinLogError) {
        if shared.isMirrored { lastProgress = .now() }
        shared.isLost()
        detach()
        problem = error
        // A partner that is not there may come; one that refuses this log has to be replaced.
        guard error.code == .partnerRefused else { return }
        nextDial = .now() + Self.refusedPause
        shared.refuse(error)
    }

    private func detach() {
        rail?.close()
        rail = nil
        attached = nil
    }

    /// Begins to ship once what the mirror lacks has passed its checks.
    private func verify(_ attachment: LogRail.Attachment, head: LSN) {
        guard attachment.durable <= store.log.published, let rail else {
            return lose(TwinLogError(.partnerRefused, "\(partner.address): the mirror goes on beyond this log"))
        }
        let store = store, from = attachment.durable, to = store.log.published
        let bound = NIOLoopBound((self, rail), eventLoop: eventLoop)
        let result = NIOLoopBound((attachment, head), eventLoop: eventLoop)
        thread.begin { [eventLoop] in
            let problem = store.damage(from: from, to: to)
            eventLoop.execute {
                let (pump, rail) = bound.value, (attachment, head) = result.value
                pump.begin(attachment, on: rail, head: head, upTo: to, problem)
            }
        }
    }

    private func begin(
        _ attachment: LogRail.Attachment, on rail: LogRail, head: LSN, upTo end: LSN, _ problem: TwinLogError?
    ) {
        guard rail === self.rail, let queuePair = rail.queuePair else { return }
        if let problem {
            shared.appends.failForEver(problem)
            shared.trims.failForEver(problem)
            return stop()
        }
        attached = Attached(
            queuePair: queuePair, key: attachment.key,
            session: MirrorSession(durable: attachment.durable, mirrorHead: head, head: head))
        catchUpEnd = end
        pump()
    }

    private func completed(through id: WorkRequestID) {
        guard attached?.session.completed(through: id) == true else { return }
        lastProgress = .now()
        pump()
    }

    // MARK: The pump

    /// Moves everything that can move. Called whenever a number may have changed.
    func pump() {
        guard var attached else { return }
        do throws(RemoteMemoryError) {
            defer { self.attached = attached }
            try attached.session.post(
                store.log, upTo: store.log.published, head: store.log.head, to: attached.queuePair, key: attached.key)
        } catch {
            // No credit: the next completion pumps again. Anything else: the rail ends.
        }
        if !shared.isMirrored, attached.session.durable >= catchUpEnd { shared.isWhole() }
        promise(mirror: attached.session.durable)
        store.reclaim(upTo: min(store.log.head, attached.session.mirrorHead))
        shared.trims.reached(attached.session.mirrorHead)
    }

    private func promise(mirror: LSN) {
        do throws(TwinLogError) {
            let durable = try store.durable
            let reached = min(durable, mirror)
            // Ends of appends: where the mirror is within one, that one is not promised.
            if reached == durable { store.promise(upTo: reached) }
            if let end = shared.appends.reached(reached) { store.promise(upTo: end) }
        } catch {
            shared.appends.failForEver(error)
        }
    }
}
