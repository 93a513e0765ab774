// A fence agent (FenceAgentAPI of ClusterLabs): a program that turns a node off. It is told what to do in lines `key=value` on its standard input,
// and answers by its exit code. `off` must end with 0, and then `status` with 2, which means off: an agent that says that it turned a node off
// is not believed alone. Whatever else happens, a hang above all, is no confirmation (S18).

public import Coordination
internal import Foundation
internal import Glibc
public import LogModel
internal import Synchronization

public final class CommandFence: Fence {
    public struct Command: Sendable {
        /// The program, a path or a name in PATH, and its arguments.
        public var run: [String]
        public var options: [String: String]
        /// Told for one node, before `options`.
        public var optionsOfNodes: [NodeID: [String: String]]
        /// Of each run.
        public var timeoutMillis: UInt64

        public init(
            run: [String], options: [String: String] = [:], optionsOfNodes: [NodeID: [String: String]] = [:],
            timeoutMillis: UInt64
        ) {
            self.run = run
            self.options = options
            self.optionsOfNodes = optionsOfNodes
            self.timeoutMillis = timeoutMillis
        }
    }

    /// After a failure the agent rests: a takeover tries again ten times a second, and what turns machines off is slow.
    private let restNanos: UInt64

    private struct Failure {
        var error: FenceError
        var at: UInt64
    }

    private let command: Command
    private let failures = Mutex<[NodeID: Failure]>([:])
    private let look = KillingFence()

    public convenience init(_ command: Command) { self.init(command, restNanos: 2_000_000_000) }

    init(_ command: Command, restNanos: UInt64) {
        self.command = command
        self.restNanos = restNanos
    }

    /// Whether the agent can be started, for a configuration's check: `nil` if so.
    public static func problem(withProgram program: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
        let places = program.contains("/") ? [program] : path.split(separator: ":").map { "\($0)/\(program)" }
        if places.contains(where: { access($0, X_OK) == 0 }) { return nil }
        return program.contains("/")
            ? "\(program): \(String(cString: strerror(errno)))" : "\(program) is not in PATH (\(path))"
    }

    // MARK: Turning off

    public var endsProcesses: Bool { true }

    public func confirmDead(
        _ process: ProcessIdentity, by node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        // A node does not turn itself off. An earlier process of its own is on this machine, or unseen and refused.
        if process.node == node { return try look.confirmDead(process, by: node) }
        if let failure = failures.withLock({ $0[process.node] }), BootClock.now - failure.at < restNanos {
            throw failure.error
        }
        do throws(FenceError) {
            try turnOff(process.node)
        } catch {
            failures.withLock { $0[process.node] = Failure(error: error, at: BootClock.now) }
            throw error
        }
        failures.withLock { $0[process.node] = nil }
        return GroupRecord.Fence.Confirmation(
            method: name, by: node.rawValue, at: Date.now.formatted(.iso8601))
    }

    private var name: String { String(command.run[0].split(separator: "/").last ?? "command") }

    private static let isOff: Int32 = 2

    private func turnOff(_ node: NodeID) throws(FenceError) {
        let off = try answer("off", node)
        guard off.exit == .code(0) else { throw refusal("off", off, node) }
        let status = try answer("status", node)
        guard status.exit == .code(Self.isOff) else {
            // The agent's word against its own.
            throw refusal("status", status, node, "after it had turned \(node) off")
        }
    }

    private func answer(_ action: String, _ node: NodeID) throws(FenceError) -> AgentAnswer {
        let input = input(action, node)
        guard input.utf8.count <= AgentProgram.maximumInputBytes else {
            throw FenceError("\(name): options of \(input.utf8.count) bytes are too long")
        }
        do throws(AgentError) {
            return try AgentProgram(words: command.run).run(input: input, timeoutMillis: command.timeoutMillis)
        } catch {
            throw FenceError("\(name): \(error)")
        }
    }

    /// Agents take the node's name for what they turn off unless an option tells otherwise.
    private func input(_ action: String, _ node: NodeID) -> String {
        var options = ["nodename": node.rawValue]
        options.merge(command.options) { $1 }
        options.merge(command.optionsOfNodes[node] ?? [:]) { $1 }
        options["action"] = action
        return options.sorted { $0.key < $1.key }.map { "\($0)=\($1)\n" }.joined()
    }

    /// The options are not told: a password may be among them (S22).
    private func refusal(_ action: String, _ answer: AgentAnswer, _ node: NodeID, _ when: String? = nil) -> FenceError {
        let ended =
            switch answer.exit {
            case .code(let code): "ended with \(code)"
            case .signal(let number): "was ended by signal \(number)"
            case .timedOut: "did not end within \(command.timeoutMillis) ms"
            }
        let said = answer.output.isEmpty ? "" : ": \(answer.output)"
        return FenceError(
            "\(name) \(action) for \(node) \(ended)\(when.map { " \($0)" } ?? "")\(said); if \(node) is known to be off, say so with "
                + "`twinlog confirm-dead \(node)`")
    }

    // MARK: Looking

    public func isGone(_ process: ProcessIdentity) throws(FenceError) -> Bool { try look.isGone(process) }

    public func confirmEnded(
        predecessor: ProcessIdentity, of node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation? {
        try look.confirmEnded(predecessor: predecessor, of: node)
    }
}
