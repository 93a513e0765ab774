// Fences that are tried in order until one confirms.

public import LogModel

public struct FenceChain: Fence {
    private let fences: [any Fence]

    public init(_ fences: [any Fence]) {
        precondition(!fences.isEmpty, "the configuration was checked")
        self.fences = fences
    }

    public func confirmDead(
        _ process: ProcessIdentity, by node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        try confirmDead(process, by: node, failed: { _ in })
    }

    public func confirmDead(
        _ process: ProcessIdentity, by node: NodeID, failed: (FenceError) -> Void
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        var reasons: [String] = []
        for fence in fences {
            do throws(FenceError) {
                return try fence.confirmDead(process, by: node)
            } catch {
                failed(error)
                reasons.append(error.message)
            }
        }
        throw FenceError(reasons.joined(separator: "; then "))
    }

    public var endsProcesses: Bool { fences.allSatisfy(\.endsProcesses) }

    public func isGone(_ process: ProcessIdentity) throws(FenceError) -> Bool { try fences[0].isGone(process) }

    public func confirmEnded(
        predecessor: ProcessIdentity, of node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation? {
        try fences[0].confirmEnded(predecessor: predecessor, of: node)
    }
}
