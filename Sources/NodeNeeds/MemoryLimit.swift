// How much memory this process may use: the machine's, or what its control group or one above it leaves. Both versions of
// control groups; a container that sees only its own group sees it at the root.

public import ClusterConfiguration
internal import Foundation
internal import LogModel

public enum MemoryLimit {
    /// What speaks against what clients may take (`limits.memory`), if a process may use `bytes`.
    public static func problem(_ configuration: ClusterConfiguration, bytes: UInt64) -> ConfigurationError? {
        guard let wanted = configuration.limits.memoryBytes, wanted > bytes else { return nil }
        return configuration.source.problem(
            "limits.memory",
            "\(Size.format(wanted)) for clients alone, and a process here may use \(bytes) bytes: lower it, or leave it out for a quarter of that"
        )
    }

    /// The least of all limits that can be read. `root` is a folder in which a test keeps its own /proc and /sys.
    public static func bytes(root: String = "") -> UInt64 {
        let limits = groupLimits(root) + [machineBytes(root)].compactMap(\.self)
        // Nothing can be read: a machine that is small for a storage server.
        return limits.min() ?? 1 << 30
    }

    private static func machineBytes(_ root: String) -> UInt64? {
        let line = lines(root + "/proc/meminfo").first { $0.hasPrefix("MemTotal:") }
        return line?.split(separator: " ").dropFirst().first.flatMap { UInt64($0) }.map { $0 * 1024 }
    }

    /// A line is HIERARCHY:CONTROLLERS:PATH, of version 2 with 0 and no controllers.
    private static func groupLimits(_ root: String) -> [UInt64] {
        lines(root + "/proc/self/cgroup").flatMap { line -> [UInt64] in
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { return [] }
            if fields[1].isEmpty { return limits(from: fields[2], below: root + "/sys/fs/cgroup", "memory.max") }
            guard fields[1].split(separator: ",").contains("memory") else { return [] }
            return limits(from: fields[2], below: root + "/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
    }

    /// Of the group at `path` and of every one above it. A limit that is a word is none.
    private static func limits(from path: Substring, below mount: String, _ file: String) -> [UInt64] {
        var components = path.split(separator: "/").filter { $0 != ".." }[...]
        var limits: [UInt64] = []
        while true {
            let folder = ([mount] + components.map(String.init)).joined(separator: "/")
            limits += lines("\(folder)/\(file)").prefix(1).compactMap { UInt64($0) }
            if components.popLast() == nil { return limits }
        }
    }

    private static func lines(_ path: String) -> [Substring] {
        // What is not there sets no limit.
        guard let data = FileManager.default.contents(atPath: path) else { return [] }
        return String(decoding: data, as: UTF8.self).split(separator: "\n")
    }
}
