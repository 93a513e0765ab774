// What must be equal on all nodes: every such key moves the digest, nothing else does, and a difference is named (S27, O9).

import ClusterConfiguration
import Foundation
import LogModel
import Testing

struct SharedConfigurationTests {
    private func replaced(_ old: String, _ new: String) throws -> ClusterConfiguration {
        let parts = example.components(separatedBy: old)
        try #require(parts.count == 2, "'\(old)' is \(parts.count - 1) times in the example")
        return try parse(parts.joined(separator: new))
    }

    @Test(
        "S27, O9: each key that must be equal is named with both values",
        arguments: [
            ("cluster: demo", "cluster: other", "cluster is 'demo' on alpha and 'other' on beta"),
            ("interval: 100ms", "interval: 50ms", "heartbeat.interval is '100ms' on alpha and '50ms' on beta"),
            ("timeout: 500ms", "timeout: 900ms", "heartbeat.timeout is '500ms' on alpha and '900ms' on beta"),
            ("lease: 1s", "lease: 2s", "lease is '1000ms' on alpha and '2000ms' on beta"),
            (
                "home: alpha\n    mirror: beta", "home: beta\n    mirror: alpha",
                "groups.g0.home is 'alpha' on alpha and 'beta' on beta; groups.g0.mirror is 'beta' on alpha and 'alpha' on beta"
            ),
            ("log: 128MiB", "log: 64MiB", "groups.g0.log is '134217728' on alpha and '67108864' on beta"),
            (
                "on-mirror-loss: degrade", "on-mirror-loss: stall",
                "groups.g0.on-mirror-loss is 'degrade' on alpha and 'stall' on beta"
            ),
            (
                "run/vol0.img", "run/vol9.img",
                "groups.g0.volumes.vol0.medium is 'run/vol0.img' on alpha and 'run/vol9.img' on beta"
            ),
            (
                "size: 4096}", "size: 4096, read-only: true}",
                "groups.g0.volumes.vol1.read-only is missing on alpha and 'true' on beta"
            ),
            (
                "size: 1GiB", "size: 2GiB",
                "groups.g0.volumes.vol0.size is '1073741824' on alpha and '2147483648' on beta"
            ),
        ]) func namesTheKey(_ old: String, _ new: String, _ difference: String) throws
    {
        let (here, there) = (try parse(example), try replaced(old, new))
        #expect(here.sharedDigest != there.sharedDigest)
        #expect(
            ClusterConfiguration.difference(here.sharedEntries, of: "alpha", there.sharedEntries, of: "beta")
                == difference)
    }

    @Test(
        "what each node has for itself may differ, and so may the way a value is written",
        arguments: [
            ("127.0.0.1:7102", "127.0.0.1:7302"), ("unix:run/beta.nbd", "127.0.0.1:10999"),
            ("/tmp/beta.sock", "b.sock"),
            ("path: run/beta.pool", "path: other.pool"), ("lease: 1s", "lease: 1000ms"),
            ("log: 128MiB", "log: 134217728"),
            ("path: run/coordinator", "path: elsewhere"), ("lease: 1s", "lease: 1s\nsecurity: {psk-file: psk}"),
        ]) func mayDiffer(_ old: String, _ new: String) throws
    {
        #expect(try replaced(old, new).sharedDigest == parse(example).sharedDigest)
    }

    @Test("a volume that only one node knows is missing on the other; many differences are counted")
    func missingAndMany() throws {
        let here = try parse(example)
        let there = try replaced("      vol1: {medium: /dev/shm/vol1.img, size: 4096}\n", "")
        #expect(
            ClusterConfiguration.difference(here.sharedEntries, of: "alpha", there.sharedEntries, of: "beta")
                == "groups.g0.volumes.vol1.medium is '/dev/shm/vol1.img' on alpha and missing on beta; "
                + "groups.g0.volumes.vol1.size is '4096' on alpha and missing on beta")
        let many = (0..<20).map { ClusterConfiguration.SharedEntry(key: "k\($0)", value: "") }
        #expect(ClusterConfiguration.difference(many, of: "a", [], of: "b")?.hasSuffix("; 12 more keys differ") == true)
        #expect(ClusterConfiguration.difference(many, of: "a", many.reversed(), of: "b") == nil)
    }

    @Test("where the secret is")
    func secretPath() throws {
        #expect(try parse(example).secretPath == nil)
        #expect(try replaced("lease: 1s", "lease: 1s\nsecurity: {psk-file: run/psk}").secretPath == "/base/run/psk")
    }
}
