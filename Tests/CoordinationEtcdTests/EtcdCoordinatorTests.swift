// etcd as a coordinator, where it works: what stands at which key, what is believed, what a poll costs, logins and TLS. The contract is in
// CoordinationTests.

import Coordination
@testable import CoordinationEtcd
import EtcdSupport
import Foundation
import LogModel
import RecordSupport
import TestSupport
import Testing

@Suite(needsEtcd, .timeLimit(.minutes(5)))
struct EtcdCoordinatorTests {
    @Test("S15: records, signs of life and the secret stand at keys of their own, as text")
    func keys() async throws {
        let rig = try await Rig()
        let coordinator = rig.coordinator()
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        try coordinator.announce(try presence(of: "alpha", counter: 1))
        let secret = try coordinator.clusterSecret()
        #expect(try rig.coordinator().clusterSecret() == secret)
        let all = try rig.post(#"{"key": "AA==", "range_end": "AA=="}"#, to: "/v3/kv/range")
        for key in ["/twinlog/test/groups/g0", "/twinlog/test/nodes/alpha", "/twinlog/test/secret"] {
            #expect(all.contains(base64(key)), "\(key)")
        }
        #expect(all.contains(#""count":"3""#) && all.contains(base64(secret.hexadecimal)))
    }

    @Test("nodes that start at once agree on one secret")
    func secretAtOnce() async throws {
        let rig = try await Rig()
        let secrets = try await withThrowingTaskGroup(of: ClusterSecret.self) { tasks in
            for _ in 0..<8 { tasks.addTask { try rig.coordinator().clusterSecret() } }
            return try await tasks.reduce(into: Set()) { $0.insert($1) }
        }
        #expect(secrets.count == 1)
    }

    @Test(
        "S21: what is no record, no presence or no secret is refused by its key, and takes no other group's record away"
    )
    func foreign() async throws {
        let rig = try await Rig()
        let coordinator = rig.coordinator()
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        let other = GroupID("other")
        let tooLarge = String(repeating: " ", count: EtcdCoordinator.maximumRecordBytes + 1)
        for text in ["", "{", #"{"format": 9}"#, tooLarge, String(decoding: try record(1).encoded(), as: UTF8.self)] {
            try rig.put(text, at: "/twinlog/test/groups/other")
            let error = #expect(throws: CoordinationError.self) { try coordinator.read(other) }
            #expect(error?.code == .invalidRecord && error?.message.contains("/groups/other") == true)
            let swapping = #expect(throws: CoordinationError.self) {
                try coordinator.swap(expecting: 0, to: record(1, group: other))
            }
            #expect(swapping?.code == .invalidRecord)
            let records = try coordinator.renew(try presence(of: "alpha", counter: 1), reading: [group, other])
            #expect(try records[group]?.get() == record(1))
            #expect(throws: CoordinationError.self) { try records[other]?.get() }
        }
        try rig.put("nonsense", at: "/twinlog/test/nodes/beta")
        let error = #expect(throws: CoordinationError.self) { try coordinator.presence(of: NodeID("beta")) }
        #expect(error?.code == .invalidRecord)
        let seen = try coordinator.presences(of: [NodeID("alpha"), NodeID("beta"), NodeID("gamma")])
        #expect(try seen[NodeID("alpha")]?.get().counter == 1 && seen[NodeID("gamma")] == nil)
        #expect(throws: CoordinationError.self) { try seen[NodeID("beta")]?.get() }
        try rig.put("nonsense", at: "/twinlog/test/secret")
        let secret = #expect(throws: SecretError.self) { try coordinator.clusterSecret() }
        #expect(secret?.code == .untrusted && secret?.message.contains("nonsense") == false)
    }

    @Test("S15: a record that somebody changed by hand at the same version is not overwritten")
    func sameVersionOtherValue() async throws {
        let rig = try await Rig()
        let coordinator = rig.coordinator()
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        try rig.put(String(decoding: try record(1, by: "beta").encoded(), as: UTF8.self), at: "/twinlog/test/groups/g0")
        #expect(try coordinator.swap(expecting: 1, to: record(2)) == .lost(record(1, by: "beta")))
    }

    @Test("a node's poll is one write and one read, however many groups it has", arguments: [1, 10, 100])
    func requests(_ count: Int) async throws {
        let rig = try await Rig()
        let way = try Way(to: rig.servers.endpoints[0])
        let coordinator = rig.coordinator(over: way)
        let groups = (0..<count).map { GroupID("g\($0)") }
        for group in groups { #expect(try coordinator.swap(expecting: 0, to: record(1, group: group)) == .won) }
        _ = way.takeRequests()
        for counter in 1...10 as ClosedRange<UInt64> {
            let records = try coordinator.renew(try presence(of: "alpha", counter: counter), reading: groups)
            #expect(try groups.allSatisfy { try records[$0]?.get() == record(1, group: $0) })
            #expect(way.takeRequests() == 1, "the lease's renewal, with all records")
            let seen = try coordinator.presences(of: [NodeID("alpha"), NodeID("beta")])
            #expect(try seen[NodeID("alpha")]?.get().counter == counter)
            #expect(way.takeRequests() == 1, "all signs of life")
        }
        #expect(try coordinator.swap(expecting: 1, to: record(2, group: groups[0])) == .won)
        #expect(way.takeRequests() == 1, "a swap from what was read")
    }

    @Test("compaction takes nothing away that is needed")
    func compaction() async throws {
        let rig = try await Rig()
        let coordinator = rig.coordinator()
        for version in 1...20 as ClosedRange<UInt64> {
            #expect(try coordinator.swap(expecting: version - 1, to: record(version)) == .won)
        }
        let revision = 21
        try rig.post(#"{"revision": "\#(revision)", "physical": true}"#, to: "/v3/kv/compaction")
        #expect(try coordinator.read(group) == record(20))
        #expect(try coordinator.swap(expecting: 20, to: record(21)) == .won)
        #expect(try rig.coordinator().read(group) == record(21))
    }

    // MARK: Logins

    @Test(
        "a user with a password is logged in, again after the member has forgotten the token, and refused with a wrong one"
    )
    func login() async throws {
        let rig = try await Rig()
        for (path, json) in [
            ("user/add", #"{"name": "root", "password": "top"}"#), ("user/grant", #"{"user": "root", "role": "root"}"#),
            ("user/add", #"{"name": "twinlog", "password": "pass"}"#), ("role/add", #"{"name": "twinlog"}"#),
            (
                "role/grant",
                #"{"name": "twinlog", "perm": {"permType": "READWRITE", "key": "\#(base64("/twinlog/test/"))", "range_end": "\#(base64("/twinlog/test0"))"}}"#
            ), ("user/grant", #"{"user": "twinlog", "role": "twinlog"}"#), ("enable", "{}"),
        ] {
            if path == "user/grant", json.contains("root") {
                try rig.post(#"{"name": "root"}"#, to: "/v3/auth/role/add")
            }
            try rig.post(json, to: "/v3/auth/\(path)")
        }
        func coordinator(_ user: String, _ password: String, prefix: String = "/twinlog/test") -> EtcdCoordinator {
            var settings = rig.servers.settings(prefix: prefix)
            settings.login = EtcdSettings.Login(user: user) { password }
            return EtcdCoordinator(settings)
        }
        let known = coordinator("twinlog", "pass")
        #expect(try known.swap(expecting: 0, to: record(1)) == .won)
        rig.servers.kill(0)
        try rig.servers.start(0)
        try await rig.waitUntilAnswering(known)
        #expect(try known.swap(expecting: 1, to: record(2)) == .won)
        #expect(try known.read(group) == record(2))
        for stranger in [
            rig.coordinator(), coordinator("twinlog", "wrong-word"), coordinator("nobody", "pass"),
            coordinator("twinlog", "pass", prefix: "/other"),
        ] {
            let error = #expect(throws: CoordinationError.self) { try stranger.swap(expecting: 0, to: record(1)) }
            #expect(error?.code == .unreachable && error?.message.contains("wrong-word") == false)
        }
        #expect(try known.read(group) == record(2))
    }

    // MARK: TLS

    @Test("S27: over TLS a member is known by its authority, and a node by its certificate")
    func tls() async throws {
        let rig = try await Rig { folder in
            try makeCertificates(in: folder)
            return EtcdServers.Certificate(
                certificate: folder.file("server.pem"), key: folder.file("server.key"),
                clientAuthority: folder.file("ca.pem"))
        }
        var settings = rig.servers.settings()
        settings.caPath = rig.folder.file("ca.pem")
        settings.certificatePath = rig.folder.file("client.pem")
        settings.keyPath = rig.folder.file("client.key")
        let coordinator = EtcdCoordinator(settings)
        try await rig.waitUntilAnswering(coordinator)
        #expect(try coordinator.swap(expecting: 0, to: record(1)) == .won)
        var withoutCertificate = settings
        withoutCertificate.certificatePath = nil
        withoutCertificate.keyPath = nil
        var otherAuthority = settings
        otherAuthority.caPath = rig.folder.file("other-ca.pem")
        var inTheClear = settings
        inTheClear.endpoints = settings.endpoints.map { EtcdSettings.Endpoint($0.address, isSecure: false) }
        for refused in [withoutCertificate, otherAuthority, inTheClear] {
            #expect(throws: CoordinationError.self) { try EtcdCoordinator(refused).read(group) }
        }
        #expect(try coordinator.read(group) == record(1))
    }

    /// Two authorities, and certificates of the first for a server at 127.0.0.1 and for a client.
    private func makeCertificates(in folder: Folder) throws {
        for authority in ["ca", "other-ca"] {
            try openssl(
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj",
                "/CN=\(authority)", "-keyout", folder.file("\(authority).key"), "-out", folder.file("\(authority).pem"))
        }
        // A member's gateway asks the member itself, as a client with the certificate of the server.
        for (name, usage) in [("server", "serverAuth,clientAuth"), ("client", "clientAuth")] {
            try openssl(
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj",
                "/CN=\(name)", "-CA", folder.file("ca.pem"), "-CAkey", folder.file("ca.key"), "-addext",
                "subjectAltName=IP:127.0.0.1", "-addext", "extendedKeyUsage=\(usage)", "-addext",
                "basicConstraints=critical,CA:FALSE", "-keyout", folder.file("\(name).key"), "-out",
                folder.file("\(name).pem"))
        }
    }

    private func openssl(_ arguments: String...) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.arguments = arguments
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0, "openssl \(arguments.joined(separator: " "))")
    }
}
