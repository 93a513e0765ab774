// TLS beneath a rail's handshake: who gets through, who is refused in which words, and what crosses the wire (S27).

import Foundation
import LogModel
import NIOCore
import RemoteMemory
import RemoteMemorySupport
import RemoteMemoryTCP
import TestSupport
import Testing
import TransportSecurity

struct EncryptionTests {
    private static func certified(_ authority: TestAuthority, _ node: String, name: String? = nil) throws
        -> CertifiedRails
    {
        let uri = name ?? CertifiedRails.name(of: NodeID(node), in: "demo")
        let files = try authority.issue("\(node)-\(UUID128.random())", names: ["URI:\(uri)", "DNS:\(node)"])
        return CertifiedRails(try TLSContexts(files, onlyNewest: true), cluster: "demo")
    }

    private func refuses(
        _ rig: RemoteRig, over security: (any RailSecurity)?, as node: String = "alpha"
    ) async throws -> RemoteMemoryError? {
        try await rig.on { $0.dial(as: Rig.identity(node), over: security) }
        try #require(try await rig.eventually { $0.dialError != nil || $0.rail != nil })
        try await rig.on { #expect($0.rail == nil && $0.accepted.isEmpty) }
        return try await rig.on { $0.dialError }
    }

    @Test(
        "S27: nodes with certificates of one authority that name them have a rail, and others can neither read nor make one"
    )
    func certificates() async throws {
        let authority = try TestAuthority()
        let alpha = try Self.certified(authority, "alpha"), beta = try Self.certified(authority, "beta")
        try await withRig(over: beta) { rig in
            try await rig.on { $0.dial(over: alpha) }
            try #require(try await rig.eventually { $0.rail != nil && !$0.accepted.isEmpty })
            #expect(try await rig.serves())
            try await rig.on { #expect($0.met?.node == NodeID("beta") && $0.accepted[0].peer.node == NodeID("alpha")) }
        }
    }

    @Test(
        "S27: a certificate is for the node that it names, of the cluster that it names",
        arguments: [
            "twinlog://demo/gamma", "twinlog://other/alpha", "twinlog://demo/alphabet", "https://demo/alpha",
        ])
    func anothersCertificate(_ name: String) async throws {
        let authority = try TestAuthority()
        let listener = try Self.certified(authority, "beta"),
            dialer = try Self.certified(authority, "alpha", name: name)
        try await withRig(over: listener) { rig in
            let error = try await refuses(rig, over: dialer)
            #expect(error?.code == .protocolViolation && error?.message.contains("not that of node 'alpha'") == true)
        }
        // A listener is asked for the same.
        let good = try Self.certified(authority, "alpha")
        try await withRig(over: try Self.certified(authority, "beta", name: name)) { rig in
            let error = try await refuses(rig, over: good)
            #expect(error?.code == .protocolViolation && error?.message.contains("not that of node 'beta'") == true)
        }
    }

    @Test("S27: who is certified by another authority is refused, and told why")
    func anotherAuthority() async throws {
        let listener = try Self.certified(try TestAuthority(), "beta"),
            dialer = try Self.certified(try TestAuthority(), "alpha")
        try await withRig(over: listener) { rig in
            let error = try await refuses(rig, over: dialer)
            #expect(error?.message == "TLS: certificate verify failed" && error?.code == .protocolViolation)
        }
    }

    @Test("S27: one end with TLS and one without make no rail")
    func oneSided() async throws {
        let authority = try TestAuthority()
        let alpha = try Self.certified(authority, "alpha"), beta = try Self.certified(authority, "beta")
        try await withRig(over: beta) { rig in
            let error = try await refuses(rig, over: nil)
            #expect(error != nil)
        }
        try await withRig { rig in
            let error = try await refuses(rig, over: alpha)
            #expect(error != nil)
        }
        try await withRig(over: try SharedKeyRails(secret: Rig.secret)) { rig in
            let error = try await refuses(rig, over: alpha)
            #expect(error?.message.hasPrefix("TLS: ") == true)
        }
    }

    @Test("S27: the cluster's secret encrypts a rail; another secret makes none")
    func sharedSecret() async throws {
        let shared = try SharedKeyRails(secret: Rig.secret)
        try await withRig(over: shared) { rig in
            try await rig.on { $0.dial(over: shared) }
            try #require(try await rig.eventually { $0.rail != nil && !$0.accepted.isEmpty })
            #expect(try await rig.serves())
        }
        let other = try SharedKeyRails(secret: .random())
        try await withRig(over: shared) { rig in
            let error = try await refuses(rig, over: other)
            #expect(error?.message.hasPrefix("TLS: ") == true && error?.code == .protocolViolation)
        }
    }

    @Test("S27: what crosses the wire says nothing of the cluster", arguments: [false, true])
    func whatIsSeen(isEncrypted: Bool) async throws {
        let security = isEncrypted ? try SharedKeyRails(secret: Rig.secret) : nil
        try await withRig { rig in
            let listener = try RawListener()
            try await rig.on { [port = listener.port] in $0.dial(port: port, over: security) }
            let peer = try await listener.accept()
            try #require(
                try await peer.eventually {
                    _ = peer.take(); return !peer.received.isEmpty
                })
            let seen = String(decoding: peer.received, as: UTF8.self)
            #expect(seen.contains("demo") != isEncrypted && seen.contains("alpha") != isEncrypted)
        }
    }

    @Test("large transfers pass whole, in both directions")
    func large() async throws {
        let authority = try TestAuthority()
        let alpha = try Self.certified(authority, "alpha"), beta = try Self.certified(authority, "beta")
        try await withRig(over: beta) { rig in
            try await rig.on { $0.dial(over: alpha) }
            try #require(try await rig.eventually { $0.rail != nil && !$0.accepted.isEmpty })
            let bytes = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let id = try await rig.on { try $0.write(bytes, at: 0) }
            try #require(try await rig.eventually { $0.recorder.completed >= id })
            try await rig.on { rig in
                #expect(rig.region.durable == bytes)
                _ = try rig.rail?.postRead(key: rig.key, offset: 4096, length: 1 << 19)
            }
            try #require(try await rig.eventually { !$0.recorder.reads.isEmpty })
            try await rig.on { #expect($0.recorder.reads[0].bytes == Array(bytes[4096..<4096 + (1 << 19)])) }
        }
    }

    // MARK: The files

    @Test("S27: a key that others can read is refused; so is one of another certificate, and what is none")
    func badFiles() throws {
        let authority = try TestAuthority()
        var files = try authority.issue("alpha", names: ["DNS:alpha"])
        let other = try authority.issue("beta", names: ["DNS:beta"])
        func problem(_ files: CertificateFiles) -> TLSError? {
            do throws(TLSError) {
                _ = try TLSContexts(files, onlyNewest: true)
                return nil
            } catch { return error }
        }
        #expect(problem(files) == nil)
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: files.key)
        #expect(problem(files)?.path == files.key && problem(files)?.reason.contains("others may read") == true)
        files.key = other.key
        #expect(problem(files)?.path == files.certificate && problem(files)?.reason.contains(other.key) == true)
        files.key = files.certificate
        #expect(problem(files)?.path == files.key)
        files = other
        files.authorities = authority.file("none.pem")
        #expect(problem(files)?.reason.contains("No such file") == true)
        try Data("hello".utf8).write(to: URL(fileURLWithPath: authority.file("none.pem")))
        #expect(problem(files)?.reason.contains("no certificate") == true)
    }

    @Test("certificates are read again, for the connections that follow; what cannot be read changes nothing")
    func reload() async throws {
        let authority = try TestAuthority()
        let files = try authority.issue("beta", names: ["URI:twinlog://demo/gamma"])
        let contexts = try TLSContexts(files, onlyNewest: true)
        let alpha = try Self.certified(authority, "alpha")
        try await withRig(over: CertifiedRails(contexts, cluster: "demo")) { rig in
            let error = try await refuses(rig, over: alpha)
            #expect(error != nil)
            let expired = contexts.expires
            try FileManager.default.removeItem(atPath: files.certificate)
            #expect(throws: TLSError.self) { try contexts.reload() }
            #expect(contexts.expires == expired)
            _ = try authority.issue("beta", names: ["URI:twinlog://demo/beta"], days: 60)
            try contexts.reload()
            #expect(contexts.expires > expired)
            try await rig.on {
                $0.dialError = nil
                $0.dial(over: alpha)
            }
            try #require(try await rig.eventually { $0.rail != nil && !$0.accepted.isEmpty })
        }
    }
}
