// What the tests share: a real etcd, coordinators of it, records, and a raw way to etcd's keys.

import Coordination
@testable import CoordinationEtcd
import EtcdSupport
import Foundation
import LogModel
import RecordSupport
import TestSupport
import Testing

let group = GroupID("g0")

/// A valid record; `by` tells the tests who wrote it.
func record(_ version: UInt64, by owner: String = "alpha", group: GroupID = group) -> GroupRecord {
    GroupRecord(
        version: version, group: group, logUUID: UUID128(high: 1, low: 2), owner: NodeID(owner), epoch: Epoch(version),
        phase: .published, holders: [NodeID(owner)], ownerProcess: nil,
        pools: [owner: UUID128(high: 3, low: version)])
}

func presence(of node: String, counter: UInt64) throws -> Presence {
    Presence(process: try ProcessIdentity.current(node: NodeID(node)), counter: counter, pool: .zero)
}

/// An etcd in a folder; both go with it.
final class Rig: Sendable {
    let folder: Folder
    let servers: EtcdServers

    init(members: Int = 1, certificate: ((Folder) throws -> EtcdServers.Certificate)? = nil) async throws {
        folder = try Folder()
        servers = try EtcdServers(members: members, in: folder.path, certificate: try certificate?(folder))
        if certificate == nil { try await waitUntilAnswering() }
    }

    func coordinator(tryMillis: Int64 = 5000, over way: Way? = nil) -> EtcdCoordinator {
        var settings = servers.settings(tryMillis: tryMillis)
        if let way { settings.endpoints = [way.endpoint] }
        return EtcdCoordinator(settings)
    }

    /// Each member by itself, so that none is asked that is still starting.
    func waitUntilAnswering() async throws {
        for endpoint in servers.endpoints {
            var settings = servers.settings()
            settings.endpoints = [endpoint]
            try await waitUntilAnswering(EtcdCoordinator(settings))
        }
    }

    func waitUntilAnswering(_ coordinator: EtcdCoordinator) async throws {
        let answers = try await eventually(seconds: 60) { (try? coordinator.presences(of: [])) != nil }
        try #require(answers, "\(servers.logs())")
    }

    /// A request of etcd's gateway; its answer.
    @discardableResult
    func post(_ json: String, to path: String, token: String? = nil) throws -> String {
        let settings = servers.settings()
        let connection = try EtcdConnection(to: settings.endpoints[0], settings)
        defer { connection.close() }
        let answer = try connection.post(Data(json.utf8), to: path, token: token, withinMillis: 10_000)
        let text = String(decoding: answer.body, as: UTF8.self)
        try #require(answer.status == 200, "\(path): \(text)")
        return text
    }

    func put(_ value: String, at key: String) throws {
        try post(#"{"key": "\#(base64(key))", "value": "\#(base64(value))"}"#, to: "/v3/kv/put")
    }
}

func base64(_ text: String) -> String { Data(text.utf8).base64EncodedString() }

/// The client asserts; whoever lacks etcd is told so.
let needsEtcd = ConditionTrait.enabled(if: EtcdServers.isInstalled, "/usr/bin/etcd is missing: Debian's etcd-server")
