// twinlog: what an operator sees and does. Exit codes: 0 done, 1 refused or failed, 2 usage or configuration, 3 (status) while a
// group could not be taken over right now, 4 output could not be written.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import Coordination
import Foundation
import HostProcess
import LogModel

@main
struct Twinlog: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlog", abstract: "Watch and steer a TwinLog cluster.", version: TwinLogVersion.current,
        subcommands: [
            Status.self, Handover.self, Takeover.self, Drain.self, Events.self, CheckConfig.self,
            ForgetCoordinator.self, ConfirmDead.self, InitKeys.self, LogLevel.self,
        ])

    @OptionGroup var global: GlobalOptions

    static func main() { runAsProgram(arrange: arrange) }

    /// `--config FILE` may stand before the subcommand or after it.
    private static func arrange(_ arguments: [String]) -> [String] {
        guard let first = arguments.first else { return arguments }
        if first == "--config", arguments.count > 2 {
            return [arguments[2]] + arguments.dropFirst(3) + ["--config", arguments[1]]
        }
        if first.hasPrefix("--config="), arguments.count > 1 {
            return [arguments[1]] + arguments.dropFirst(2) + [first]
        }
        return arguments
    }
}

struct Failure: ProgramError {
    var message: String
    var exitCode: Int32 = ProgramExit.failed
}

struct GlobalOptions: ParsableArguments {
    @Option(help: "The cluster's configuration file.")
    var config: String?

    func load() throws -> ClusterConfiguration {
        guard let config else { throw ValidationError("--config FILE is missing") }
        do {
            return try ClusterConfiguration.load(path: config)
        } catch {
            throw Failure(message: error.description, exitCode: ProgramExit.usage)
        }
    }
}

extension ClusterConfiguration {
    func checked(group name: String) throws -> Group {
        guard let group = group(GroupID(name)) else {
            throw Failure(
                message: "there is no group '\(name)'; there are \(groups.map(\.id.rawValue).joined(separator: ", "))")
        }
        return group
    }

    func checked(node name: String) throws -> Node {
        guard let node = node(NodeID(name)) else {
            throw Failure(
                message: "there is no node '\(name)'; there are \(nodes.map(\.id.rawValue).joined(separator: ", "))")
        }
        return node
    }
}

/// Commands take as long as a drain does.
let commandTimeoutMillis = 120_000

func carryOut(_ request: AdminRequest, on node: ClusterConfiguration.Node) throws {
    do {
        switch try AdminClient.ask(request, at: node.adminPath, timeoutMillis: commandTimeoutMillis) {
        case .done: return
        case .refused(let reason): throw Failure(message: "\(node.id) refuses: \(reason)")
        case .status, .clients, .events: throw Failure(message: "\(node.id) answered something else than was asked")
        }
    } catch let error as AdminClientError {
        throw Failure(message: "\(node.id): \(error)")
    }
}

struct Handover: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Move a group to another node, with nothing lost.")
    @OptionGroup var global: GlobalOptions
    @Argument var group: String
    @Option(help: "The node that gets it.") var to: String

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        _ = try configuration.checked(node: to)
        let owner = try ClusterView(configuration).owner(of: target)
        try carryOut(.handover(group: group, to: to), on: owner)
        try StandardOutput.line("\(group): handed over to \(to)")
    }
}

struct Takeover: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a node take a group over now; the old owner is fenced.")
    @OptionGroup var global: GlobalOptions
    @Argument var group: String
    @Option(help: "The node that takes it.") var on: String
    @Flag(help: "Even if its log is out of sync: acknowledged writes may be lost.") var force = false

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        let node = try configuration.checked(node: on)
        if force {
            try StandardOutput.line(ClusterView(configuration).lossOfForcing(target, on: node))
            try StandardOutput.flush()
        }
        try carryOut(.takeover(group: group, on: on, force: force), on: node)
        try StandardOutput.line("\(group): taken over by \(on)")
    }
}

struct Drain: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Destage everything that is in a group's log now.")
    @OptionGroup var global: GlobalOptions
    @Argument var group: String

    func run() throws {
        let configuration = try global.load()
        let owner = try ClusterView(configuration).owner(of: try configuration.checked(group: group))
        try carryOut(.drain(group: group), on: owner)
        try StandardOutput.line("\(group): destaged")
    }
}

struct CheckConfig: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Check the configuration file.")
    @OptionGroup var global: GlobalOptions

    func run() throws {
        let configuration = try global.load()
        try StandardOutput.line(
            "\(configuration.cluster): \(configuration.nodes.count) nodes, \(configuration.groups.count) groups, no complaint"
        )
    }
}

struct ForgetCoordinator: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "forget-coordinator",
        abstract: "Decide that a node's pool is right where the coordinator knows less.")
    @OptionGroup var global: GlobalOptions
    @Argument var group: String
    @Option(help: "The node whose pool is right; needed if more than one waits for the decision.") var on: String?
    @Flag(help: "Do not ask.") var yes = false

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        let node =
            try on.map { try configuration.checked(node: $0) } ?? ClusterView(configuration).blockedNode(of: target)
        try StandardOutput.line(ClusterView(configuration).lossOfForcing(target, on: node))
        if !yes {
            try StandardOutput.text(
                "The log in \(node.id)'s pool becomes the truth of \(group); what another copy or the coordinator knows beyond it is lost. Type yes to go on: "
            )
            try StandardOutput.flush()
            guard readLine() == "yes" else { throw Failure(message: "nothing was changed") }
        }
        try carryOut(.forgetCoordinator(group: group), on: node)
        try StandardOutput.line("\(group): \(node.id)'s pool is the truth now")
    }
}

struct ConfirmDead: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "confirm-dead",
        abstract:
            "Say that what ran on a node is dead, where no fence can confirm it; the record keeps who said so and when."
    )
    @OptionGroup var global: GlobalOptions
    @Argument(help: "The node whose processes have ended.") var node: String
    @Flag(help: "Do not ask.") var yes = false

    func run() throws {
        let configuration = try global.load()
        let dead = try configuration.checked(node: node).id
        let groups = configuration.groups(of: dead)
        if !yes {
            try StandardOutput.text(
                "If a process of \(dead) still runs anywhere and reaches a medium of \(groups.map(\.id.rawValue).joined(separator: ", ")), acknowledged data will be overwritten. "
                    + "Make sure that the machine is off, or that its processes have ended. Type yes to go on: ")
            try StandardOutput.flush()
            guard readLine() == "yes" else { throw Failure(message: "nothing was changed") }
        }
        let by = "\(NSUserName())@\(ProcessInfo.processInfo.hostName)"
        let at = Date.now.formatted(.iso8601)
        var refusals: [String] = []
        var recorded: [String] = []
        for group in groups {
            let request = AdminRequest.confirmDead(group: group.id.rawValue, node: node, by: by, at: at)
            do {
                try confirm(request, of: group, configuration)
                recorded.append(group.id.rawValue)
            } catch let failure as Failure {
                refusals.append("\(group.id): \(failure.message)")
            }
        }
        guard !recorded.isEmpty else { throw Failure(message: refusals.joined(separator: "\n")) }
        try StandardOutput.line("\(recorded.joined(separator: ", ")): recorded that \(dead) is dead, by \(by)")
    }

    /// Whichever node of the group answers first and takes it.
    private func confirm(
        _ request: AdminRequest, of group: ClusterConfiguration.Group, _ configuration: ClusterConfiguration
    ) throws {
        var failures: [String] = []
        for member in configuration.nodes where group.includes(member.id) {
            do {
                return try carryOut(request, on: member)
            } catch let failure as Failure {
                failures.append(failure.message)
            }
        }
        throw Failure(message: failures.joined(separator: "; "))
    }
}

struct LogLevel: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log-level", abstract: "Set how much nodes log, until they end or read their configuration again.")
    @OptionGroup var global: GlobalOptions
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
        var failures: [String] = []
        for node in nodes {
            do {
                try carryOut(.logLevel(level), on: node)
                try StandardOutput.line("\(node.id): logs \(level) and above")
            } catch let failure as Failure {
                failures.append(failure.message)
            }
        }
        if !failures.isEmpty { throw Failure(message: failures.joined(separator: "\n")) }
    }
}

struct InitKeys: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init-keys",
        abstract: "Make the secret that the nodes of a cluster prove themselves with (security: {psk-file: FILE}).")
    @Argument(help: "The file to make, mode 0600; one that is there is not overwritten.") var file: String

    func run() throws {
        do throws(SecretError) {
            try SecretFile.create(file)
        } catch {
            throw Failure(message: error.description)
        }
        try StandardOutput.line("\(file): made; every node of the cluster needs a copy")
    }
}
