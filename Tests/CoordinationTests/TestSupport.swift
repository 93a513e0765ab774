// Folders, records, raw files, and waiting for a condition.

import Coordination
import Glibc
import LogModel
import RecordSupport
import Testing

/// Removed with everything in it when it goes.
final class Folder: Sendable {
    let path: String

    init() throws {
        path = "/dev/shm/twinlog-coordination-\(UUID128.random())"
        try #require(mkdir(path, 0o700) == 0)
    }

    deinit {
        for name in names { unlink(file(name)) }
        rmdir(path)
    }

    var names: [String] { listing(of: path) }
    func file(_ name: String) -> String { "\(path)/\(name)" }
}

func listing(of path: String) -> [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}

func contents(of path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    var about = stat()
    try #require(fstat(fileno(file), &about) == 0)
    var bytes = [UInt8](repeating: 0, count: Int(about.st_size))
    let count = bytes.count
    let got = bytes.withUnsafeMutableBytes { fread($0.baseAddress, 1, count, file) }
    try #require(got == count)
    return bytes
}

func put(_ bytes: [UInt8], into path: String) throws {
    let file = try #require(fopen(path, "w"))
    defer { fclose(file) }
    try #require(fwrite(bytes, 1, bytes.count, file) == bytes.count)
}

func put(_ text: String, into path: String) throws { try put(Array(text.utf8), into: path) }

/// Waits until `condition` holds; false after `seconds`. It suspends instead of blocking: the test runner's threads are few.
func eventually(seconds: Int = 30, _ condition: () throws -> Bool) async throws -> Bool {
    for _ in 0..<seconds * 500 {
        if try condition() { return true }
        try await Task.sleep(for: .milliseconds(2))
    }
    return try condition()
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

let group = GroupID("g0")

/// A valid record; `by` tells the tests who wrote it.
func record(_ version: UInt64, by owner: String = "alpha", group: GroupID = group) -> GroupRecord {
    GroupRecord(
        version: version, group: group, logUUID: UUID128(high: 1, low: 2), owner: NodeID(owner), epoch: Epoch(version),
        phase: .published, holders: [NodeID(owner)], ownerProcess: nil,
        pools: [owner: UUID128(high: 3, low: version)])
}

/// The file that holds a version of a group's record.
func fileName(_ version: UInt64, of group: GroupID = group) -> String {
    let digits = String(version)
    return "\(group).\(String(repeating: "0", count: 20 - digits.count))\(digits)"
}

/// Adds one to the record `rounds` times, in competition with others. Every success is a version of its own.
func winVersions(_ rounds: Int, as node: String, in directory: String) throws -> [UInt64] {
    let coordinator = try FileCoordinator(directory: directory)
    var won: [UInt64] = []
    while won.count < rounds {
        let current = try coordinator.read(group)?.version ?? 0
        if case .won = try coordinator.swap(expecting: current, to: record(current + 1, by: node)) {
            won.append(current + 1)
        }
    }
    return won
}
