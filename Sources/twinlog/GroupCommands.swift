// What moves a group or empties its log.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import HostProcess
import LogModel

struct Handover: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Move a group to another node, with nothing lost.")
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @Argument(help: "The group.") var group: String
    @Option(help: "The node that gets it.") var to: String

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        _ = try configuration.checked(node: to)
        let owner = try ClusterView(configuration).owner(of: target)
        try LastingCommand(on: owner, of: target, configuration, global, answer)
            .carryOut(.handover(group: group, to: to))
        try answer.show(GroupAnswer(group: group, node: to, result: .handedOver), "\(group): handed over to \(to)")
    }
}

struct Takeover: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a node take a group over now; the old owner is fenced.")
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @OptionGroup var decision: DecisionOptions
    @Argument(help: "The group.") var group: String
    @Option(help: "The node that takes it.") var on: String
    @Flag(help: "Even if its log is out of sync: acknowledged writes may be lost.") var force = false

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        let node = try configuration.checked(node: on)
        let consequences = consequences(of: ClusterView(configuration), target, node)
        guard !decision.dryRun else {
            return try answer.show(
                GroupAnswer(group: group, node: on, result: .dryRun, consequences: consequences),
                (["\(on) would take over \(group):"] + consequences).joined(separator: "\n"))
        }
        if force { try decision.confirm(.onTerminal, consequences, answer) }
        try LastingCommand(on: node, of: target, configuration, global, answer)
            .carryOut(.takeover(group: group, on: on, force: force))
        try answer.show(
            GroupAnswer(group: group, node: on, result: .takenOver, consequences: force ? consequences : nil),
            "\(group): taken over by \(on)")
    }

    private func consequences(
        of view: ClusterView, _ group: ClusterConfiguration.Group, _ node: ClusterConfiguration.Node
    ) -> [String] {
        let fence = "\(group.peer(of: node.id)) is fenced: if it owns the group, its process ends"
        return [fence] + (force ? [view.lossOfForcing(group, on: node)] : [])
    }
}

struct Drain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Destage everything that is in a group's log now.",
        discussion: """
            Says what it waits for as long as it lasts. A medium that takes nothing ends it with the reason; the node goes on trying, \
            and `wait GROUP --for drained` waits for that.
            """)
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @Argument(help: "The group.") var group: String

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        let owner = try ClusterView(configuration).owner(of: target)
        try LastingCommand(on: owner, of: target, configuration, global, answer)
            .carryOut(.drain(group: group), orElse: global.command("wait \(group) --for drained"))
        try answer.show(
            GroupAnswer(group: group, node: owner.id.rawValue, result: .drained), "\(group): destaged")
    }
}
