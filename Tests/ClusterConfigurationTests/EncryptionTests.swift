// S27: what leaves this machine is encrypted, or the file says aloud that it is not.

import ClusterConfiguration
import LogModel
import Testing

struct EncryptionTests {
    private static let network = [
        ("127.0.0.1:7101", "10.0.0.1:7101"),
        ("[127.0.0.1:7102]", "[\"storage-2.example:7102\", \"[fd00::2]:7102\"]"),
    ]

    private func changed(_ replacements: [(String, String)]) -> String {
        replacements.reduce(example) { $0.replacing($1.0, with: $1.1) }
    }

    private func problems(_ text: String) throws -> [(key: String, reason: String)] {
        do throws(ConfigurationError) {
            _ = try ClusterConfiguration.parse(text, file: "test.yaml", baseDirectory: "/base")
            return []
        } catch {
            return ([error] + error.others).map { ($0.key, $0.reason) }
        }
    }

    @Test("S27: rails on a network need a secret, or certificates, or a file that gives encryption up")
    func rails() throws {
        let bare = try problems(changed(Self.network))
        #expect(bare.map(\.key) == ["nodes.alpha.mirror[0]", "nodes.beta.mirror[0]", "nodes.beta.mirror[1]"])
        #expect(bare.allSatisfy { $0.reason.contains("psk-file") })
        for security in [
            "security: {psk-file: run/psk}", "security: {insecure: true}",
            "security: {ca: ca.pem, certificate: node.pem, key: /etc/node.key}",
        ] {
            #expect(
                try problems(changed(Self.network + [("lease: 1s", "lease: 1s\n\(security)")])).isEmpty, "\(security)")
        }
        let wildcard = [
            ("127.0.0.1:7101", "0.0.0.0:7101"), ("lease: 1s", "lease: 1s\nsecurity: {psk-file: run/psk}"),
        ]
        #expect(try problems(changed(wildcard)).first?.reason.contains("can dial") == true)
    }

    @Test("S27: clients on a network must use TLS, unless the file gives encryption up")
    func clients() throws {
        func nbd(_ rest: String, _ security: String = "lease: 1s") throws -> [(key: String, reason: String)] {
            try problems(
                changed([("nbd: 127.0.0.1:10809", "nbd: {listen: \"[::]:10809\"\(rest)}"), ("lease: 1s", security)]))
        }
        #expect(try nbd("").first?.key == "nodes.alpha.nbd")
        let files = "certificate: nbd.pem, key: nbd.key"
        #expect(try nbd(", tls: allow, \(files)").first?.reason.contains("tls: require") == true)
        #expect(try nbd(", tls: require, \(files)").isEmpty)
        #expect(try nbd("", "security: {insecure: true}").isEmpty)
        let read = try ClusterConfiguration.parse(
            changed([("nbd: 127.0.0.1:10809", "nbd: {listen: 127.0.0.1:10809, tls: allow, \(files), ca: ca.pem}")]),
            file: "test.yaml", baseDirectory: "/base")
        #expect(
            read.nodes[0].nbdSecurity
                == ClusterConfiguration.NBDSecurity(
                    isRequired: false,
                    files: CertificateFiles(
                        certificate: "/base/nbd.pem", key: "/base/nbd.key", authorities: "/base/ca.pem")))
    }
}
