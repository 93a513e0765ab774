// The cluster as its nodes tell it, asked side by side; and how that looks to a person.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import Dispatch
import Foundation
import HostProcess
import LogModel
import Synchronization

/// One second: a stopped process still accepts connections, and `status` must not hang on it.
let statusTimeoutMillis = 1000

/// What came of asking the nodes of a cluster.
struct Answers: Sendable {
    /// In no order.
    var responses: [AdminResponse] = []
    /// Why a node does not answer; whether it is at work is not known.
    var failures: [NodeID: AdminClientError] = [:]

    /// Nobody answers: why, node by node.
    var nobody: Failure {
        let reasons = failures.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        return Failure(message: "no node answers\n" + reasons.joined(separator: "\n"))
    }
}

/// Each node has a thread, however few processors there are: nodes that hang are waited for together.
func askAll(_ request: AdminRequest, of configuration: ClusterConfiguration) -> Answers {
    let answers = Mutex(Answers())
    let asked = DispatchGroup()
    for node in configuration.nodes {
        asked.enter()
        Thread.detachNewThread {
            defer { asked.leave() }
            do throws(AdminClientError) {
                let response = try AdminClient.ask(request, at: node.adminPath, timeoutMillis: statusTimeoutMillis)
                answers.withLock { $0.responses.append(response) }
            } catch {
                answers.withLock { $0.failures[node.id] = error }
            }
        }
    }
    asked.wait()
    return answers.withLock { $0 }
}

struct ClusterView {
    let configuration: ClusterConfiguration
    let answers: [NodeStatus]
    private let asked: Answers

    init(_ configuration: ClusterConfiguration) {
        self.configuration = configuration
        asked = askAll(.status, of: configuration)
        answers = asked.responses.compactMap { response in
            guard case .status(let status) = response else { return nil }
            return status
        }
    }

    /// Throws, with the reasons, if no node answers.
    func checkAnswered() throws { if answers.isEmpty { throw asked.nobody } }

    var status: ClusterStatus {
        let configured = configuration.groups.map { group in
            GroupStatus(
                name: group.id.rawValue, owner: nil, home: group.home.rawValue, mirror: group.mirror.rawValue,
                epoch: nil,
                state: "unknown", takeoverPossible: false, reason: whyUnknown(group),
                log: GroupStatus.Log(capacityBytes: group.logBytes),
                ifOwnerDiedNow: GroupStatus.Loss(lostAcknowledgedWrites: nil, estimatedTakeoverSeconds: nil),
                volumes: group.volumes.map { GroupStatus.Volume(name: $0.name, sizeBytes: $0.sizeBytes) })
        }
        return ClusterStatus.merge(
            cluster: configuration.cluster, nodes: configuration.nodes.map(\.id.rawValue), configured: configured,
            answers: answers,
            failures: Dictionary(uniqueKeysWithValues: asked.failures.map { ($0.key.rawValue, $0.value.message) }))
    }

    /// A node that cannot be asked may well serve.
    private func whyUnknown(_ group: ClusterConfiguration.Group) -> String {
        let reasons = [group.home, group.mirror].map { "\($0): \(asked.failures[$0]?.message ?? "says nothing of it")" }
        return "nobody could be asked about it: " + reasons.joined(separator: "; ")
    }

    /// The node that says it owns the group.
    func owner(of group: ClusterConfiguration.Group) throws -> ClusterConfiguration.Node {
        let name = answers.first { answer in
            answer.groups.contains { $0.isOwner && $0.status.name == group.id.rawValue }
        }?.name
        guard let name, let node = configuration.node(NodeID(name)) else {
            let told = status.groups.first { $0.name == group.id.rawValue }
            throw Failure(
                message:
                    "no node that answers owns \(group.id): \(told?.state ?? "unavailable")\(told?.reason.map { ", \($0)" } ?? "")"
            )
        }
        return node
    }

    /// What a decision that nobody can take back may cost, in numbers as far as a node that answers knows them.
    func lossOfForcing(_ group: ClusterConfiguration.Group, on node: ClusterConfiguration.Node) -> String {
        let told = answers.flatMap { answer in
            answer.groups.filter { $0.status.name == group.id.rawValue }.map { (answer.name, $0) }
        }
        let epoch = told.compactMap(\.1.status.epoch).max().map(String.init) ?? "unknown"
        let others = configuration.nodes.filter { group.includes($0.id) && $0.id != node.id }.map(\.id.rawValue)
        guard let (name, owner) = told.first(where: { $0.1.isOwner }), name != node.id.rawValue else {
            let silent = others.filter { other in !told.contains { $0.0 == other } }
            let who = silent.isEmpty ? others : silent
            return
                "\(group.id), epoch \(epoch): acknowledged writes that only "
                + "\(who.joined(separator: " or ")) holds will be lost; how many is unknown"
        }
        let count = owner.status.ifOwnerDiedNow.lostAcknowledgedWrites.map(String.init) ?? "an unknown number of"
        return
            "\(group.id), epoch \(epoch): \(count) acknowledged writes are in \(name)'s log only and will be lost"
    }

    func blockedNode(of group: ClusterConfiguration.Group) throws -> ClusterConfiguration.Node {
        let blocked = answers.filter { answer in
            answer.groups.contains { $0.status.name == group.id.rawValue && $0.status.state == "unavailable" }
        }
        guard let only = blocked.first, let node = configuration.node(NodeID(only.name)) else {
            throw Failure(message: "no node waits for a decision about \(group.id)")
        }
        guard blocked.count == 1 else {
            throw Failure(
                message:
                    "\(blocked.map(\.name).joined(separator: " and ")) wait for a decision: say which one is right with --on"
            )
        }
        return node
    }
}

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show the cluster, as all of its nodes tell it.")
    @OptionGroup var global: GlobalOptions
    @Flag(help: "As JSON.") var json = false
    @Flag(help: "Again and again, until interrupted.") var watch = false
    @Flag(help: "Who uses the volumes, and what that costs.") var clients = false

    func run() throws {
        let configuration = try global.load()
        if clients { return try showClients(of: configuration) }
        repeat {
            let view = ClusterView(configuration)
            let status = view.status
            if watch && StandardOutput.isTerminal { try StandardOutput.text("\u{1B}[2J\u{1B}[H") }
            try StandardOutput.line(json ? try AdminCodec.pretty(status) : StatusTable.render(status))
            if watch {
                if !json && !StandardOutput.isTerminal { try StandardOutput.line() }
                try StandardOutput.flush()
                try StandardOutput.wait(millis: 1000)
                continue
            }
            try view.checkAnswered()
            if !status.isTakeoverPossibleEverywhere { throw ExitCode(3) }
        } while watch
    }
}

extension Status {
    func validate() throws {
        guard !(clients && watch) else { throw ValidationError("--clients and --watch are not possible together") }
    }

    private func showClients(of configuration: ClusterConfiguration) throws {
        let asked = askAll(.clients, of: configuration)
        let nodes = asked.responses.compactMap { response -> NodeClients? in
            guard case .clients(let clients) = response else { return nil }
            return clients
        }.sorted { $0.name < $1.name }
        guard !nodes.isEmpty else { throw asked.nobody }
        try StandardOutput.line(json ? try AdminCodec.pretty(["nodes": nodes]) : ClientTable.render(nodes))
    }
}

enum ClientTable {
    static func render(_ nodes: [NodeClients]) -> String {
        nodes.map(render).joined(separator: "\n\n")
    }

    private static func render(_ node: NodeClients) -> String {
        let totals = node.totals
        let refused = totals.refused > 0 ? ", \(totals.refused) refused since the start" : ""
        let title =
            "\(node.name): \(totals.connections) of \(totals.connectionLimit) clients\(refused); "
            + "\(Size.format(UInt64(totals.lentBytes))) of \(Size.format(UInt64(totals.lendableBytes))) lent"
        guard !node.clients.isEmpty else { return title }
        let rows = node.clients.map { client in
            [
                client.name.map { "\($0), \(client.address)" } ?? client.address, client.export ?? "-", client.since,
                String(client.inFlight),
                Size.format(UInt64(client.parkedBytes)), client.waitsFor ?? "-",
            ]
        }
        return
            ([title] + StatusTable.table([["CLIENT", "EXPORT", "SINCE", "IN FLIGHT", "PARKED", "WAITS FOR"]] + rows))
            .joined(separator: "\n")
    }
}

enum StatusTable {
    static func render(_ status: ClusterStatus) -> String {
        var lines = ["cluster \(status.cluster)", ""]
        lines += table(
            [["NODE", "REACHABLE", "MEMORY", "ROLE"]]
                + status.nodes.map { [$0.name, $0.reachable ? "yes" : "no", $0.persistence, $0.role] })
        lines.append("")
        lines += table(
            [["GROUP", "STATE", "OWNER", "EPOCH", "LOG USED", "IF THE OWNER DIED NOW"]]
                + status.groups.map { group in
                    [
                        group.name, group.state, group.owner ?? "-", group.epoch.map(String.init) ?? "-",
                        "\(group.log.usedBytes.map(Size.format) ?? "unknown") of \(Size.format(group.log.capacityBytes))",
                        fate(group),
                    ]
                })
        let full = status.nodes.compactMap { node in node.clients.flatMap { fullness(node.name, $0) } }
        if !full.isEmpty { lines += [""] + full }
        let silent = status.nodes.compactMap { node in node.reason.map { "\(node.name): \($0)" } }
        if !silent.isEmpty { lines += [""] + silent }
        let reasons = status.groups.compactMap { group in group.reason.map { "\(group.name): \($0)" } }
        if !reasons.isEmpty { lines += [""] + reasons }
        return lines.joined(separator: "\n")
    }

    /// A word where clients find no place.
    private static func fullness(_ node: String, _ clients: ClientTotals) -> String? {
        guard clients.connections >= clients.connectionLimit else { return nil }
        return "\(node): all \(clients.connectionLimit) places for clients are taken, \(clients.refused) were refused"
    }

    private static func fate(_ group: GroupStatus) -> String {
        guard group.takeoverPossible, let seconds = group.ifOwnerDiedNow.estimatedTakeoverSeconds else {
            guard let lost = group.ifOwnerDiedNow.lostAcknowledgedWrites, lost > 0 else { return "no takeover" }
            return "no takeover, \(lost) acknowledged writes only there"
        }
        return String(format: "nothing lost, takeover in %.1f s", seconds)
    }

    static func table(_ rows: [[String]]) -> [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }
                .joined(separator: "  ").trimmingCharacters(in: .whitespaces)
        }
    }
}

struct Events: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show what happened on the nodes.")
    @OptionGroup var global: GlobalOptions
    @Flag(help: "Go on with what happens, until interrupted.") var follow = false
    @Flag(help: "One JSON object a line.") var json = false

    func run() throws {
        let configuration = try global.load()
        var cursors: [NodeID: EventCursor] = [:]
        var asked = Answers()
        var answered = false
        repeat {
            var fresh: [[NodeEvent]] = []
            for node in configuration.nodes {
                do throws(AdminClientError) {
                    fresh.append(try new(of: node, &cursors[node.id, default: EventCursor()]))
                    answered = true
                } catch {
                    asked.failures[node.id] = error
                }
            }
            for event in EventOrder.merge(fresh) { try show(event) }
            try StandardOutput.flush()
            if follow { try StandardOutput.wait(millis: 300) }
        } while follow
        if !answered { throw asked.nobody }
    }

    private func new(
        of node: ClusterConfiguration.Node, _ cursor: inout EventCursor
    ) throws(AdminClientError) -> [NodeEvent] {
        var all: [NodeEvent] = []
        while true {
            let answer = try AdminClient.ask(
                .events(after: cursor.after, wait: false), at: node.adminPath, timeoutMillis: statusTimeoutMillis)
            guard case .events(let events) = answer else {
                throw AdminClientError(message: "\(node.adminPath): answered something else than events")
            }
            let fresh = cursor.take(events)
            if fresh.isEmpty { return all }
            all += fresh
        }
    }

    private func show(_ event: NodeEvent) throws {
        if json {
            try StandardOutput.line(String(decoding: try AdminCodec.line(event).dropLast(), as: UTF8.self))
        } else {
            try StandardOutput.line(
                "\(event.time)  \(event.node)  \(event.group ?? "-")  \(event.kind): \(event.message)")
        }
    }
}
