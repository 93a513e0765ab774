// Requests of a group that are not carried out yet: writes that wait for space in the log (S6), and anything that waits
// because the group is not served at the moment. What a connection has not got issued when it ends is dropped (S24).

internal import ClusterProtocol
internal import DequeModule
internal import LogModel
internal import NIOCore
internal import WriteLog

/// Whose requests wait.
protocol WaitingSession: AnyObject {
    var volume: VolumeID { get }
    /// Payload bytes of its requests that wait.
    var parkedBytes: Int { get set }
    var onUnparked: (() -> Void)? { get }
    /// Its client sends nothing more.
    var isInputEnded: Bool { get }
    /// Nothing is answered any more.
    var isClosed: Bool { get }
    /// Ownership is gone.
    func revoked()
}

/// Whom to tell that a write is acknowledged.
struct WriteAnswer {
    let session: any WaitingSession
    let completion: VolumeCompletion

    func give() {
        if !session.isClosed { completion(.success(nil)) }
    }
}

/// One write, discard or write-zeroes on its way into the log.
struct WaitingRequest {
    enum Kind { case data(ByteBuffer), discard, writeZeroes(keepSpace: Bool) }
    let session: any WaitingSession
    let volume: VolumeID
    let offset: UInt64
    let lengthBytes: UInt64
    let kind: Kind
    let arrived: Nanos
    let completion: VolumeCompletion
    var issuedBytes: UInt64 = 0

    var answer: WriteAnswer { WriteAnswer(session: session, completion: completion) }

    var isData: Bool { if case .data = kind { true } else { false } }
    var payloadBytes: Int { if case .data(let buffer) = kind { buffer.readableBytes } else { 0 } }

    /// So much is stored and shipped in one turn of the loop, about a third of a millisecond; other groups and connections have theirs
    /// before the next (S28).
    static let turnBytes: UInt64 = 256 << 10
    /// A request up to this size is one write, all or none (S7); of a larger one each turn's part is.
    static let wholeBytes: UInt64 = 1 << 20

    func maximumPieceBytes(of log: WriteLog) -> UInt64 {
        guard case .data = kind else { return UInt64(UInt32.max) / 4096 * 4096 }
        let most = lengthBytes <= Self.wholeBytes ? Self.wholeBytes : Self.turnBytes
        return min(UInt64(log.maximumWriteBytes), most)
    }

    func withPayload<Result>(at start: UInt64, length: UInt64, _ body: (WriteLog.Payload) -> Result) -> Result {
        switch kind {
        case .data(let buffer):
            buffer.withUnsafeReadableBytes { bytes in
                body(.data(UnsafeRawBufferPointer(rebasing: bytes[Int(start)..<Int(start + length)])))
            }
        case .discard: body(.discard(length: length))
        case .writeZeroes(let keepSpace): body(.writeZeroes(length: length, keepSpace: keepSpace))
        }
    }
}

final class RequestQueue {
    private var waiting: Deque<WaitingRequest> = []
    /// Reads and flushes that came while nothing may be answered.
    private var held: [(session: any WaitingSession, start: () -> Void)] = []
    private var opening: [Opening] = []
    private var nextOpening: UInt64 = 1
    private var sessions: [ObjectIdentifier: any WaitingSession] = [:]

    /// A session that is to begin once everything below `at` is acknowledged and none of `ahead` is left (S24).
    private struct Opening {
        let id: UInt64
        var at: LSN
        /// Those whose clients send nothing more, but may have requests that are not issued.
        var ahead: Set<ObjectIdentifier>
        let ready: (Bool) -> Void
    }

    var isEmpty: Bool { waiting.isEmpty }

    func enter(_ session: any WaitingSession) { sessions[ObjectIdentifier(session)] = session }

    func enqueue(_ request: WaitingRequest) {
        request.session.parkedBytes += request.payloadBytes
        waiting.append(request)
    }

    func hold(_ session: any WaitingSession, _ start: @escaping () -> Void) { held.append((session, start)) }

    /// Lets `issue` append the oldest request; answers whether it went in whole and there may be a next one.
    func issueNext(_ issue: (inout WaitingRequest) -> Bool) -> Bool {
        guard !waiting.isEmpty, issue(&waiting[0]) else { return false }
        let first = waiting.removeFirst()
        first.session.parkedBytes -= first.payloadBytes
        first.session.onUnparked?()
        return true
    }

    /// Answers are allowed again.
    func startHeld() {
        guard !held.isEmpty else { return }
        let ready = held
        held = []
        for entry in ready { entry.start() }
    }

    /// Calls `ready` once everything below `lsn` is acknowledged, and everything that clients of `volume` sent before they ended their
    /// input (S24); with false if ownership is lost before. Returns what gives it up.
    func open(
        _ volume: VolumeID, at lsn: LSN, acknowledged: LSN, ready: @escaping (Bool) -> Void
    ) -> () -> Void {
        let ahead = sessions.filter { $0.value.isInputEnded && $0.value.volume == volume }.keys
        guard lsn > acknowledged || !ahead.isEmpty else {
            ready(true)
            return {}
        }
        let id = nextOpening
        nextOpening += 1
        opening.append(Opening(id: id, at: lsn, ahead: Set(ahead), ready: ready))
        return { [weak self] in self?.opening.removeAll { $0.id == id } }
    }

    func sessionsMayOpen(_ acknowledged: LSN) {
        guard !opening.isEmpty else { return }
        let ready = opening.filter { $0.ahead.isEmpty && $0.at <= acknowledged }
        opening.removeAll { $0.ahead.isEmpty && $0.at <= acknowledged }
        for entry in ready { entry.ready(true) }
    }

    /// `tail` is where the log ends now: what `session` has got issued is below.
    func leave(_ session: any WaitingSession, tail: LSN) {
        sessions[ObjectIdentifier(session)] = nil
        waiting.removeAll { $0.session === session }
        held.removeAll { $0.session === session }
        session.parkedBytes = 0
        for index in opening.indices where opening[index].ahead.remove(ObjectIdentifier(session)) != nil {
            opening[index].at = tail
        }
    }

    func revoke() {
        let gone = sessions.values
        sessions = [:]
        waiting.removeAll()
        held = []
        let unopened = opening
        opening = []
        for entry in unopened { entry.ready(false) }
        for session in gone { session.revoked() }
    }
}
