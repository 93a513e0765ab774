// What only an operator can know, and nobody can take back.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import Foundation
import HostProcess
import LogModel

struct ForgetCoordinator: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forget-coordinator",
        abstract: "Decide that a node's pool is right where the coordinator knows less.")
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @OptionGroup var decision: DecisionOptions
    @Argument(help: "The group.") var group: String
    @Option(help: "The node whose pool is right; needed if more than one waits for the decision.") var on: String?

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        let view = ClusterView(configuration)
        let node = try on.map { try configuration.checked(node: $0) } ?? view.blockedNode(of: target)
        let consequences = [
            "the log in \(node.id)'s pool becomes the truth of \(group); what another copy or the coordinator knows beyond it is lost",
            view.lossOfForcing(target, on: node),
        ]
        guard !decision.dryRun else {
            return try answer.show(
                GroupAnswer(
                    group: group, node: node.id.rawValue, result: .dryRun, consequences: consequences),
                consequences.joined(separator: "\n"))
        }
        try decision.confirm(.always, consequences, answer)
        try LastingCommand(on: node, of: target, configuration, global, answer)
            .carryOut(.forgetCoordinator(group: group))
        try answer.show(
            GroupAnswer(group: group, node: node.id.rawValue, result: .decided, consequences: consequences),
            "\(group): \(node.id)'s pool is the truth now")
    }
}

struct ConfirmDead: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "confirm-dead",
        abstract:
            "Say that what ran on a node is dead, where no fence can confirm it; the record keeps who said so and when."
    )
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @OptionGroup var decision: DecisionOptions
    @Argument(help: "The node whose processes have ended.") var node: String

    func run() throws {
        let configuration = try global.load()
        let dead = try configuration.checked(node: node).id
        let groups = configuration.groups(of: dead)
        let by = "\(NSUserName())@\(ProcessInfo.processInfo.hostName)"
        let at = Date.now.formatted(.iso8601)
        let names = groups.map(\.id.rawValue).joined(separator: ", ")
        let consequences = [
            "if a process of \(dead) still runs anywhere and reaches a medium of \(names), acknowledged data will be overwritten: make "
                + "sure that the machine is off, or that its processes have ended",
            "the record of \(names) keeps that \(by) said so at \(at)",
        ]
        var report = Report(
            node: node, by: by, at: at, isDryRun: decision.dryRun, consequences: consequences)
        guard !decision.dryRun else {
            return try answer.show(report, consequences.joined(separator: "\n"))
        }
        try decision.confirm(.always, consequences, answer)
        for group in groups {
            do {
                try confirm(
                    AdminRequest.confirmDead(group: group.id.rawValue, node: node, by: by, at: at), group, configuration
                )
                report.recorded.append(group.id.rawValue)
            } catch let failure as Failure where failure.code != .interrupted {
                report.refused.append(Report.Refusal(group: group.id.rawValue, message: failure.message))
            }
        }
        try answer.show(report, report.text, failure: report.failure)
    }

    /// Whichever node of the group answers first and takes it.
    private func confirm(
        _ request: AdminRequest, _ group: ClusterConfiguration.Group, _ configuration: ClusterConfiguration
    ) throws {
        var failures: [String] = []
        for member in configuration.nodes where group.includes(member.id) {
            do {
                return try LastingCommand(on: member, of: group, configuration, global, answer).carryOut(request)
            } catch let failure as Failure where failure.code != .interrupted {
                failures.append(failure.message)
            }
        }
        throw Failure(.refused, failures.joined(separator: "; "))
    }

    private struct Report: Encodable {
        struct Refusal: Encodable {
            var group: String
            var message: String
        }
        var node: String
        var by: String
        var at: String
        /// Groups whose record keeps it.
        var recorded: [String] = []
        var refused: [Refusal] = []
        var isDryRun: Bool
        var consequences: [String]

        private enum CodingKeys: String, CodingKey {
            case node, by, at, recorded, refused, consequences
            case isDryRun = "dryRun"
        }

        var text: String {
            recorded.isEmpty ? "" : "\(recorded.joined(separator: ", ")): recorded that \(node) is dead, by \(by)"
        }

        /// A group that does not wait for this node refuses, which is none as long as another one took it.
        var failure: Failure? {
            guard recorded.isEmpty else { return nil }
            return Failure(.refused, refused.map { "\($0.group): \($0.message)" }.joined(separator: "\n"))
        }
    }
}
