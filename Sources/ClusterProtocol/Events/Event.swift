// What a group's machine is told: one small enum for each sender. See GroupMachine.swift.

public import Coordination
public import LogModel

public enum Event: Sendable {
    /// The pool is open, and this start is counted there; `local` is `nil` if the group's region was never written. First event.
    case started(local: LocalLog?, LocalStanding)
    /// Time passes; at least every heartbeat interval.
    case tick
    case coordinator(CoordinatorAnswer)
    /// From the rail that this group shares with a partner.
    case rail(NodeID, RailEvent)
    /// Owner: the numbers of the session with one mirror, when they moved and with every tick. What is durable here and there, and the
    /// oldest request that the mirror was sent and has not completed.
    case progress(local: LSN, of: NodeID, durable: LSN, pending: UInt64?)
    case step(StepAnswer)
    case medium(MediumEvent)
    case region(RegionEvent)
    case command(Command, CommandID)
}

public enum CoordinatorAnswer: Sendable {
    /// The answer to ``CoordinatorCall/read``, and to nothing else.
    case recordRead(GroupRecord?)
    /// The answer to ``CoordinatorCall/swap(expecting:to:)``.
    case swapped(SwapOutcome)
    /// The call failed: nothing was changed, and nothing will be by that call.
    case unavailable(String)
    /// A renewal that began at `startedAt` has been announced, and *after that* the group's record was read.
    case renewed(startedAt: Nanos, record: GroupRecord?)
    /// What the coordinator, asked at `askedAt`, knew of a partner's life, and a process of the partner that is known to be gone.
    case presence(of: NodeID, Presence?, deadProcess: ProcessIdentity?, askedAt: Nanos)
}

public enum RailEvent: Sendable {
    /// Owner: the rail that ``RailDirective/dial`` asked for is up. Mirror: what ``RailDirective/acceptAttach(_:generation:)`` accepted is
    /// the group's rail from now on.
    case up
    case down
    /// Mirror: every rail has ended, and the partner's host refuses connections wherever the partner listens: the host lives, and nothing
    /// says that the process does.
    case nobodyListens
    /// Owner: the session goes on over another rail, which is up; nothing of the old one counts any more.
    case moved
    /// Anything arrived, on whichever rail.
    case heard
    /// Mirror: its owner has sent a heartbeat on a rail that stands by.
    case heardBeside(isSuspended: Bool)
    /// What the partner says of itself.
    case said(Heartbeat)
    /// The partner says that the record has changed.
    case recordChanged
    /// Mirror: an owner asks to attach.
    case attachRequested(AttachRequest)
    /// Owner: the mirror holds everything below `durable`.
    case attached(durable: LSN, MirrorContents)
    case attachRefused(AttachRefusal, String)
}

/// How a step ended that a ``StepDirective`` or ``ServingDirective`` began.
public enum StepAnswer: Sendable {
    /// Of the processes that `fence` named these are confirmed dead; `problem` is why others are not, and is to be tried again.
    case fenced([GroupRecord.Fence], problem: String?)
    /// The locked media's identities, by volume; of those that carry one.
    case mediaLocked([String: UUID128])
    /// No copy into the region is in progress any more, and no key opens it.
    case sealed
    /// Everything in the region is on the medium and flushed. `end` is where the old log ended.
    case recovered(end: LSN)
    case logOpened
    /// The step failed and may be tried again.
    case failed(String)
    /// Recovery found corrupt records, which it must not step over (S5).
    case logCorrupt(String)
    /// Recovery cannot go on for another reason that trying again does not change: a volume that is not configured.
    case refused(String)
    /// `recover(askingFirst: true)` has read the log and written nothing: what it held beyond its end it cannot know (S5).
    case tailInDoubt(String)
    /// The medium refuses this node, since another has taken it (S18): what the claim was for is over.
    case mediumTaken(String)
    /// Every record of the log is on the medium, and the head has moved past it.
    case drained
    case mediaReleased
    /// The process' other groups have left it, as far as they could.
    case evacuated
}

public enum MediumEvent: Sendable {
    /// Owner: what keeps batches from the medium now, `nil` if nothing does. Said before every tick.
    case trouble(MediumTrouble?)
    /// Standby: why this node could not take the group over now, `nil` if it could. Said when it is known, and when it changes.
    case takeoverProblem(String?)
    /// Owner: the medium refuses this node's writes, since another has taken it (S18).
    case taken(String)
}

/// From this node's own region of the group.
public enum RegionEvent: Sendable {
    /// The epoch that ``RegionDirective/noteEpoch(_:)`` named is durable.
    case epochNoted(Epoch)
    /// Its memory has failed: nothing that is stored there may be called durable any more (S26). Said again with every tick for as long
    /// as the process lives.
    case memoryFailed(String)
}
