// The ways to a logical unit: an iSCSI session of this process' own, or a block device of this host.

internal import SCSICommands

/// A way that can be lost, and made anew.
protocol UnitPath: SCSIDevice {
    /// Makes the way if there is none. Answers which one it is: what was found out over an earlier one may not hold any more.
    @discardableResult
    func connect() throws(SCSIError) -> UInt64

    /// Ends the way, with what waits on it.
    func disconnect()
}

enum UnitUse {
    /// And what changes no blocks.
    case reading
    /// As the only writer on this host.
    case writing
}
