// The configuration file: the documented example is read as it is meant, and whatever cannot be right is refused with file,
// line and key (S21).

import ClusterConfiguration
import Foundation
import LogModel
import TestSupport
import Testing

/// The lines are numbered from 1; the tests below name them.
let example = """
    cluster: demo
    coordinator: {type: file, path: run/coordinator}
    heartbeat: {interval: 100ms, timeout: 500ms}
    lease: 1s
    fence: {type: process}
    nodes:
      alpha:
        mirror: [127.0.0.1:7101, 127.0.0.1:7201]
        nbd: 127.0.0.1:10809
        admin: run/alpha.sock
        pool: {path: run/alpha.pool, size: 512MiB, persistence: volatile, prefault: false}
      beta:
        mirror: [127.0.0.1:7102]
        nbd: unix:run/beta.nbd
        admin: /tmp/beta.sock
        pool: {path: run/beta.pool, size: 512MiB}
    groups:
      g0:
        home: alpha
        mirror: beta
        log: 128MiB
        ack: mirrored
        on-mirror-loss: degrade
        topology: shared
        volumes:
          vol0: {medium: run/vol0.img, size: 1GiB}
          vol1: {medium: /dev/shm/vol1.img, size: 4096}
      g1:
        home: beta
        mirror: alpha
        log: 4MiB
        on-mirror-loss: stall
        volumes:
          other: {medium: run/other.img, size: 64KiB}
    """

func parse(_ text: String) throws -> ClusterConfiguration {
    try ClusterConfiguration.parse(text, file: "cluster.yaml", baseDirectory: "/base")
}

/// Refuses the example with `old` replaced by `new`.
func refusal(_ old: String, _ new: String) throws -> ConfigurationError {
    let parts = example.components(separatedBy: old)
    try #require(parts.count == 2, "'\(old)' is \(parts.count - 1) times in the example")
    let error = try #require(throws: ConfigurationError.self) { _ = try parse(parts.joined(separator: new)) }
    #expect(error.file == "cluster.yaml")
    return error
}

struct Refusal: Sendable, CustomTestStringConvertible {
    let old: String
    let new: String
    let line: Int
    let key: String
    let reason: String

    init(_ old: String, _ new: String, line: Int, key: String, _ reason: String) {
        self.old = old
        self.new = new
        self.line = line
        self.key = key
        self.reason = reason
    }
    var testDescription: String { new }
}

struct ClusterConfigurationTests {
    @Test(arguments: [("auto", PollMode.auto), ("50us", .always(micros: 50)), ("off", .off)])
    func polling(_ text: String, _ mode: PollMode) throws {
        let read = try parse(
            example.replacing("admin: /tmp/beta.sock", with: "admin: /tmp/beta.sock\n    poll: \(text)"))
        #expect(read.node(NodeID("beta"))?.polling == mode)
        let error = try refusal("admin: /tmp/beta.sock", "admin: /tmp/beta.sock\n    poll: 50ms")
        #expect(error.line == 16 && error.key == "nodes.beta.poll")
        #expect("\(error)".contains("'50ms' is not off, auto, or a time from 1us to 1000us"))
    }

    @Test func theExampleIsReadAsItIsMeant() throws {
        let read = try parse(example)
        #expect(read.cluster == "demo")
        #expect(read.baseDirectory == "/base")
        #expect(read.coordinator == .file(path: "/base/run/coordinator", access: .ownerOnly))
        #expect(read.heartbeatIntervalMillis == 100)
        #expect(read.heartbeatTimeoutMillis == 500)
        #expect(read.leaseMillis == 1000)
        #expect(read.nodes.map(\.id) == [NodeID("alpha"), NodeID("beta")])
        let alpha = try #require(read.node(NodeID("alpha")))
        #expect(alpha.mirror == ["127.0.0.1:7101", "127.0.0.1:7201"])
        #expect(alpha.nbd == "127.0.0.1:10809")
        #expect(alpha.adminPath == "/base/run/alpha.sock")
        #expect(alpha.pool.path == "/base/run/alpha.pool")
        #expect(alpha.pool.sizeBytes == 512 << 20)
        #expect(alpha.pool.persistence == "volatile" && !alpha.pool.isPrefaulted)
        let beta = try #require(read.node(NodeID("beta")))
        #expect(beta.polling == .off)
        #expect(beta.nbd == "unix:/base/run/beta.nbd")
        #expect(beta.adminPath == "/tmp/beta.sock")
        #expect(beta.pool.persistence == "auto" && beta.pool.isPrefaulted)
        let g0 = try #require(read.group(GroupID("g0")))
        #expect(g0.home == NodeID("alpha") && g0.mirror == NodeID("beta"))
        #expect(g0.logBytes == 128 << 20)
        #expect(g0.degradeOnMirrorLoss)
        #expect(g0.volumes.map(\.name) == ["vol0", "vol1"])
        #expect(g0.volumes.map(\.mediumPath) == ["/base/run/vol0.img", "/dev/shm/vol1.img"])
        #expect(g0.volumes.map(\.sizeBytes) == [1 << 30, 4096])
        #expect(read.group(GroupID("g1"))?.degradeOnMirrorLoss == false)
        #expect(read.group(GroupID("g2")) == nil && read.node(NodeID("gamma")) == nil)
        #expect(read.groups(of: NodeID("alpha")).map(\.id) == [GroupID("g0"), GroupID("g1")])
        #expect(read.groups(of: NodeID("gamma")).isEmpty)
        #expect(g0.peer(of: NodeID("alpha")) == NodeID("beta"))
        #expect(g0.peer(of: NodeID("beta")) == NodeID("alpha"))
    }

    @Test func timesHaveDefaults() throws {
        let short = example.split(separator: "\n").filter { !$0.hasPrefix("heartbeat") && !$0.hasPrefix("lease") }
        let read = try parse(short.joined(separator: "\n"))
        #expect(read.heartbeatIntervalMillis == 100)
        #expect(read.heartbeatTimeoutMillis == 500)
        #expect(read.leaseMillis == 1000)
    }

    @Test("O5, O10: what clients may cost, and volumes that they may not change") func limitsAndReadOnlyVolumes() throws
    {
        let plain = try parse(example)
        #expect(plain.limits.memoryBytes == nil && plain.limits.connections == 256)
        #expect(plain.groups.flatMap(\.volumes).allSatisfy { !$0.isReadOnly })
        let read = try parse(
            example.replacingOccurrences(of: "lease: 1s", with: "lease: 1s\nlimits: {memory: 256MiB, connections: 7}")
                .replacingOccurrences(of: "size: 4096}", with: "size: 4096, read-only: true}"))
        #expect(read.limits.memoryBytes == 256 << 20 && read.limits.connections == 7)
        #expect(read.groups.flatMap(\.volumes).filter(\.isReadOnly).map(\.name) == ["vol1"])
        for (limits, key, reason) in [
            ("memory: 64MiB", "limits.memory", "is less than 128MiB"),
            ("connections: 0", "limits.connections", "is not a number from 1 to 4096"),
            ("connections: +9", "limits.connections", "is not a number"),
            ("cpu: 1", "limits.cpu", "is not a key that is known here"),
        ] {
            let error = try refusal("lease: 1s", "limits: {\(limits)}")
            #expect(error.key == key && error.line == 4 && error.reason.contains(reason), "\(error)")
        }
        #expect(try refusal("size: 4096}", "size: 4096, read-only: maybe}").key == "groups.g0.volumes.vol1.read-only")
    }

    @Test("A medium may be a logical unit of an iSCSI target; one that is named twice is refused")
    func logicalUnits() throws {
        let unit = "iscsi://192.0.2.5/iqn.2026-11.com.example:disk/1"
        let text = example.replacingOccurrences(of: "run/vol0.img", with: unit)
            .replacingOccurrences(of: "{type: process}", with: "[{type: process}, {type: reservation}]")
        let read = try parse(text)
        let volume = try #require(read.group(GroupID("g0"))?.volumes.first)
        #expect(ISCSIAddress(volume.mediumPath)?.portal == TCPAddress(host: "192.0.2.5", port: 3260))
        #expect(
            ISCSIAddress(volume.mediumPath)?.target == "iqn.2026-11.com.example:disk"
                && ISCSIAddress(volume.mediumPath)?.lun == 1)
        #expect(volume.mediumText == volume.mediumPath)
        #expect(read.fences == [.process, .reservation])
        #expect(
            read.groups.flatMap(\.volumes).map(\.unit).contains(.device(path: "/dev/shm/vol1.img")),
            "kept from nodes as well")
        #expect(try parse(example).groups.flatMap(\.volumes).allSatisfy { $0.unit == nil })
        let twice = try #require(throws: ConfigurationError.self) {
            try parse(
                text.replacingOccurrences(of: "/dev/shm/vol1.img", with: unit.replacing("5/iqn", with: "5:3260/iqn")))
        }
        #expect(
            twice.key == "groups.g0.volumes.vol1.medium" && twice.reason.contains("is used by groups.g0.volumes.vol0"))
        for (wrong, reason) in [
            ("iscsi://user%secret@192.0.2.5/iqn.2026-11.com.example:disk/1", "a login (CHAP)"),
            ("iscsi://192.0.2.5/disk/1", "is not iscsi://HOST"), ("iscsi://192.0.2.5/iqn.a:b/c", "is not iscsi://HOST"),
            ("iscsi://192.0.2.5:0/iqn.a:b/1", "is not iscsi://HOST"), ("iscsi:///iqn.a:b/1", "is not iscsi://HOST"),
            ("iscsi://192.0.2.5/iqn.a:b/99999", "is not iscsi://HOST"),
        ] {
            let error = try refusal("run/vol0.img", wrong)
            #expect(error.key == "groups.g0.volumes.vol0.medium" && error.reason.contains(reason), "\(error)")
            #expect(!error.reason.contains("secret"))
        }
    }

    static let later: [Refusal] = [
        Refusal("admin: run/alpha.sock", "http: 127.0.0.1:9101", line: 10, key: "nodes.alpha.http", "not supported"),
        Refusal("ack: mirrored", "ack: received", line: 22, key: "groups.g0.ack", "'received' is not supported"),
        Refusal("ack: mirrored", "ack: local", line: 22, key: "groups.g0.ack", "'local' is not supported"),
        Refusal(
            "topology: shared", "topology: replicated", line: 24, key: "groups.g0.topology",
            "'replicated' is not supported"),
    ]

    @Test(arguments: later) func whatComesLaterIsRefusedByName(_ refused: Refusal) throws {
        let error = try refusal(refused.old, refused.new)
        let named = try #require(([error] + error.others).first { $0.key == refused.key }, "\(error)")
        #expect(named.line == refused.line)
        #expect(named.reason.contains(refused.reason))
    }

    static let wrong: [Refusal] = [
        Refusal("lease: 1s", "security: {}", line: 4, key: "security", "needs psk-file"),
        Refusal("lease: 1s", "security: psk", line: 4, key: "security", "must be a section"),
        Refusal("lease: 1s", "security: {ca: run/ca.pem}", line: 4, key: "security", "'certificate' is missing"),
        Refusal("lease: 1s", "security: {insecure: perhaps}", line: 4, key: "security.insecure", "not one of"),
        Refusal(
            "nbd: 127.0.0.1:10809", "nbd: {listen: 127.0.0.1:10809, tls: require}", line: 9, key: "nodes.alpha.nbd",
            "'certificate' is missing"),
        Refusal(
            "nbd: 127.0.0.1:10809", "nbd: {listen: 127.0.0.1:10809, certificate: c.pem}", line: 9,
            key: "nodes.alpha.nbd.certificate", "is of no use without tls"),
        Refusal("cluster: demo", "cluster: de/mo", line: 1, key: "cluster", "not a name"),
        Refusal("cluster: demo", "kluster: demo", line: 1, key: "kluster", "known: cluster"),
        Refusal("type: file", "type: paper", line: 2, key: "coordinator.type", "not one of file"),
        Refusal(
            "{interval: 100ms, timeout: 500ms}", "{interval: 300ms, timeout: 500ms}", line: 3, key: "heartbeat",
            "missed"),
        Refusal("timeout: 500ms", "timeout: 500", line: 3, key: "heartbeat.timeout", "not a time"),
        Refusal("timeout: 500ms", "timeout: 0ms", line: 3, key: "heartbeat.timeout", "not a time"),
        Refusal("timeout: 500ms", "timeout: -5s", line: 3, key: "heartbeat.timeout", "not a time"),
        Refusal("timeout: 500ms", "timeout: 18446744073709551615s", line: 3, key: "heartbeat.timeout", "not a time"),
        Refusal("lease: 1s", "lease: 499ms", line: 4, key: "lease", "heartbeat timeout (500 ms)"),
        Refusal("lease: 1s", "lease: [1s]", line: 4, key: "lease", "must be a text"),
        Refusal("{type: process}", "process", line: 5, key: "fence", "must be a section"),
        Refusal(
            "  beta:\n    mirror: [127.0.0.1:7102]", "  .beta:\n    mirror: [127.0.0.1:7102]", line: 12,
            key: "nodes..beta", "not a name"),
        Refusal("[127.0.0.1:7102]", "[]", line: 13, key: "nodes.beta.mirror", "at least one"),
        Refusal("[127.0.0.1:7102]", "127.0.0.1:7102", line: 13, key: "nodes.beta.mirror", "must be a list"),
        Refusal("[127.0.0.1:7102]", "[127.0.0.1]", line: 13, key: "nodes.beta.mirror[0]", "not HOST:PORT"),
        Refusal("[127.0.0.1:7102]", "[127.0.0.1:0]", line: 13, key: "nodes.beta.mirror[0]", "not HOST:PORT"),
        Refusal("[127.0.0.1:7102]", "[127.0.0.1:65536]", line: 13, key: "nodes.beta.mirror[0]", "not HOST:PORT"),
        Refusal("[127.0.0.1:7102]", "[10.0.0.1:7102]", line: 13, key: "nodes.beta.mirror[0]", "not a loopback"),
        Refusal("[127.0.0.1:7102]", "[127.evil.example:7102]", line: 13, key: "nodes.beta.mirror[0]", "not a loopback"),
        Refusal("[127.0.0.1:7102]", "[unix:/x]", line: 13, key: "nodes.beta.mirror[0]", "not HOST:PORT"),
        Refusal(
            "[127.0.0.1:7102]", "[127.0.0.1:7201]", line: 13, key: "nodes.beta.mirror", "used by nodes.alpha.mirror"),
        Refusal("nbd: 127.0.0.1:10809", "nbd: 0.0.0.0:10809", line: 9, key: "nodes.alpha.nbd", "not a loopback"),
        Refusal(
            "nbd: 127.0.0.1:10809", "nbd: 127.0.0.1:7102", line: 13, key: "nodes.beta.mirror", "used by nodes.alpha.nbd"
        ),
        Refusal(
            "unix:run/beta.nbd", "unix:/\(String(repeating: "x", count: 107))", line: 14, key: "nodes.beta.nbd",
            "too long"),
        Refusal(
            "/tmp/beta.sock", "/base/run/alpha.sock", line: 15, key: "nodes.beta.admin", "used by nodes.alpha.admin"),
        Refusal(
            "/tmp/beta.sock", "\(String(repeating: "x", count: 102))", line: 15, key: "nodes.beta.admin", "too long"),
        Refusal(
            "run/beta.pool, size: 512MiB", "run/beta.pool, size: 512MB", line: 16, key: "nodes.beta.pool.size",
            "not a size"),
        Refusal(
            "run/beta.pool, size: 512MiB", "run/beta.pool, size: 4MiB", line: 16, key: "nodes.beta.pool.size",
            "less than 8MiB"),
        Refusal(
            "run/beta.pool, size: 512MiB", "run/beta.pool, size: 8388609", line: 16, key: "nodes.beta.pool.size",
            "multiple of 4096"),
        Refusal(
            "run/beta.pool, size: 512MiB", "run/beta.pool, size: 18446744073709551615", line: 16,
            key: "nodes.beta.pool.size",
            "pebibyte"),
        Refusal(
            "run/beta.pool, size: 512MiB", "run/beta.pool, size: 18446744073709551615GiB", line: 16,
            key: "nodes.beta.pool.size",
            "not a size"),
        Refusal(
            "run/beta.pool, size: 512MiB", "run/beta.pool, size: 132MiB", line: 16, key: "nodes.beta.pool.size",
            "not enough"),
        // Two logs, two region headers of 8 KiB each, 16 KiB before them, and one page too little.
        Refusal(
            "run/beta.pool, size: 512MiB", "run/beta.pool, size: 138440704", line: 16, key: "nodes.beta.pool.size",
            "not enough"),
        Refusal("run/beta.pool", "run/alpha.pool", line: 16, key: "nodes.beta.pool.path", "used by nodes.alpha.pool"),
        Refusal(
            "persistence: volatile", "persistence: maybe", line: 11, key: "nodes.alpha.pool.persistence", "not one of"),
        Refusal("home: alpha", "home: gamma", line: 19, key: "groups.g0.home", "there is no node 'gamma'"),
        Refusal("home: beta", "home: alpha", line: 30, key: "groups.g1.mirror", "cannot mirror itself"),
        Refusal("log: 128MiB", "log: 1GiB", line: 11, key: "nodes.alpha.pool.size", "not enough"),
        Refusal("log: 4MiB", "log: 1MiB", line: 31, key: "groups.g1.log", "less than 4MiB"),
        Refusal(
            "on-mirror-loss: stall", "on-mirror-loss: pray", line: 32, key: "groups.g1.on-mirror-loss", "not one of"),
        Refusal("size: 64KiB", "size: 4097", line: 34, key: "groups.g1.volumes.other.size", "multiple of 512"),
        Refusal("other:", "vol1:", line: 34, key: "groups.g1.volumes.vol1", "group g0 has a volume of this name"),
        Refusal(
            "run/other.img", "run/vol0.img", line: 34, key: "groups.g1.volumes.other.medium",
            "used by groups.g0.volumes.vol0"),
        Refusal(
            "      other: {medium: run/other.img, size: 64KiB}", "      {}", line: 33, key: "groups.g1.volumes",
            "at least one"),
    ]

    @Test(arguments: wrong) func whatCannotBeRightIsRefusedWithItsPlace(_ refused: Refusal) throws {  // S21
        let error = try refusal(refused.old, refused.new)
        #expect(error.line == refused.line)
        #expect(error.key == refused.key)
        #expect(error.reason.contains(refused.reason))
        #expect(error.description.hasPrefix("cluster.yaml:\(refused.line): \(refused.key): "))
    }

    @Test(arguments: ["cluster", "coordinator", "nodes", "groups"]) func everyMissingSectionIsNamed(key: String) throws
    {
        var isSkipping = false
        let rest = example.split(separator: "\n").filter { line in
            if !line.hasPrefix(" ") { isSkipping = line.hasPrefix("\(key):") }
            return !isSkipping
        }
        let error = try #require(throws: ConfigurationError.self) { _ = try parse(rest.joined(separator: "\n")) }
        #expect(error.reason.contains("'\(key)' is missing"))
    }

    /// FNV-1a of these two is the same; a record could not tell the volumes apart.
    @Test func namesOfOneIdentifierAreRefused() throws {
        #expect(VolumeID(name: "costarring") == VolumeID(name: "liquid"))
        let text = example.replacing("vol0:", with: "costarring:").replacing("vol1:", with: "liquid:")
        let error = try #require(throws: ConfigurationError.self) { _ = try parse(text) }
        #expect(error.line == 27)
        #expect(error.key == "groups.g0.volumes.liquid")
        #expect(error.reason.contains("same identifier"))
    }

    @Test("all that is wrong is said at once, in the order of the file")
    func allAtOnce() throws {
        let wrong = example.replacing("lease: 1s", with: "lease: soon").replacing("log: 4MiB", with: "log: 1")
            .replacing("admin: /tmp/beta.sock", with: "admin: /tmp/beta.sock\n    colour: red")
            .replacing("127.0.0.1:7201", with: "127.0.0.1:+72")
        let error = try #require(throws: ConfigurationError.self) { _ = try parse(wrong) }
        #expect(
            ([error] + error.others).map(\.key) == [
                "lease", "nodes.alpha.mirror[1]", "nodes.beta.colour", "groups.g1.log",
            ])
        #expect(error.description.split(separator: "\n").count == 4)
        let clashing = example.replacing("unix:run/beta.nbd", with: "127.0.0.1:7101").replacing(
            "home: beta", with: "home: gamma")
        let clashes = try #require(throws: ConfigurationError.self) { _ = try parse(clashing) }
        #expect(([clashes] + clashes.others).map(\.key) == ["nodes.beta.nbd", "groups.g1.home"])
    }

    @Test("O11: one place under two spellings is one place, and an octal spelling is none")
    func addressSpelling() throws {
        let error = try refusal("mirror: [127.0.0.1:7102]", "mirror: [\"localhost:7101\"]")
        #expect(error.key == "nodes.beta.mirror" && error.others.isEmpty)
        #expect(error.reason == "localhost:7101 is the same place as 127.0.0.1:7101 of nodes.alpha.mirror already")
        for (spelling, reason) in [
            ("127.0.0.01:7102", "not a loopback address"), ("127.010.0.1:7102", "not a loopback address"),
            ("127.0.0.+1:7102", "not HOST:PORT"),
        ] {
            let octal = try refusal("mirror: [127.0.0.1:7102]", "mirror: [\"\(spelling)\"]")
            #expect(octal.key == "nodes.beta.mirror[0]" && octal.reason.contains(reason))
        }
    }

    @Test("O11: `localhost` is both loopback addresses; other places of one port are other places")
    func localhost() throws {
        let both = example.replacing("127.0.0.1:7101", with: "'[::1]:7102'").replacing(
            "mirror: [127.0.0.1:7102]", with: "mirror: ['localhost:7102']")
        #expect(throws: ConfigurationError.self) { _ = try parse(both) }
        let apart = example.replacing("mirror: [127.0.0.1:7102]", with: "mirror: ['127.0.0.2:7101']")
        #expect(try parse(apart).nodes[1].mirror == ["127.0.0.2:7101"])
        #expect(try refusal("nbd: 127.0.0.1:10809", "nbd: ::1:10809").reason.contains("[::1]:7101"))
        #expect(try refusal("nbd: unix:run/beta.nbd", "nbd: 'unix:'").reason.contains("path of the socket"))
    }

    @Test("O26: a node of more groups than its pool has room for is found by the check")
    func tooManyGroups() throws {
        let groups = (0..<33).map {
            "  g\($0): {home: alpha, mirror: beta, log: 4MiB, volumes: {v\($0): {medium: v\($0).img, size: 1MiB}}}"
        }
        let text = example.components(separatedBy: "groups:")[0] + "groups:\n" + groups.joined(separator: "\n")
        let error = try #require(throws: ConfigurationError.self) { _ = try parse(text) }
        #expect(([error] + error.others).map(\.key) == ["nodes.alpha", "nodes.beta"])
        #expect(error.reason == "takes part in 33 groups; a pool holds at most 32 logs")
    }

    @Test("O26: a mark of the byte order, signs, and the rule of names")
    func spelling() throws {
        #expect(try parse("\u{feff}" + example).cluster == "demo")
        #expect(try refusal("lease: 1s", "lease: +1s").reason.contains("whole number"))
        #expect(try refusal("cluster: demo", "cluster: -x").reason.contains("beginning with"))
    }

    @Test("O26: a cluster of thousands of volumes is read") func manyVolumes() throws {
        let volumes = (0..<5000).map { "      v\($0): {medium: v\($0).img, size: 1MiB}" }
        let text = example.components(separatedBy: "      vol0")[0] + volumes.joined(separator: "\n")
        #expect(try parse(text).groups[0].volumes.count == 5000)
    }

    @Test func aKeyGivenTwiceIsRefused() throws {
        let error = try refusal("lease: 1s", "lease: 1s\nlease: 2s")
        #expect(error.line > 0)
        #expect(error.reason.contains("lease"))
    }

    @Test func whatIsNotYAMLIsRefusedWithItsLine() throws {  // S21
        let error = try refusal("lease: 1s", "lease: [1s")
        #expect(error.line > 3)
        #expect(error.reason.contains("is not YAML"))
        #expect(error.reason.utf8.count < 500)
    }

    @Test func nothingIsRefused() throws {
        for text in ["", "\n", "# only a remark", "---\n", "~", "[]", "7", "text", "a: b\n---\nc: d"] {
            #expect(throws: ConfigurationError.self) { try parse(text) }
        }
    }

    // MARK: Garbage

    @Test(arguments: 1...8 as ClosedRange<UInt64>) func garbageNeverCrashes(seed: UInt64) throws {  // S21
        var random = SplitMix64(seed: seed)
        let letters = Array("ab01:-,[]{}#&*!|>'\"%@`~ \n\n  \t\u{e9}\u{1f600}?.")
        for _ in 0..<150 {
            let text = String(
                (0..<Int.random(in: 0...300, using: &random)).map { _ in letters.randomElement(using: &random)! })
            #expect(throws: ConfigurationError.self) { try parse(text) }
        }
    }

    @Test(arguments: 1...8 as ClosedRange<UInt64>) func aDamagedExampleNeverCrashes(seed: UInt64) throws {  // S21
        var random = SplitMix64(seed: seed)
        let whole = Array(example)
        let letters = Array("ab01:-,[]{}#&*!|>'\" \n")
        for _ in 0..<60 {
            var text = whole
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<text.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: text.remove(at: place)
                case 1: text.insert(letters.randomElement(using: &random)!, at: place)
                default: text.removeSubrange(place..<min(text.count, place + 20))
                }
            }
            do throws(ConfigurationError) {
                let read = try ClusterConfiguration.parse(String(text), file: "f", baseDirectory: "/b")
                #expect(read.nodes.count >= 2 && !read.groups.isEmpty)
            } catch {
                #expect(error.file == "f" && !error.reason.isEmpty)
            }
        }
    }

    @Test func deepAndAliasedYAMLIsRefused() throws {  // S21
        let deep = String(repeating: "[", count: 200_000)
        #expect(throws: ConfigurationError.self) { try parse(deep) }
        #expect(throws: ConfigurationError.self) { try parse(String(repeating: "{a: ", count: 100_000)) }
        let laughs = (1...40).map { "a\($0): &a\($0) [*a\($0 - 1), *a\($0 - 1)]" }.joined(separator: "\n")
        #expect(throws: ConfigurationError.self) { try parse("a0: &a0 x\n" + laughs) }
    }

    // MARK: Files

    @Test func aFileIsReadAndItsPathsBeginAtItsFolder() throws {
        let folder = "/dev/shm/twinlog-configuration-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { #expect(throws: Never.self) { try FileManager.default.removeItem(atPath: folder) } }
        func failure(_ name: String, _ bytes: Data?) throws -> String {
            let path = "\(folder)/\(name)"
            try bytes?.write(to: URL(fileURLWithPath: path))
            let error = try #require(throws: ConfigurationError.self) { _ = try ClusterConfiguration.load(path: path) }
            #expect(error.file == path)
            return error.reason
        }
        try Data(example.utf8).write(to: URL(fileURLWithPath: "\(folder)/cluster.yaml"))
        let read = try ClusterConfiguration.load(path: "\(folder)/./cluster.yaml")
        #expect(read.coordinator == .file(path: "\(folder)/run/coordinator", access: .ownerOnly))
        #expect(try failure("missing", nil).contains("cannot be opened"))
        #expect(try failure("large", Data(repeating: 32, count: (1 << 20) + 1)).contains("larger than 1MiB"))
        #expect(try failure("latin", Data([0x63, 0xe9, 0x3a])).contains("not UTF-8"))
        #expect(try failure("zeros", Data(repeating: 0, count: 100)).contains("YAML"))
        let isFolder = try #require(throws: ConfigurationError.self) { try ClusterConfiguration.load(path: folder) }
        #expect(isFolder.reason == "is a folder")
    }
}
