// twinlog check-config: the file by itself, or with `--node` all that the node would find on this machine. Exit code 2 if the file is
// wrong, 1 if what it says is not so here.

import ArgumentParser
import ClusterConfiguration
import HostProcess
import LogModel
import NodeNeeds

struct CheckConfig: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check-config",
        abstract:
            "Check the configuration file and, with --node, what that node can reach from here; nothing is changed.")
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @Option(help: "The node that this machine, and the user who asks, would run.") var node: String?

    func run() throws {
        let configuration = try global.load()
        if let node { return try check(configuration.checked(node: node), of: configuration) }
        let (nodes, groups) = (configuration.nodes.count, configuration.groups.count)
        try answer.show(
            Report(cluster: configuration.cluster, nodes: nodes, groups: groups),
            "\(configuration.cluster): \(nodes) nodes, \(groups) groups, no complaint")
    }

    private func check(_ node: ClusterConfiguration.Node, of configuration: ClusterConfiguration) throws {
        let check = NodeCheck(configuration, node: node, descriptorLimit: ProcessLimits.mostDescriptors)
        let report = NodeReport(
            cluster: configuration.cluster, node: node.id.rawValue, problems: check.problems.map(Problem.init),
            remarks: check.remarks)
        guard check.problems.isEmpty else {
            let lines = check.problems.map(\.description) + check.remarks
            return try answer.show(report, "", failure: Failure(.failed, lines.joined(separator: "\n")))
        }
        let text = ["\(configuration.cluster): \(node.id): no complaint"] + check.remarks
        try answer.show(report, text.joined(separator: "; "))
    }

    private struct Report: Encodable {
        var cluster: String
        var nodes: Int
        var groups: Int
    }

    private struct NodeReport: Encodable {
        var cluster: String
        var node: String
        var problems: [Problem]
        var remarks: [String]
    }

    private struct Problem: Encodable {
        var file: String
        var line: Int
        var key: String
        var reason: String

        init(_ problem: ConfigurationError) {
            (file, line, key, reason) = (problem.file, problem.line, problem.key, problem.reason)
        }
    }
}
