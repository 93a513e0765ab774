// The cluster as its nodes tell it, asked side by side.

import AdminProtocol
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
        let isDenied = failures.values.contains { $0.kind == .permissionDenied }
        return Failure(
            isDenied ? .permissionDenied : .noAnswer, "no node answers\n" + reasons.joined(separator: "\n"))
    }

    /// Beside what the others answered: whose part is missing, and why.
    func sayWhoIsSilent() {
        for (node, error) in failures.sorted(by: { $0.key < $1.key }) {
            StandardError.line("twinlog: \(node) is missing here: \(error)")
        }
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

    /// Why no node answers; `nil` if one does.
    var silence: Failure? { answers.isEmpty ? asked.nobody : nil }

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

    /// The group as `status` tells it.
    func told(of group: ClusterConfiguration.Group) -> GroupStatus {
        guard let told = status.groups.first(where: { $0.name == group.id.rawValue }) else {
            preconditionFailure("a merged status has every configured group")
        }
        return told
    }

    /// The node that says it owns the group, of the highest epoch, and what it says.
    private func ownersAnswer(on group: ClusterConfiguration.Group) -> (node: String, told: GroupStatus)? {
        let words = answers.flatMap { answer in
            answer.groups.filter { $0.isOwner && $0.status.name == group.id.rawValue }.map { (answer.name, $0.status) }
        }
        return words.max { ($0.1.epoch ?? 0) < ($1.1.epoch ?? 0) }
    }

    func ownersWord(on group: ClusterConfiguration.Group) -> GroupStatus? { ownersAnswer(on: group)?.told }

    func owner(of group: ClusterConfiguration.Group) throws(Failure) -> ClusterConfiguration.Node {
        if let name = ownersAnswer(on: group)?.node, let node = configuration.node(NodeID(name)) { return node }
        if let silence { throw silence }
        throw Failure(.noOwner, "no node that answers owns \(group.id): \(told(of: group).situation)")
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

    /// The one that waits for an operator's decision.
    func blockedNode(of group: ClusterConfiguration.Group) throws(Failure) -> ClusterConfiguration.Node {
        let blocked = answers.filter { answer in
            answer.groups.contains { $0.status.name == group.id.rawValue && $0.status.state == "unavailable" }
        }
        guard let only = blocked.first, let node = configuration.node(NodeID(only.name)) else {
            throw silence ?? Failure(.refused, "no node waits for a decision about \(group.id)")
        }
        guard blocked.count == 1 else {
            throw Failure(
                .usage,
                "\(blocked.map(\.name).joined(separator: " and ")) wait for a decision: say which one is right with --on"
            )
        }
        return node
    }
}
