// A node under a supervisor: what it is told, from the start to the end.

import ClusterHarness
import Foundation
import Glibc
import Testing

extension Cluster {
    @Suite(.serialized) struct SupervisorTests {
        @Test("A supervisor hears that a node is ready, alive, reloading and stopping")
        func notifications() async throws {
            try await withCluster(started: false) { cluster in
                let path = cluster.folder + "/notify"
                let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
                defer { close(descriptor) }
                var address = sockaddr_un()
                address.sun_family = sa_family_t(AF_UNIX)
                withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
                let bound = withUnsafePointer(to: &address) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                    }
                }
                try #require(bound == 0)
                var heard: [String] = []
                func hears(_ what: String, _ field: String, times: Int = 1) async throws {
                    try await cluster.wait(what) {
                        var bytes = [UInt8](repeating: 0, count: 4096)
                        while case let count = recv(descriptor, &bytes, bytes.count, 0), count > 0 {
                            heard += String(decoding: bytes.prefix(count), as: UTF8.self)
                                .split(separator: "\n").map(String.init)
                        }
                        return heard.filter { $0.hasPrefix(field) }.count >= times
                    }
                }
                try cluster.start("beta")
                try cluster.start("alpha", through: ["/usr/bin/env", "NOTIFY_SOCKET=\(path)", "WATCHDOG_USEC=300000"])
                try await hears("ready", "READY=1")
                #expect(cluster.group(at: "alpha") != nil)
                try await hears("fed", "WATCHDOG=1", times: 3)
                try await cluster.waitUntilMirrored()
                cluster.signal("alpha", SIGHUP)
                try await hears("reloading", "RELOADING=1")
                try await hears("reloading", "MONOTONIC_USEC=")
                try await hears("ready again", "READY=1", times: 2)
                #expect(cluster.stop("alpha") == 0)
                try await hears("stopping", "STOPPING=1")
                try await hears("asked for time", "EXTEND_TIMEOUT_USEC=")
                try await hears("told of its state", "STATUS=", times: 3)
            }
        }
    }
}
