// The memory that the process may use, from a /proc and a /sys of the test's own (O5).

import Foundation
import LogModel
import NodeNeeds
import Testing

struct MemoryLimitTests {
    private static let machine = ("/proc/meminfo", "MemFree: 1 kB\nMemTotal:       16384 kB\n")

    @Test(
        "O5: the least limit counts, of both versions of control groups, inside of a container and outside",
        arguments: [
            ([machine], 16 << 20),
            ([machine, ("/proc/self/cgroup", "0::/a/b\n"), ("/sys/fs/cgroup/a/b/memory.max", "4194304\n")], 4 << 20),
            (
                [
                    machine, ("/proc/self/cgroup", "0::/a/b\n"), ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("/sys/fs/cgroup/a/memory.max", "2097152\n"),
                ], 2 << 20
            ),
            ([machine, ("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "1048576\n")], 1 << 20),
            ([machine, ("/proc/self/cgroup", "0::/../..\n"), ("/sys/fs/cgroup/memory.max", "1048576\n")], 1 << 20),
            (
                [
                    machine, ("/proc/self/cgroup", "5:cpu,memory:/docker/x\n4:pids:/docker/x\n0::/docker/x\n"),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "3145728\n"),
                ], 3 << 20
            ),
            (
                [
                    machine, ("/proc/self/cgroup", "5:memory:/\n"),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ], 16 << 20
            ),
            ([], 1 << 30),
        ] as [([(String, String)], UInt64)])
    func theLeastLimitCounts(files: [(String, String)], bytes: UInt64) throws {
        let root = "/tmp/twinlog-memory-\(UUID128.random())"
        defer { _ = Result { try FileManager.default.removeItem(atPath: root) } }
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        for (path, text) in files {
            let url = URL(fileURLWithPath: root + path)
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.write(to: url, atomically: false, encoding: .utf8)
        }
        #expect(MemoryLimit.bytes(root: root) == bytes)
    }

    @Test func thisMachineHasALimit() {
        #expect((1 << 20...1 << 50).contains(MemoryLimit.bytes()))
    }
}
