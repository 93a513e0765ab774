// A real etcd for a test: one member or three, on free ports of the loopback interface, in a folder of their own. They are ended, by their
// process ids, when this goes.

package import CoordinationEtcd
internal import ClusterHarness
internal import Foundation
internal import Glibc
internal import LogModel
internal import Synchronization

package final class EtcdServers: Sendable {
    /// Debian's etcd-server.
    package static let isInstalled = FileManager.default.isExecutableFile(atPath: program)
    private static let program = "/usr/bin/etcd"

    /// PEM files of the members, which serve https with them.
    package struct Certificate: Sendable {
        package var certificate: String
        package var key: String
        /// Whose certificates clients must have; `nil`: they need none.
        package var clientAuthority: String?

        package init(certificate: String, key: String, clientAuthority: String? = nil) {
            self.certificate = certificate
            self.key = key
            self.clientAuthority = clientAuthority
        }
    }

    /// Where a member runs, and the words that start a program there.
    package struct Place: Sendable {
        package var host: String
        package var launcher: [String]

        package init(host: String = "127.0.0.1", launcher: [String] = []) {
            self.host = host
            self.launcher = launcher
        }
    }

    private struct Member: Sendable {
        var name: String
        var place: Place
        var clientPort: UInt16
        var peerPort: UInt16
    }

    private let folder: String
    private let members: [Member]
    private let certificate: Certificate?
    private let processes = Mutex<[Int: Process]>([:])

    /// Starts them on the loopback interface; they answer a little later.
    package convenience init(members count: Int, in folder: String, certificate: Certificate? = nil) throws {
        try self.init(at: [Place](repeating: Place(), count: count), in: folder, certificate: certificate)
    }

    /// The same, one at each place.
    package init(at places: [Place], in folder: String, certificate: Certificate? = nil) throws {
        self.folder = folder
        self.certificate = certificate
        members = try places.enumerated().map { index, place in
            Member(
                name: "m\(index)", place: place, clientPort: try LocalCluster.freePort(),
                peerPort: try LocalCluster.freePort())
        }
        for index in members.indices { try start(index) }
    }

    deinit { for index in members.indices { kill(index) } }

    package var endpoints: [EtcdSettings.Endpoint] {
        members.map {
            EtcdSettings.Endpoint(
                TCPAddress(host: $0.place.host, port: Int($0.clientPort)), isSecure: certificate != nil)
        }
    }

    /// A generous time for each try: the machine may be busy with other tests.
    package func settings(prefix: String = "/twinlog/test", tryMillis: Int64 = 5000) -> EtcdSettings {
        EtcdSettings(endpoints: endpoints, prefix: prefix, tryMillis: tryMillis)
    }

    package func start(_ index: Int) throws {
        let member = members[index]
        let process = Process()
        let words = member.place.launcher + [Self.program] + arguments(of: member)
        process.executableURL = URL(fileURLWithPath: words[0])
        process.arguments = Array(words.dropFirst())
        let log = "\(folder)/\(member.name).log"
        if !FileManager.default.fileExists(atPath: log) {
            try Data().write(to: URL(fileURLWithPath: log))
        }
        let output = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
        try output.seekToEnd()
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.runReachable()
        processes.withLock { $0[index] = process }
    }

    private func arguments(of member: Member) -> [String] {
        let scheme = certificate == nil ? "http" : "https"
        let client = "\(scheme)://\(member.place.host):\(member.clientPort)"
        let peer = "http://\(member.place.host):\(member.peerPort)"
        let cluster = members.map { "\($0.name)=http://\($0.place.host):\($0.peerPort)" }.joined(separator: ",")
        var arguments = [
            "--name", member.name, "--data-dir", dataFolder(of: member), "--listen-client-urls", client,
            "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", cluster,
        ]
        if let certificate {
            arguments += ["--cert-file", certificate.certificate, "--key-file", certificate.key]
            if let authority = certificate.clientAuthority {
                arguments += ["--client-cert-auth", "--trusted-ca-file", authority]
            }
        }
        return arguments
    }

    private func dataFolder(of member: Member) -> String { "\(folder)/\(member.name)" }

    /// SIGKILL, and waits for the end.
    package func kill(_ index: Int) {
        guard let process = processes.withLock({ $0.removeValue(forKey: index) }) else { return }
        if process.isRunning { Glibc.kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
    }

    package func isRunning(_ index: Int) -> Bool { processes.withLock { $0[index]?.isRunning ?? false } }

    package func signal(_ index: Int, _ number: Int32) {
        guard let process = processes.withLock({ $0[index] }) else { return }
        Glibc.kill(process.processIdentifier, number)
    }

    /// All that the member, which does not run, has on its disk.
    package func wipe(_ index: Int) throws {
        try FileManager.default.removeItem(atPath: dataFolder(of: members[index]))
    }

    /// Every value that the key has had, the oldest first. One of the members must answer, and nothing may have been compacted.
    package func history(of key: String) throws -> [[UInt8]] {
        var values: [[UInt8]] = []
        var revision: Int64 = 0
        while let found = try value(of: key, at: revision) {
            values.append(found.value)
            revision = found.revision - 1
            guard revision > 0 else { break }
        }
        return values.reversed()
    }

    /// The value that the key had at a revision, and since which one; 0: has now. `nil`: it did not exist.
    private func value(of key: String, at revision: Int64) throws -> (value: [UInt8], revision: Int64)? {
        struct Answer: Decodable {
            struct Pair: Decodable {
                var value: Data
                var modRevision: Int64
            }
            var kvs: [Pair]?
        }
        let words = [
            "/usr/bin/env", "ETCDCTL_API=3", "etcdctl", "--endpoints", endpoints.map { "\($0)" }.joined(separator: ","),
            "get",
            "--rev", "\(revision)", "--write-out", "json", key,
        ]
        let answer = try ClusterHarness.run(members[0].place.launcher + words)
        guard answer.code == 0 else { throw HarnessError("etcdctl: \(answer.output)") }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        decoder.dataDecodingStrategy = .base64
        let pair = try decoder.decode(Answer.self, from: Data(answer.output.utf8)).kvs?.first
        return pair.map { (Array($0.value), $0.modRevision) }
    }

    /// The last lines that the members logged.
    package func logs() -> String {
        members.map { member in
            let text = FileManager.default.contents(atPath: "\(folder)/\(member.name).log") ?? Data()
            let lines = String(decoding: text, as: UTF8.self).split(separator: "\n").suffix(15)
            return "--- \(member.name)\n" + lines.joined(separator: "\n")
        }.joined(separator: "\n")
    }
}
