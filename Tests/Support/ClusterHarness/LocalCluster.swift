// A cluster of real processes on this machine: two nodes, one shared medium, in a folder of its own. For the demo and the
// tests. Processes that were started are always ended.

public import AdminProtocol
import ClusterConfiguration
public import Foundation
public import LogModel
internal import NBDClient
import Synchronization

public struct HarnessError: Error, CustomStringConvertible, Sendable {
    public var message: String
    public init(_ message: String) { self.message = message }
    public var description: String { message }
}

/// What differs between clusters.
public struct LocalClusterOptions: Sendable {
    public var logBytes: UInt64 = 16 << 20
    public var volumeBytes: UInt64 = 64 << 20
    public var onMirrorLoss = "degrade"
    /// After which a silent node is suspected.
    public var silenceMillis = 500
    public var leaseMillis = 1000
    public var persistence = "auto"
    /// TCP ports of alpha and beta for NBD; `nil`: Unix sockets.
    public var nbdPorts: (UInt16, UInt16)?
    /// The hosts of `nbdPorts`.
    public var nbdHosts = ("127.0.0.1", "127.0.0.1")
    /// TCP ports of alpha and beta for the rails; `nil`: free ones.
    public var mirrorPorts: (UInt16, UInt16)?
    /// The sections of the coordinator and the fence.
    public var coordinator = "{type: file, path: run/coordinator}"
    public var fence = "{type: process}"
    public var security: String?
    /// What the loops of the nodes do before they sleep.
    public var poll = PollMode.off
    /// Of the rails of alpha and of beta.
    public var mirrorHosts = [["127.0.0.1"], ["127.0.0.1"]]
    /// By volume; otherwise files of the cluster's folder.
    public var media: [String: String] = [:]
    /// A second group, whose home is beta.
    public var crossed = false
    public init() {}
}

public final class LocalCluster: Sendable {
    public static let nodes = ["alpha", "beta"]
    public static let name = "local"

    public let folder: String
    public let configurationPath: String
    private let binaries: String
    private let processes = Mutex<[String: Process]>([:])
    private let addresses: [String: Endpoint]

    /// `binaries`: the folder with twinlogd and twinlog.
    public init(folder: String, binaries: String, options: LocalClusterOptions = LocalClusterOptions()) throws {
        self.folder = folder
        self.binaries = binaries
        try FileManager.default.createDirectory(atPath: folder + "/run", withIntermediateDirectories: true)
        configurationPath = folder + "/cluster.yaml"
        let mirrors = try options.mirrorPorts.map { [$0.0, $0.1] } ?? [Self.freePort(), Self.freePort()]
        var nbd = Self.nodes.map { "unix:run/\($0).nbd" }
        addresses = [
            "alpha": options.nbdPorts.map { .tcp(TCPAddress(host: options.nbdHosts.0, port: Int($0.0))) }
                ?? .unix(path: folder + "/run/alpha.nbd"),
            "beta": options.nbdPorts.map { .tcp(TCPAddress(host: options.nbdHosts.1, port: Int($0.1))) }
                ?? .unix(path: folder + "/run/beta.nbd"),
        ]
        if options.nbdPorts != nil { nbd = Self.nodes.compactMap { addresses[$0]?.description } }
        let text = Self.configuration(options, mirrors: mirrors, nbd: nbd)
        try text.write(toFile: configurationPath, atomically: true, encoding: .utf8)
    }

    private static func configuration(_ options: LocalClusterOptions, mirrors: [UInt16], nbd: [String]) -> String {
        var text = """
            cluster: \(name)
            coordinator: \(options.coordinator)
            heartbeat: {interval: 100ms, timeout: \(options.silenceMillis)ms}
            lease: \(options.leaseMillis)ms
            doubt: 2s
            fence: \(options.fence)
            \(options.security.map { "security: \($0)" } ?? "")
            nodes:

            """
        for (index, node) in nodes.enumerated() {
            let rails = options.mirrorHosts[index].map { "\"\($0):\(mirrors[index])\"" }.joined(separator: ", ")
            text += """
                  \(node):
                    mirror: [\(rails)]
                    nbd: \(nbd[index])
                    admin: run/\(node).sock
                    pool: {path: run/\(node).pool, size: \(options.logBytes * 2 + (16 << 20)), persistence: \(options.persistence)}

                """
            // Not said where it is what it is by itself: the previous release, which the same file is given to, does not know it.
            if options.poll != .off { text += "    poll: \(options.poll)\n" }
        }
        text += "groups:\n"
        for (group, home, mirror) in options.crossed
            ? [("g0", "alpha", "beta"), ("g1", "beta", "alpha")] : [("g0", "alpha", "beta")]
        {
            let volume = "vol\(group.dropFirst())"
            let medium = options.media[volume].map(quoted) ?? "run/\(volume).img"
            text += """
                  \(group):
                    home: \(home)
                    mirror: \(mirror)
                    log: \(options.logBytes)
                    on-mirror-loss: \(options.onMirrorLoss)
                    volumes:
                      \(volume): {medium: \(medium), size: \(options.volumeBytes)}

                """
        }
        return text
    }

    /// As a string of YAML.
    private static func quoted(_ text: String) -> String {
        "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }

    /// A port of the loopback interface that nobody has at the moment. Below those that the kernel gives to outgoing
    /// connections, so that none of them takes it before a node binds it, or while the node is down; and never the same twice, in no
    /// process that asks here.
    public static func freePort() throws -> UInt16 {
        try givenPorts.withLock { ports in
            for _ in 0..<100 {
                while let port = ports.popLast() { if canBind(port) { return port } }
                ports = try claimPorts().shuffled()
            }
            throw HarnessError("no free port can be found")
        }
    }

    private static let givenPorts = Mutex<[UInt16]>([])

    /// Ports that are this process's for as long as it lives: a socket with their name stands for them. Such names, like ports, are a
    /// network namespace's.
    private static func claimPorts() throws -> Range<UInt16> {
        let count: UInt16 = 200
        for first in stride(from: UInt16(20_000), to: 32_000, by: Int(count)).shuffled() where hasClaimed(first) {
            return first..<first + count
        }
        throw HarnessError("all ports from 20000 to 32000 are other tests'")
    }

    private static func hasClaimed(_ first: UInt16) -> Bool {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // A name that begins with 0 is no file.
        let name = [0] + Array("twinlog tests' ports from \(first)".utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let length = MemoryLayout.offset(of: \sockaddr_un.sun_path)! + name.count
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(length)) }
        }
        if result != 0 { close(descriptor) }
        return result == 0
    }

    private static func canBind(_ port: UInt16) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }

    // MARK: Processes

    /// `launcher`: a program and its arguments that become the node, in a world of its own. `other`: the folder with the
    /// twinlogd of another release.
    public func start(_ node: String, through launcher: [String] = [], of other: String? = nil) throws {
        let process = Process()
        let words = launcher + [(other ?? binaries) + "/twinlogd", "--config", configurationPath, "--node", node]
        process.executableURL = URL(fileURLWithPath: words[0])
        process.arguments = Array(words.dropFirst())
        let log = folder + "/\(node).log"
        if !FileManager.default.fileExists(atPath: log) {
            guard FileManager.default.createFile(atPath: log, contents: nil) else {
                throw HarnessError("\(log) cannot be created")
            }
        }
        guard let output = FileHandle(forWritingAtPath: log) else { throw HarnessError("\(log) cannot be written") }
        try output.seekToEnd()
        process.standardError = output
        process.standardOutput = output
        process.standardInput = FileHandle.nullDevice
        try process.runReachable()
        processes.withLock { $0[node] = process }
    }

    public func signal(_ node: String, _ number: Int32) {
        guard let process = processes.withLock({ $0[node] }), process.isRunning else { return }
        Foundation.kill(process.processIdentifier, number)
    }

    /// SIGKILL, and waits for the end.
    public func kill(_ node: String) {
        guard let process = processes.withLock({ $0.removeValue(forKey: node) }) else { return }
        if process.isRunning { Foundation.kill(process.processIdentifier, SIGKILL) }
        process.waitForEnd()
    }

    /// SIGTERM; answers the exit code, or `nil` if it had to be killed after `seconds`.
    @discardableResult
    public func stop(_ node: String, withinSeconds seconds: Double = 40) -> Int32? {
        guard let process = processes.withLock({ $0.removeValue(forKey: node) }) else { return nil }
        process.terminate()
        let deadline = Date().addingTimeInterval(seconds)
        while process.isRunning && Date() < deadline { usleep(10_000) }
        guard process.isRunning else { return process.terminationStatus }
        Foundation.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        return nil
    }

    /// `nil` if the node was not started, or was killed or stopped.
    public func processID(of node: String) -> Int32? { processes.withLock { $0[node]?.processIdentifier } }

    /// How the node's process ended, in words; `nil` while it runs, and if it was not started, or was killed or stopped.
    public func ending(of node: String) -> String? {
        guard let process = processes.withLock({ $0[node] }), !process.isRunning else { return nil }
        return (process.terminationReason == .uncaughtSignal ? "signal " : "exit ") + "\(process.terminationStatus)"
    }

    public func isRunning(_ node: String) -> Bool { processes.withLock { $0[node]?.isRunning ?? false } }

    /// Ends every process and removes the folder.
    public func remove() {
        for node in Self.nodes { kill(node) }
        do {
            try FileManager.default.removeItem(atPath: folder)
        } catch {
            print("\(folder) could not be removed: \(error)")
        }
    }

    // MARK: What they say

    public func ask(_ node: String, _ request: AdminRequest, timeoutMillis: Int = 1000) throws -> AdminResponse {
        try AdminClient.ask(request, at: "\(folder)/run/\(node).sock", timeoutMillis: timeoutMillis)
    }

    public func group(_ name: String = "g0", at node: String) -> NodeStatus.Group? {
        guard case .success(.status(let status)) = Result(catching: { try ask(node, .status) }) else { return nil }
        return status.groups.first { $0.status.name == name }
    }

    /// The node that owns the group, by its own word.
    public func owner(of group: String = "g0") -> String? {
        Self.nodes.first { self.group(group, at: $0)?.isOwner == true }
    }

    /// The state by the owner's word; by any node's if there is no owner.
    public func state(of name: String = "g0") -> GroupStatus? {
        let answers = Self.nodes.compactMap { group(name, at: $0) }
        return (answers.first { $0.isOwner } ?? answers.max { $0.status.epoch ?? 0 < $1.status.epoch ?? 0 })?.status
    }

    /// Waits until `condition` holds; throws with what the nodes say if it does not within `seconds`.
    public func wait(_ what: String, seconds: Double = 20, until condition: () throws -> Bool) async throws {
        let deadline = Date().addingTimeInterval(seconds)
        while try !condition() {
            guard Date() < deadline else {
                let told =
                    state().map { "\($0.state), owner \($0.owner ?? "-"), \($0.reason ?? "no reason")" } ?? "no answer"
                throw HarnessError("not \(what) after \(seconds) s: \(told)\n\(logs())")
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    public func waitUntilMirrored(_ group: String = "g0", seconds: Double = 20) async throws {
        try await wait("mirrored", seconds: seconds) {
            state(of: group)?.state == "mirrored" && owner(of: group) != nil
        }
    }

    /// The last lines that the nodes logged.
    public func logs() -> String {
        Self.nodes.map { node in
            let text =
                FileManager.default.contents(atPath: "\(folder)/\(node).log").map {
                    String(decoding: $0, as: UTF8.self)
                } ?? ""
            return "--- \(node)\n" + text.split(separator: "\n").suffix(25).joined(separator: "\n")
        }.joined(separator: "\n")
    }

    public func nbdAddress(of node: String) -> Endpoint { addresses[node]! }

    /// As nbdinfo, qemu-io and fio take it.
    public func nbdURI(of node: String, volume: String = "vol0") -> String {
        switch nbdAddress(of: node) {
        case .tcp(let address): "nbd://\(address)/\(volume)"
        case .unix(let path): "nbd+unix:///\(volume)?socket=\(path)"
        }
    }

    public func mediumPath(_ volume: String = "vol0") -> String { "\(folder)/run/\(volume).img" }
}

extension Process {
    /// `run`, with no signal blocked in the child: it has the mask of the thread that starts it, and the threads of a dispatch queue
    /// or a task block SIGTERM and SIGALRM.
    public func runReachable() throws {
        var none = sigset_t()
        var before = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        try run()
    }

    /// Waits for the end, on any thread: on another one than that which started the process, `waitUntilExit` may wait for nothing.
    public func waitForEnd() {
        waitUntilExit()
        while isRunning { usleep(1000) }
    }
}

/// Where the executables of this build are: beside the one that is running.
public func builtBinaries() -> String {
    if let named = ProcessInfo.processInfo.environment["TWINLOG_BIN"] { return named }
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
    let own = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let beside = (own as NSString).deletingLastPathComponent
    if FileManager.default.isExecutableFile(atPath: beside + "/twinlogd") { return beside }
    return ((CommandLine.arguments.first ?? "") as NSString).deletingLastPathComponent
}
