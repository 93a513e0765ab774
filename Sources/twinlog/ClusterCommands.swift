// What concerns the configuration and all nodes rather than one group.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import Coordination
import HostProcess
import LogModel

struct LogLevel: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log-level", abstract: "Set how much nodes log, until they end or read their configuration again.")
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @Argument(help: "One of \(ClusterConfiguration.Log.levels.joined(separator: ", ")).") var level: String
    @Option(help: "The node; else all of them.") var on: String?

    func validate() throws {
        guard ClusterConfiguration.Log.levels.contains(level) else {
            throw ValidationError(
                "'\(level)' is not one of \(ClusterConfiguration.Log.levels.joined(separator: ", "))")
        }
    }

    func run() throws {
        let configuration = try global.load()
        let nodes = try on.map { [try configuration.checked(node: $0)] } ?? configuration.nodes
        var report = Report(level: level)
        var failures: [Failure] = []
        for node in nodes {
            do throws(Failure) {
                try set(node)
                report.nodes.append(node.id.rawValue)
            } catch {
                failures.append(error)
            }
        }
        let failure = failures.first.map { Failure($0.code, failures.map(\.message).joined(separator: "\n")) }
        try answer.show(
            report, report.nodes.map { "\($0): logs \(level) and above" }.joined(separator: "\n"), failure: failure)
    }

    private func set(_ node: ClusterConfiguration.Node) throws(Failure) {
        let response: AdminResponse
        do throws(AdminClientError) {
            response = try AdminClient.ask(.logLevel(level), at: node.adminPath, timeoutMillis: statusTimeoutMillis)
        } catch {
            throw Failure(error.code, "\(node.id): \(error)")
        }
        switch response {
        case .done: return
        case .refused(let reason): throw Failure(.refused, "\(node.id) refuses: \(reason)")
        case .status, .clients, .events, .configuration:
            throw Failure(.failed, "\(node.id) answered something else than was asked")
        }
    }

    private struct Report: Encodable {
        var level: String
        /// Those that have it now.
        var nodes: [String] = []
    }
}

struct InitKeys: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init-keys",
        abstract: "Make the secret that the nodes of a cluster prove themselves with (security: {psk-file: FILE}).")
    @OptionGroup var answer: AnswerOptions
    @Argument(help: "The file to make, mode 0600; one that is there is not overwritten.") var file: String

    func run() throws {
        do throws(SecretError) {
            try SecretFile.create(file)
        } catch {
            throw Failure(.failed, error.description)
        }
        try answer.show(["file": file], "\(file): made; every node of the cluster needs a copy")
    }
}
