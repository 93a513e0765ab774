// TLS on the wires of whole clusters: rails between nodes, and clients that others wrote (S27).

import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import TestSupport
import Testing

extension Cluster {
    @Suite(.serialized) struct EncryptionTests {
        private let payload = ByteBuffer(repeating: 0xA5, count: 8192)

        private func change(_ cluster: LocalCluster, _ replacements: [(String, String)]) throws {
            var text = try String(contentsOfFile: cluster.configurationPath, encoding: .utf8)
            for (old, new) in replacements {
                #expect(text.contains(old), "\(old) is not in the configuration")
                text = text.replacing(old, with: new)
            }
            try text.write(toFile: cluster.configurationPath, atomically: true, encoding: .utf8)
        }

        private func startBoth(_ cluster: LocalCluster) async throws {
            for node in LocalCluster.nodes { try cluster.start(node) }
            try await cluster.waitUntilMirrored()
        }

        @Test("S27: nodes mirror each other over mutual TLS, take over, and read new certificates while they run")
        func certifiedRails() async throws {
            let authority = try TestAuthority()
            let names = LocalCluster.nodes.map { "URI:twinlog://local/\($0)" }
            let files = try authority.issue("node", names: names)
            try await withCluster(started: false) { cluster in
                let security =
                    "security: {ca: \(authority.authorities), certificate: \(files.certificate), key: \(files.key)}\nlease:"
                try change(cluster, [("lease:", security)])
                try await startBoth(cluster)
                let (owner, mirror) = try cluster.roles()
                let client = try await cluster.connect(to: owner)
                for number in UInt64(0)..<64 { try await client.write(offset: number * 8192, payload) }
                cluster.kill(owner)
                try await cluster.wait("taken over") { cluster.owner() == mirror }
                let again = try await cluster.connect(to: mirror)
                for number in UInt64(0)..<64 {
                    #expect(try await again.read(offset: number * 8192, length: 8192) == payload)
                }
                await again.disconnect()

                // A certificate that names nobody: the next rail is refused, by name.
                _ = try authority.issue("node", names: ["URI:twinlog://local/nobody"])
                cluster.signal(mirror, SIGHUP)
                try await cluster.wait("read again") { cluster.logs().contains("certificates and keys are read again") }
                try cluster.start(owner)
                try await cluster.wait("refused") {
                    try twinlog(cluster, "events").output.contains("has no name twinlog://local/")
                }
                _ = try authority.issue("node", names: names)
                for node in LocalCluster.nodes { cluster.signal(node, SIGHUP) }
                try await cluster.waitUntilMirrored()
            }
        }

        @Test("S27: where clients must use TLS, Debian's do, and without it they are told so")
        func clients() async throws {
            let authority = try TestAuthority()
            let files = try authority.issue("nbd", names: ["DNS:localhost", "IP:127.0.0.1"])
            try FileManager.default.copyItem(atPath: authority.authorities, toPath: authority.file("ca-cert.pem"))
            var options = LocalClusterOptions.patient
            let port = try LocalCluster.freePort()
            options.nbdPorts = (port, try LocalCluster.freePort())
            try await withCluster(options, started: false) { cluster in
                try change(
                    cluster,
                    [
                        (
                            "nbd: 127.0.0.1:\(port)",
                            "nbd: {listen: 127.0.0.1:\(port), tls: require, certificate: \(files.certificate), key: \(files.key)}"
                        )
                    ])
                try await startBoth(cluster)
                let folder = (authority.authorities as NSString).deletingLastPathComponent
                let uri = "nbds://localhost:\(port)/vol0?tls-certificates=\(folder)"
                let info = try run("nbdinfo", uri)
                #expect(info.code == 0 && info.output.contains("protocol: newstyle-fixed with TLS"), "\(info)")
                let clear = try run("nbdinfo", "nbd://localhost:\(port)/vol0")
                #expect(clear.code != 0 && clear.output.contains("TLS"), "\(clear)")

                let image = cluster.folder + "/image", back = cluster.folder + "/back"
                let bytes = Data((0..<64 << 20).map { UInt8(truncatingIfNeeded: $0 / 4099 &* 7) })
                try bytes.write(to: URL(fileURLWithPath: image))
                #expect(try run("nbdcopy", image, uri).code == 0)
                #expect(try run("nbdcopy", uri, back).code == 0)
                #expect(try Data(contentsOf: URL(fileURLWithPath: back)) == bytes)

                let qemu = try run(
                    "qemu-io", "--object", "tls-creds-x509,id=t,endpoint=client,dir=\(folder),verify-peer=on",
                    "--image-opts", "driver=nbd,host=localhost,port=\(port),export=vol0,tls-creds=t",
                    "-c", "write -P 0x42 4097 70000", "-c", "read -P 0x42 4097 70000", "-c", "flush")
                #expect(qemu.code == 0 && !qemu.output.contains("verification failed"), "\(qemu)")
            }
        }

        @Test("S27: with insecure: true nothing is encrypted, and status says so")
        func insecure() async throws {
            var options = LocalClusterOptions.patient
            let port = try LocalCluster.freePort()
            options.nbdPorts = (port, try LocalCluster.freePort())
            try await withCluster(options, started: false) { cluster in
                try change(cluster, [("nbd: 127.0.0.1:\(port)", "nbd: 0.0.0.0:\(port)")])
                let refused = try twinlog(cluster, "check-config")
                #expect(refused.code == 2 && refused.output.contains("tls: require"), "\(refused)")
                try change(cluster, [("lease:", "security: {insecure: true}\nlease:")])
                try await startBoth(cluster)
                let status = try twinlog(cluster, "status")
                #expect(status.output.contains("insecure: true: anybody on the network"), "\(status)")
            }
        }
    }
}
