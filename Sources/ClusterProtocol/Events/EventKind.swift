// What a node tells its operator: a stable kind, and a sentence. `docs/EVENTS.md` says of each kind what to do.

/// The word that stands in events, logs and JSON. Stable: scripts compare it.
public enum EventKind: String, Hashable, Sendable, CaseIterable {
    // MARK: The node

    /// A node's process has started.
    case started
    /// The process was asked to end: it hands over, destages and leaves.
    case stopping
    /// An operator changed the log's level.
    case logLevel = "log-level"
    /// A peer's configuration differs in what must be equal; nobody mirrors (S27).
    case configurationDiffers = "configuration-differs"
    /// The peer that differed has this node's configuration now.
    case configurationAgrees = "configuration-agrees"
    /// The pool's name is gone or leads to another file.
    case poolUnnamed = "pool-unnamed"
    /// The pool's name leads to the pool in use again.
    case poolNamed = "pool-named"
    /// Something outside of TwinLog changed the pool's head; it was written anew.
    case poolRestored = "pool-restored"
    /// The pool's head was changed and could not be written anew.
    case poolDamaged = "pool-damaged"

    // MARK: Ownership

    /// This node won a claim: it recovers the group, then serves.
    case claimed
    /// This node owns the group and serves it.
    case published
    /// The owner is silent on the rail and at the coordinator; this node claims the group (S16).
    case suspect
    /// The record names another owner or epoch, or the medium refuses this node: it serves no more (S15, S18).
    case ownershipLost = "ownership-lost"
    /// The lease ran out before the coordinator answered: nothing is acknowledged (S17).
    case leaseLost = "lease-lost"
    /// The lease is renewed; the owner serves again.
    case leaseRegained = "lease-regained"
    /// Nothing here goes on without an operator.
    case blocked
    /// This node owns the group and has lost its log: its partner takes over (S20).
    case amnesia

    // MARK: Taking over

    /// A step of a takeover failed and is tried again, the fence above all (S16).
    case takeoverWaits = "takeover-waits"
    /// A process that could still write is confirmed to have ended, or to be shut out of the media (S16, S18).
    case fenced
    /// A fence did not confirm that a process has ended; the next one is tried, or the same one again (S18).
    case fenceFailed = "fence-failed"
    /// A standby cannot reach what it would need to take over (S18).
    case takeoverImpossible = "takeover-impossible"
    /// The standby reaches the media of the group again.
    case takeoverPossible = "takeover-possible"
    /// A crash left the log's end uncertain: the partner's copy is asked for first (S5).
    case tailInDoubt = "tail-in-doubt"
    /// The partner lives: its log decides, and it gets the group.
    case leftToPartner = "left-to-partner"
    /// The partner did not come in time: the log here decides, and a torn tail is discarded.
    case decidedAlone = "decided-alone"
    /// The log here is damaged; the partner holds everything and gets the group (S5).
    case logCorrupt = "log-corrupt"
    /// A claim was held up; the partner holds everything and gets the group.
    case claimGivenBack = "claim-given-back"
    /// The partner was given the group and did not claim it; this node claims it back.
    case notTaken = "not-taken"
    /// `twinlog-recover` wrote this log to the medium; it is not written again.
    case alreadyReplayed = "already-replayed"
    /// The log here is older than the medium may be: it is archived and not replayed (S9).
    case logSetAside = "log-set-aside"

    // MARK: The mirror

    /// The mirror takes the owner's log.
    case mirrorAttached = "mirror-attached"
    /// This node mirrors the owner's log.
    case mirroring
    /// The mirror is in sync: it can take over (S14).
    case mirrored
    /// The mirror is silent, or completes nothing; acknowledgements wait.
    case mirrorLost = "mirror-lost"
    /// The mirror is counted out (S13). With `on-mirror-loss: degrade` one copy is enough.
    case degraded
    /// The mirror came back without what it held: it is counted out first (S13, S20).
    case mirrorAmnesia = "mirror-amnesia"
    /// The partner does not mirror, for the reason that it gives.
    case attachRefused = "attach-refused"
    /// The partner refuses rails, or whoever answers in its place is none (S27).
    case railRefused = "rail-refused"
    /// The session left a rail that fails for another one, without a record lost or carried out twice (S11, S12).
    case railMoved = "rail-moved"
    /// The owner sent other bytes for a good record: they are not stored (S5).
    case mirrorConflict = "mirror-conflict"
    /// A log that was set aside may hold acknowledged writes that are on no medium.
    case logHeldMore = "log-held-more"

    // MARK: Handing over and stopping

    /// An operator's handover begins: drain, then the partner gets the group.
    case handingOver = "handing-over"
    /// The partner gets the group.
    case handedOver = "handed-over"
    /// A handover went back to serving.
    case handoverAborted = "handover-aborted"
    /// The medium did not take the log in time: the partner gets the group and replays its own.
    case handoverUndrained = "handover-undrained"
    /// A stop left records in the log, for the next start.
    case stoppedUndrained = "stopped-undrained"
    /// A call of the medium does not return: the partner ends this process.
    case releaseHangs = "release-hangs"

    // MARK: The medium

    /// Batches do not reach the medium: the partner gets the group, or the reason says why not.
    case mediumFailed = "medium-failed"
    /// The medium has no space left; the log fills.
    case mediumFull = "medium-full"
    /// Batches reach the medium again.
    case mediumRecovered = "medium-recovered"
    /// One batch did not reach the medium; it is written anew from the log (S8).
    case destageFailed = "destage-failed"

    // MARK: The log

    /// Memory of the pool has failed (S26).
    case memoryFailed = "memory-failed"
    /// The log could not be made durable.
    case persistFailed = "persist-failed"
    /// The log's memory fails: the partner gets the group, or nothing is acknowledged any more (S26).
    case logFailed = "log-failed"
    /// A writer stopped in the middle of an append; nothing above is acknowledged.
    case appendStalled = "append-stalled"
    /// A record fails its checks.
    case recordDamaged = "record-damaged"
    /// A damaged record was healed from the mirror.
    case recordHealed = "record-healed"
    /// A record that the mirror lacks is damaged in every copy; the mirror is dialed again later.
    case catchUpStopped = "catch-up-stopped"
    /// The scrub found a damaged record in one copy and healed it.
    case scrubHealed = "scrub-healed"
    /// A record is damaged in both copies.
    case scrubDamaged = "scrub-damaged"
    /// What was healed could not be made durable.
    case healFailed = "heal-failed"
}

public struct Report: Hashable, Sendable {
    /// What programs tell apart among events of one kind.
    public enum Cause: Hashable, Sendable {
        /// `mirror-lost`: the mirror lives and completes nothing.
        case mirrorIsStuck
        /// `medium-failed`: the partner gets the group.
        case groupIsLeft
        /// `medium-failed`: the group stays, because it was moved for its medium before.
        case movedBefore
        /// `blocked`: the coordinator knows less than this node's pool (S20).
        case coordinatorForgot
        /// `blocked`: the log here is corrupt, and no other copy is complete.
        case logIsCorrupt
    }

    public var kind: EventKind
    public var cause: Cause?
    public var message: String

    public init(_ kind: EventKind, cause: Cause? = nil, _ message: String) {
        self.kind = kind
        self.cause = cause
        self.message = message
    }
}
