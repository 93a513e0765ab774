// Who owns what: the contract that every coordinator keeps. Calls block (files, network), so they are made on a thread
// of their own, never on an event loop. `CoordinatorContract` in the tests is what every implementation must pass.

public import LogModel

public enum SwapOutcome: Hashable, Sendable {
    /// The record is now the given one, durably.
    case won
    /// Somebody else swapped first (or the expectation was wrong): this is the record now, `nil` if there is none. The given one
    /// was not installed and never will be.
    case lost(GroupRecord?)
    /// Nobody knows, for this reason. It may be in effect, and it may *still* come into effect, however often the old record is read meanwhile,
    /// until a later swap from the same expectation has won or lost: before acting as if it had failed, win one.
    case unknown(String)
}

/// A coordinator could not answer, or answered something that cannot be trusted. A swap that throws was not made and never will
/// be.
public struct CoordinationError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        case unreachable
        /// A record that cannot be parsed, has an impossible value, or is of a newer format (S21).
        case invalidRecord
    }
    public var code: Code
    public var message: String
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
    public var description: String { message }
}

/// Thread-safe. Every call may block for as long as the coordinator's storage does.
public protocol Coordinator: Sendable {
    /// The group's record, or `nil` if the group has never been created. Linearizable: never older than what a swap that was won, or
    /// a read that was answered, anywhere, before this call began.
    func read(_ group: GroupID) throws(CoordinationError) -> GroupRecord?

    /// Durable compare-and-swap: installs `record` if the current version is `expected` (0: no record yet). Throws `invalidRecord` for a
    /// record that could not be read back. Precondition: `record.version == expected + 1`.
    func swap(expecting expected: UInt64, to record: GroupRecord) throws(CoordinationError) -> SwapOutcome

    /// Renews this node's sign of life. Needs no space that an earlier one did not have.
    func announce(_ presence: Presence) throws(CoordinationError)

    /// The last sign of life of `node`, `nil` if it never gave one.
    func presence(of node: NodeID) throws(CoordinationError) -> Presence?

    /// Renews this node's sign of life and *then* reads the records of `groups`: one that cannot be read is no fault of the others.
    func renew(
        _ presence: Presence, reading groups: [GroupID]
    ) throws(CoordinationError) -> [GroupID: Result<GroupRecord?, CoordinationError>]

    /// The last signs of life of those of `nodes` that gave one.
    func presences(
        of nodes: Set<NodeID>
    ) throws(CoordinationError) -> [NodeID: Result<Presence, CoordinationError>]
}

/// For a coordinator that each request costs little: one after another.
extension Coordinator {
    public func renew(
        _ presence: Presence, reading groups: [GroupID]
    ) throws(CoordinationError) -> [GroupID: Result<GroupRecord?, CoordinationError>] {
        try announce(presence)
        var records: [GroupID: Result<GroupRecord?, CoordinationError>] = [:]
        for group in groups {
            do throws(CoordinationError) {
                records[group] = .success(try read(group))
            } catch {
                records[group] = .failure(error)
            }
        }
        return records
    }

    public func presences(
        of nodes: Set<NodeID>
    ) throws(CoordinationError) -> [NodeID: Result<Presence, CoordinationError>] {
        var presences: [NodeID: Result<Presence, CoordinationError>] = [:]
        for node in nodes {
            do throws(CoordinationError) {
                if let presence = try presence(of: node) { presences[node] = .success(presence) }
            } catch {
                presences[node] = .failure(error)
            }
        }
        return presences
    }
}
