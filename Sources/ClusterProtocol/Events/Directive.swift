// What a group's machine asks for: one small enum for each receiver. They are carried out in the order in which they are given.

public import Coordination
public import LogModel

public enum Directive: Hashable, Sendable {
    case coordinator(CoordinatorCall)
    /// On the rail that this group shares with a partner.
    case rail(NodeID, RailDirective)
    case step(StepDirective)
    case serving(ServingDirective)
    case region(RegionDirective)
    case report(Report)
    /// The command that was given is done, or refused with a reason.
    case commandDone(Command, CommandID, refusal: String?)
    /// ``Command/stop`` is complete.
    case stopped
}

public enum CoordinatorCall: Hashable, Sendable {
    case read
    case swap(expecting: UInt64, to: GroupRecord)
}

public enum RailDirective: Hashable, Sendable {
    case dial
    case close
    case sendAttach(epoch: Epoch, counts: Bool)
    /// Mirror: prepare the region, register it under a key for this epoch and tell the owner where it is. `generation` is noted in a
    /// region that is begun anew.
    case acceptAttach(AttachRequest, generation: UInt64)
    case refuseAttach(AttachRequest, AttachRefusal, String)
    case sendHeartbeat(Heartbeat)
    /// Tell the partner to read the record.
    case tellRecordChanged
}

/// What may block; each ends in a ``StepAnswer``.
public enum StepDirective: Hashable, Sendable {
    case fence([ProcessIdentity])
    /// `expected`: the identities that the record knows, by volume.
    case lockMedia(expected: [String: UUID128])
    case sealRegion
    /// Replay all of the region and flush; or, with `askingFirst`, read it and say `tailInDoubt`.
    case recover(askingFirst: Bool)
    /// Archive the region's log and write nothing of it (S9). Then `recovered`, with where it ended.
    case setLogAside
    /// Begin `incarnation` in this node's region as owner, from the recovered end on, and note `generation` there.
    case openLog(Incarnation, logUUID: UUID128, start: LSN, generation: UInt64)
    case releaseMedia
    /// This process is about to be fenced: hand its other groups over, then say `evacuated`.
    case evacuate
}

/// For the owner's log and its clients.
public enum ServingDirective: Hashable, Sendable {
    /// Accept requests, or go on after `suspend`.
    case serve
    /// The lease ran out: acknowledge, read and destage nothing until `serve`, or `stop`.
    case suspend
    /// Ownership is gone or given away: close the clients' connections without answers.
    case stop
    /// Evaluate acknowledgements again: the rule or a number changed.
    case acknowledge
    /// Take no new requests and destage everything, then say `drained`.
    case drain
}

/// For this node's own region of the group.
public enum RegionDirective: Hashable, Sendable {
    /// The coordinator has counted this start: note so.
    case confirmStart
    /// Make it durable that this epoch was seen, then say `epochNoted` (S20).
    case noteEpoch(Epoch)
}
