// Values that belong to the partners of a group, one each, in the order of the partners' names.

internal import LogModel

/// A group has one partner at least, nearly always just one: the first value stands inline, so that a state that holds these changes
/// without an allocation (the data path reports its numbers through one).
struct Members<Value: Sendable>: Sendable {
    private let firstNode: NodeID
    private let otherNodes: [NodeID]
    private(set) var first: Value
    private var others: [Value]

    /// Precondition: `nodes` is not empty, and names each node once.
    init(_ nodes: [NodeID], _ value: (NodeID) -> Value) {
        let sorted = nodes.sorted()
        precondition(!sorted.isEmpty && Set(sorted).count == sorted.count, "a group has partners, each named once")
        firstNode = sorted[0]
        otherNodes = Array(sorted.dropFirst())
        first = value(firstNode)
        others = otherNodes.map(value)
    }

    var count: Int { 1 + others.count }

    func node(_ index: Int) -> NodeID { index == 0 ? firstNode : otherNodes[index - 1] }

    var nodes: [NodeID] { [firstNode] + otherNodes }

    subscript(index: Int) -> Value {
        get { index == 0 ? first : others[index - 1] }
        _modify {
            if index == 0 { yield &first } else { yield &others[index - 1] }
        }
    }

    /// `nil` for a node that is no partner.
    func index(of node: NodeID) -> Int? {
        if node == firstNode { return 0 }
        return otherNodes.firstIndex(of: node).map { $0 + 1 }
    }
}
