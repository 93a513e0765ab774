// What every command takes, and how one fails.

import ArgumentParser
import ClusterConfiguration
import HostProcess
import LogModel

struct Failure: ProgramError {
    var code: ErrorCode
    var message: String
    var next: String?
    var isInAnswer = false

    init(_ code: ErrorCode, _ message: String, next: String? = nil) {
        self.code = code
        self.message = message
        self.next = next
    }
}

struct GlobalOptions: ParsableArguments {
    @Option(help: "The cluster's configuration file.")
    var config: String?

    func load() throws -> ClusterConfiguration {
        guard let config else { throw ValidationError("--config FILE is missing") }
        do {
            return try ClusterConfiguration.load(path: config)
        } catch {
            throw Failure(.configuration, error.description)
        }
    }

    /// Another command for the same cluster.
    func command(_ words: String) -> String {
        (["twinlog"] + (config.map { ["--config", $0] } ?? []) + [words]).joined(separator: " ")
    }
}

extension ClusterConfiguration {
    func checked(group name: String) throws(Failure) -> Group {
        guard let group = group(GroupID(name)) else {
            throw Failure(
                .usage, "there is no group '\(name)'; there are \(groups.map(\.id.rawValue).joined(separator: ", "))")
        }
        return group
    }

    func checked(node name: String) throws(Failure) -> Node {
        guard let node = node(NodeID(name)) else {
            throw Failure(
                .usage, "there is no node '\(name)'; there are \(nodes.map(\.id.rawValue).joined(separator: ", "))")
        }
        return node
    }

    /// Of the nodes that may own the group.
    func checked(node name: String, of group: Group) throws(Failure) -> Node {
        let node = try checked(node: name)
        guard group.includes(node.id) else {
            throw Failure(
                .usage, "\(name) takes no part in group \(group.id); \(group.home) and \(group.mirror) do")
        }
        return node
    }
}
