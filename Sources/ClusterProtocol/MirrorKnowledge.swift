// What an owner knows of its mirror's copy while no session with it is open. Pure.
//
// It is true of the one copy that the last session was with: it ends with the next session, whatever pool that is with, and as soon as
// the record does not count that copy (S13). A pool that was lost and begun anew would else be believed to hold what the one
// before it held, and writes would be acknowledged on its word (S1).

public import LogModel

public struct MirrorKnowledge: Sendable {
    private let start: LSN
    private let shipBytes: UInt64
    private var detached: (durable: LSN, head: LSN)?

    /// Of a log that begins at `start`, and of which a WRITE carries `shipBytes` at most.
    public init(start: LSN, shipBytes: UInt64 = MirrorSession.maximumShipBytes) {
        self.start = start
        self.shipBytes = shipBytes
    }

    /// The mirror says that it holds everything below `durable`. Of its head nothing is known before it is told one: whatever an
    /// earlier session knew was true of another region.
    public func session(durable: LSN, head: LSN) -> MirrorSession {
        MirrorSession(durable: durable, mirrorHead: start, head: head, shipBytes: shipBytes)
    }

    public mutating func ended(_ session: MirrorSession) {
        detached = (session.durable, session.mirrorHead)
    }

    /// The record does not count the mirror.
    public mutating func notCounted() { detached = nil }

    /// `nil` while nothing is known of a copy that the record counts: what needs the mirror waits then.
    public func durable(_ session: MirrorSession?) -> LSN? { session?.durable ?? detached?.durable }

    public func head(_ session: MirrorSession?) -> LSN { session?.mirrorHead ?? detached?.head ?? start }
}
