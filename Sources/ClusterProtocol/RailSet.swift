// Which of the rails to its mirror an owner uses: the session is on one of them, the others stand by. Pure; the shell dials, closes and
// sends what the steps say.
//
// Every rail that is up carries heartbeats of its own, which the mirror answers. A rail is judged against another one only: it is left
// when the mirror has answered there what was sent `patience` later than the last that it answered here. So neither a mirror that sleeps
// nor an owner that does moves anything, and a rail that is cut, loses one direction or crawls is told by one rule. While clients wait for
// what the session has sent, ticks are too rare: the owner looks every few milliseconds, asks on all rails at once, and leaves the session's
// when another one has answered and it has not. A rail that was left, or could not be made, is tried again after pauses that grow; an owner
// without a session tries all of them at once.

public struct RailSet: Sendable {
    public enum State: Hashable, Sendable {
        case down(until: Nanos)
        case dialing
        case standby
        case session
    }

    public struct Rail: Sendable {
        public fileprivate(set) var state = State.down(until: 0)
        public fileprivate(set) var since: Nanos
        fileprivate var upSince: Nanos = 0
        /// When the newest heartbeat was sent on it, and the newest that was answered.
        fileprivate var sent: Nanos?
        fileprivate var answered: Nanos?
        /// When the session last completed something on it.
        fileprivate var progressedAt: Nanos?
        /// When the last answer came; before the first one, since when it is up.
        fileprivate var heardAt: Nanos = 0
        public fileprivate(set) var roundTrip: Nanos?
        /// The longest round trip of late; an answer takes an eighth off it.
        fileprivate var slowest: Nanos = 0
        public fileprivate(set) var lastError: String?
        public fileprivate(set) var dials: UInt64 = 0
        /// How long it is left alone when it fails next.
        fileprivate var pause: Nanos

        public var isUp: Bool {
            switch state {
            case .standby, .session: true
            case .down, .dialing: false
            }
        }
    }

    public enum Step: Hashable, Sendable {
        case dial(Int)
        case sendHeartbeat(Int, sent: Nanos)
        case close(Int)
        /// The session begins on a rail that is up.
        case begin(Int)
        /// The session goes on over another rail. The one that it was on is closed.
        case move(from: Int, to: Int)
        /// There is no rail for the session.
        case lost
    }

    /// Asked on every rail between two ticks, because the session's gave no sign of life.
    private struct Question {
        let sent: Nanos
        /// Until when the session's rail may answer, once another one has.
        var deadline: Nanos?
    }

    public private(set) var rails: [Rail]
    /// The session's rail is asked for and not there yet.
    public private(set) var isWanted = false
    private let interval: Nanos
    private let timeout: Nanos
    private var lastTick: Nanos
    private var question: Question?

    public init(count: Int, heartbeatInterval: Nanos, heartbeatTimeout: Nanos, now: Nanos) {
        interval = heartbeatInterval
        timeout = heartbeatTimeout
        lastTick = now
        rails = (0..<count).map { _ in Rail(since: now, pause: heartbeatTimeout) }
    }

    /// The longest that a rail is left alone: what an operator who has mended it waits for without a thought.
    public static let longestPause: Nanos = 30_000_000_000

    /// How much later another rail must have been heard. Two intervals of the timeout are left for the tick that notices and for the attach;
    /// less than two would take one late answer for a fault.
    var patience: Nanos { max(2 * interval, timeout - min(timeout, 2 * interval)) }

    /// While the session waits for the mirror, its rail is looked at so often.
    public static let glanceInterval: Nanos = 10_000_000

    /// What a link of 100 Mbit/s takes for a byte of what is under way, headers included.
    static let slowByte: Nanos = 100

    /// How long the session's rail may be without a sign of life before it is asked, and answer later than another one. Rails that are slow
    /// by nature, or carry much, get more than a glance, none more than `patience`.
    private func quickPatience(_ session: Int, _ other: Int, bytesInFlight: Int) -> Nanos {
        let usual = max(Self.glanceInterval, 4 * max(rails[session].slowest, rails[other].slowest))
        return min(patience, usual + Nanos(bytesInFlight) * Self.slowByte)
    }

    /// Whether the session could go on over another rail.
    public var hasAlternative: Bool { session != nil && best() != nil }

    public var session: Int? { rails.firstIndex { $0.state == .session } }

    // MARK: What the machine asks for

    /// A rail for the session: one that stands by, or else whichever can be made first.
    public mutating func want(_ now: Nanos) -> [Step] {
        if let rail = best() ?? rails.firstIndex(where: { $0.state == .standby }) {
            become(.session, rail, now)
            return [.begin(rail)]
        }
        isWanted = true
        return rails.indices.compactMap { dial($0, now) }
    }

    /// The session ends, which says nothing of its rail.
    public mutating func endSession(_ now: Nanos) -> [Step] {
        isWanted = false
        guard let session else { return [] }
        become(.down(until: now), session, now)
        return [.close(session)]
    }

    /// This node owns nothing any more.
    public mutating func end(_ now: Nanos) -> [Step] {
        isWanted = false
        let open = rails.indices.filter { rails[$0].isUp }
        for rail in rails.indices { become(.down(until: now), rail, now) }
        return open.map { .close($0) }
    }

    // MARK: What becomes of the rails

    /// One that was dialled is up.
    public mutating func connected(_ rail: Int, _ now: Nanos) -> [Step] {
        guard rails[rail].state == .dialing else { return [.close(rail)] }
        rails[rail].heardAt = now
        rails[rail].sent = nil
        rails[rail].answered = nil
        rails[rail].roundTrip = nil
        become(isWanted ? .session : .standby, rail, now)
        guard isWanted else { return [] }
        isWanted = false
        return [.begin(rail)]
    }

    /// One that was dialled did not come about, or one that was up has ended by itself.
    public mutating func failed(_ rail: Int, _ error: String, _ now: Nanos) -> [Step] {
        let wasSession = rails[rail].state == .session
        leave(rail, error, now)
        if wasSession {
            guard let other = best() else { return [.lost] }
            become(.session, other, now)
            return [.move(from: rail, to: other)]
        }
        guard isWanted, !rails.contains(where: { $0.state == .dialing }) else { return [] }
        isWanted = false
        return [.lost]
    }

    /// The mirror has completed what the session asked for.
    public mutating func progressed(_ now: Nanos) {
        if let session { rails[session].progressedAt = now }
    }

    /// The mirror answers the heartbeat that was sent on `rail` at `sent`.
    public mutating func answered(_ rail: Int, sent: Nanos, _ now: Nanos) {
        guard rails[rail].isUp, sent <= min(now, rails[rail].sent ?? 0),
            sent >= rails[rail].answered ?? rails[rail].upSince
        else { return }
        rails[rail].answered = sent
        rails[rail].heardAt = now
        rails[rail].roundTrip = now - sent
        rails[rail].slowest = max(now - sent, rails[rail].slowest - rails[rail].slowest / 8)
    }

    // MARK: Time

    public mutating func tick(_ now: Nanos) -> [Step] {
        let slept = now >= lastTick + timeout
        lastTick = now
        if slept { for rail in rails.indices { rails[rail].heardAt = now } }
        var steps = judgeSession(now)
        for rail in rails.indices where rails[rail].state == .standby && now >= rails[rail].heardAt + timeout {
            leave(rail, "no heartbeat was answered for \(timeout / 1_000_000) ms", now)
            steps.append(.close(rail))
        }
        if session != nil {
            steps += rails.indices.compactMap { rail in isDue(rail, now) ? dial(rail, now) : nil }
        }
        return steps + sendHeartbeats(now)
    }

    /// Every `glanceInterval` while the session has requests that the mirror has not completed, of so many bytes.
    public mutating func glance(_ now: Nanos, bytesInFlight: Int) -> [Step] {
        guard let session, let other = best() else {
            question = nil
            return []
        }
        let patience = quickPatience(session, other, bytesInFlight: bytesInFlight)
        let sign = max(rails[session].progressedAt ?? rails[session].since, rails[session].heardAt)
        guard let asked = question, asked.sent > sign else {
            question = nil
            guard now >= sign + patience else { return [] }
            question = Question(sent: now)
            return sendHeartbeats(now)
        }
        guard let deadline = asked.deadline else {
            if rails[other].answered ?? 0 >= asked.sent { question?.deadline = now + patience }
            return []
        }
        guard now >= deadline else { return [] }
        return move(
            from: session, to: other,
            "it has answered nothing for \((now - sign) / 1_000_000) ms, and another rail has", now)
    }

    private mutating func judgeSession(_ now: Nanos) -> [Step] {
        guard let session, let other = best(), let heard = rails[other].answered,
            heard >= (rails[session].answered ?? rails[session].since) + patience
        else { return [] }
        // Its heartbeats wait behind what it carries, those of the other one behind nothing.
        if let progressedAt = rails[session].progressedAt, now < progressedAt + patience { return [] }
        let late = (heard - (rails[session].answered ?? rails[session].since)) / 1_000_000
        return move(
            from: session, to: other, "its heartbeats are answered \(late) ms later than those of another rail", now)
    }

    private mutating func move(from session: Int, to other: Int, _ reason: String, _ now: Nanos) -> [Step] {
        leave(session, reason, now)
        become(.session, other, now)
        return [.move(from: session, to: other)]
    }

    private mutating func sendHeartbeats(_ now: Nanos) -> [Step] {
        let up = rails.indices.filter { rails[$0].isUp }
        for rail in up { rails[rail].sent = now }
        return up.map { .sendHeartbeat($0, sent: now) }
    }

    // MARK: Choosing and leaving

    /// The rail that stands by and was heard of last; none before its first answer.
    private func best() -> Int? {
        rails.indices.filter { rails[$0].state == .standby && rails[$0].answered != nil }
            .max { (rails[$0].answered ?? 0, $1) < (rails[$1].answered ?? 0, $0) }
    }

    private func isDue(_ rail: Int, _ now: Nanos) -> Bool {
        guard case .down(let until) = rails[rail].state else { return false }
        return now >= until
    }

    private mutating func dial(_ rail: Int, _ now: Nanos) -> Step? {
        guard case .down = rails[rail].state else { return nil }
        rails[rail].dials += 1
        become(.dialing, rail, now)
        return .dial(rail)
    }

    /// A rail that held for longer than the longest pause begins with the shortest one again, and so does one that fails beside no other that
    /// is up: that may be the mirror's doing.
    private mutating func leave(_ rail: Int, _ error: String, _ now: Nanos) {
        let held = rails[rail].isUp && now >= rails[rail].upSince + Self.longestPause
        let isToBlame = rails.indices.contains { $0 != rail && rails[$0].isUp }
        if held || !isToBlame { rails[rail].pause = timeout }
        rails[rail].lastError = error
        become(.down(until: now + rails[rail].pause), rail, now)
        if isToBlame { rails[rail].pause = min(2 * rails[rail].pause, max(Self.longestPause, timeout)) }
    }

    private mutating func become(_ state: State, _ rail: Int, _ now: Nanos) {
        if !rails[rail].isUp { rails[rail].upSince = now }
        rails[rail].progressedAt = nil
        rails[rail].state = state
        rails[rail].since = now
    }
}
