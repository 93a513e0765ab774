// What confirms that a process writes no more (S16, S18).

public import LogModel

/// Thread-safe. Blocks.
public protocol Fence: Sendable {
    /// Makes the process end, or finds it ended; returns when that is certain, with the confirmation. Throws if it is not.
    func confirmDead(_ process: ProcessIdentity, by node: NodeID) throws(FenceError) -> GroupRecord.Fence.Confirmation

    /// As above; tells of each attempt that failed, the last one too.
    func confirmDead(
        _ process: ProcessIdentity, by node: NodeID, failed: (FenceError) -> Void
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation

    /// Whether the process is certainly gone, without touching it. One that cannot be seen from here is not.
    func isGone(_ process: ProcessIdentity) throws(FenceError) -> Bool

    /// True if it ends processes, on other hosts too: one where nobody listens any more may be ended before its group is claimed. A fence
    /// that keeps a process from the medium must come after the claim, and one that reaches this host alone sees the death itself.
    var endsProcesses: Bool { get }

    /// For an earlier process of `node` that cannot be seen from here (a container that was started anew has another PID namespace):
    /// it would hold the lock of the pool, which this process has, so it has ended. `nil`: it can be seen, and proves nothing so. Were it
    /// another copy of the pool, it would still hold the medium's lock, which is taken next.
    func confirmEnded(predecessor: ProcessIdentity, of node: NodeID) throws(FenceError)
        -> GroupRecord.Fence.Confirmation?
}

extension Fence {
    public var endsProcesses: Bool { false }

    public func confirmDead(
        _ process: ProcessIdentity, by node: NodeID, failed: (FenceError) -> Void
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        do throws(FenceError) {
            return try confirmDead(process, by: node)
        } catch {
            failed(error)
            throw error
        }
    }
}

public struct FenceError: Error, Hashable, Sendable, CustomStringConvertible {
    public var message: String
    public init(_ message: String) { self.message = message }
    public var description: String { message }
}
