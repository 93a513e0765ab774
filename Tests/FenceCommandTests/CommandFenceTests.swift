// Fence agents that work, refuse, lie, hang and chatter: only `off` with 0 and then `status` with 2 is a confirmation (S18).

import Coordination
@testable import FenceCommand
import Foundation
import Glibc
import LogModel
import TestSupport
import Testing

struct CommandFenceTests {
    private let folder: Folder
    private let agent: String

    init() throws {
        folder = try Folder()
        agent = folder.file("fence_test")
    }

    /// An agent that writes down what it is told, and does `off` and `status` as the shell says it.
    private func makeAgent(off: String, status: String) throws {
        let script = """
            #!/bin/sh
            cat > "$0.told"
            action=$(sed -n 's/^action=//p' "$0.told")
            cat "$0.told" >> "$0.log"
            case "$action" in
            off) \(off) ;;
            status) \(status) ;;
            *) exit 9 ;;
            esac
            """
        try put(script, into: agent)
        try #require(chmod(agent, 0o700) == 0)
    }

    private func fence(
        options: [String: String] = [:], of nodes: [NodeID: [String: String]] = [:], timeoutMillis: UInt64 = 30_000,
        restNanos: UInt64 = 0
    ) -> CommandFence {
        CommandFence(
            CommandFence.Command(run: [agent], options: options, optionsOfNodes: nodes, timeoutMillis: timeoutMillis),
            restNanos: restNanos)
    }

    private let victim = ProcessIdentity(node: NodeID("beta"), pid: 77, startTicks: 1, bootID: "b", hostID: "h")
    private let me = NodeID("alpha")

    private var told: [String] {
        get throws {
            guard FileManager.default.fileExists(atPath: agent + ".log") else { return [] }
            return String(decoding: try contents(of: agent + ".log"), as: UTF8.self).split(separator: "\n")
                .map(String.init)
        }
    }

    @Test("S18: off, then seen off: the agent is told its options, a node's own first, and confirms by name")
    func confirmed() throws {
        try makeAgent(off: "exit 0", status: "exit 2")
        let fence = fence(
            options: ["ip": "10.0.0.9", "lanplus": "1"],
            of: [NodeID("beta"): ["ip": "10.0.0.2"], me: ["ip": "10.0.0.1"]])
        let confirmation = try fence.confirmDead(victim, by: me)
        #expect(confirmation.method == "fence_test" && confirmation.by == "alpha")
        let options = ["ip=10.0.0.2", "lanplus=1", "nodename=beta"]
        #expect(try told == ["action=off"] + options + ["action=status"] + options)
    }

    @Test("An agent inherits no descriptor of this process, which it may outlive")
    func inheritsNothing() throws {
        let open = fcntl(STDERR_FILENO, F_DUPFD, 200)
        try #require(open >= 200)
        defer { close(open) }
        try makeAgent(off: "test ! -e /proc/self/fd/\(open)", status: "exit 2")
        #expect(try fence().confirmDead(victim, by: me).method == "fence_test")
    }

    static let denials: [(off: String, status: String, reason: String)] = [
        ("exit 1", "exit 2", "off for beta ended with 1"),
        ("exit 2", "exit 2", "off for beta ended with 2"),
        ("kill -9 $$", "exit 2", "off for beta was ended by signal 9"),
        ("exit 0", "exit 0", "status for beta ended with 0"),
        ("exit 0", "exit 1", "status for beta ended with 1"),
        ("exit 0", "kill -2 $$", "status for beta was ended by signal 2"),
        ("echo no power; echo at all >&2; exit 1", "exit 2", "no power / at all"),
    ]

    @Test("S18: an agent that fails, or lies and is found out, confirms nothing", arguments: denials.indices)
    func denied(_ index: Int) throws {
        let (off, status, reason) = Self.denials[index]
        try makeAgent(off: off, status: status)
        let error = #expect(throws: FenceError.self) {
            try fence(options: ["password": "hunter2"]).confirmDead(victim, by: me)
        }
        let message = try #require(error?.message)
        #expect(message.contains(reason) && message.contains("twinlog confirm-dead beta"), "\(message)")
        #expect(!message.contains("hunter2"))
    }

    @Test("S18: an agent that hangs confirms nothing, and nothing of it goes on", arguments: ["off", "status"])
    func hangs(in action: String) async throws {
        let hang = #"sleep 1000 & echo $! > "$0.child"; wait"#
        try makeAgent(off: action == "off" ? hang : "exit 0", status: action == "status" ? hang : "exit 2")
        let error = #expect(throws: FenceError.self) { try fence(timeoutMillis: 1500).confirmDead(victim, by: me) }
        #expect(error?.message.contains("\(action) for beta did not end within 1500 ms") == true)
        let text = String(decoding: try contents(of: agent + ".child"), as: UTF8.self)
        let child = try #require(Int32(text.prefix { $0.isNumber }))
        // It was killed, which takes effect when the kernel runs it. A zombie waits for whoever reaps orphans.
        let isGone = try await eventually {
            let status = try? String(contentsOfFile: "/proc/\(child)/stat", encoding: .utf8)
            return status == nil || status?.contains(") Z ") == true || status?.contains("sleep") == false
        }
        #expect(isGone)
    }

    @Test(
        "an agent may chatter, read nothing, or leave something behind that holds its outputs open",
        arguments: [
            "head -c 1000000 /dev/zero | tr '\\0' x; exit 0", "sleep 1000 & exit 0",
        ]) func chatters(_ off: String) throws
    {
        try makeAgent(off: off, status: "exit 2")
        _ = try fence().confirmDead(victim, by: me)
        try put("#!/bin/sh\nexit 1\n", into: agent)
        let error = #expect(throws: FenceError.self) {
            try fence(options: ["x": String(repeating: "x", count: 30_000)]).confirmDead(victim, by: me)
        }
        #expect(error?.message.contains("ended with 1") == true)
    }

    @Test("an agent that failed rests before it is asked again; one that flaps confirms when it works")
    func rests() throws {
        try makeAgent(off: "exit 1", status: "exit 2")
        let patient = fence(restNanos: 3_600_000_000_000)
        for _ in 0..<3 { #expect(throws: FenceError.self) { try patient.confirmDead(victim, by: me) } }
        #expect(try told.count { $0 == "action=off" } == 1)
        let other = ProcessIdentity(node: NodeID("gamma"), pid: 77, startTicks: 1, bootID: "b")
        #expect(throws: FenceError.self) { try patient.confirmDead(other, by: me) }
        #expect(try told.count { $0 == "action=off" } == 2)
        let flapping = fence()
        #expect(throws: FenceError.self) { try flapping.confirmDead(victim, by: me) }
        try makeAgent(off: "exit 0", status: "exit 2")
        _ = try flapping.confirmDead(victim, by: me)
    }

    @Test("a node does not turn itself off")
    func itself() throws {
        try makeAgent(off: "exit 0", status: "exit 2")
        #expect(throws: FenceError.self) { try fence().confirmDead(victim, by: NodeID("beta")) }
        #expect(try told.isEmpty)
    }

    @Test("S18: an earlier process of a node, which ended on this machine, is confirmed without the agent")
    func ownPredecessor() throws {
        try makeAgent(off: "exit 0", status: "exit 2")
        var predecessor = try ProcessIdentity.current(node: NodeID("beta"))
        predecessor.startTicks -= 1
        #expect(try fence().confirmDead(predecessor, by: NodeID("beta")).method == "process")
        #expect(try told.isEmpty)
    }

    @Test("an agent that is not there is named, by the check of a configuration too")
    func missing() throws {
        let error = #expect(throws: FenceError.self) { try fence().confirmDead(victim, by: me) }
        #expect(error?.message.contains("\(agent) cannot be started") == true)
        #expect(CommandFence.problem(withProgram: agent)?.contains(agent) == true)
        #expect(CommandFence.problem(withProgram: "fence_nowhere")?.contains("is not in PATH") == true)
        #expect(CommandFence.problem(withProgram: "sh") == nil && CommandFence.problem(withProgram: "/bin/sh") == nil)
    }

    @Test("S18: several fences are tried in order, each failure is told, and one confirmation is enough")
    func chain() throws {
        try makeAgent(off: "exit 1", status: "exit 2")
        let refusing = fence()
        let working = folder.file("fence_second")
        try put("#!/bin/sh\ngrep -q action=off && exit 0\nexit 2\n", into: working)
        try #require(chmod(working, 0o700) == 0)
        let second = CommandFence(CommandFence.Command(run: [working], timeoutMillis: 30_000))
        var failures: [String] = []
        let confirmation = try FenceChain([KillingFence(), refusing, second])
            .confirmDead(victim, by: me) { failures.append($0.message) }
        #expect(confirmation.method == "fence_second" && failures.count == 2)
        #expect(failures[0].contains("another host") && failures[1].contains("fence_test off"))
        failures = []
        let error = #expect(throws: FenceError.self) {
            try FenceChain([refusing, refusing]).confirmDead(victim, by: me) { failures.append($0.message) }
        }
        #expect(failures.count == 2 && error?.message.contains("; then fence_test off") == true)
    }
}
