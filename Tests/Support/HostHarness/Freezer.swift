// A control group whose processes stand still together, what they start too (cgroup v2, `cgroup.freeze`). SIGKILL ends them all the same.

internal import ClusterHarness
internal import Foundation
internal import Glibc
internal import TestSupport

final class Freezer: Sendable {
    private let folder: String

    /// One for each name; none where this machine has no such groups for us.
    static func make(for names: [String], prefix: String) throws -> [String: Freezer] {
        guard let hierarchy = try hierarchy() else { return [:] }
        return try Dictionary(uniqueKeysWithValues: names.map { ($0, try Freezer("\(hierarchy)/\(prefix)\($0)")) })
    }

    private init(_ folder: String) throws {
        self.folder = folder
        guard mkdir(folder, 0o755) == 0 else { throw HarnessError("\(folder): \(String(cString: strerror(errno)))") }
    }

    /// Where groups can be made and frozen.
    private static func hierarchy() throws -> String? {
        let mounts = try String(contentsOfFile: "/proc/mounts", encoding: .utf8)
        let places = mounts.split(separator: "\n").map { $0.split(separator: " ") }
        return places.first { $0.count > 3 && $0[2] == "cgroup2" && $0[3].hasPrefix("rw") }.map { String($0[1]) }
    }

    func add(_ process: Int32) throws { try put("\(process)", into: "\(folder)/cgroup.procs") }

    func set(isFrozen: Bool) throws { try put(isFrozen ? "1" : "0", into: "\(folder)/cgroup.freeze") }

    /// Once its processes have ended.
    func remove() {
        guard rmdir(folder) == 0 else {
            return print("\(folder) could not be removed: \(String(cString: strerror(errno)))")
        }
    }
}
