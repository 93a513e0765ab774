// A coordinator in a directory that every node can reach: on one host, or on a shared file system with atomic `link`.
//
// A record of version v of group g is the file `g.v` (20 digits), written under another name, made durable, and linked
// into place: `link` fails if the name exists, so of several swappers from v-1 one wins, and no lock is held at any time.
// Then the directory is made durable. The record is the file with the highest version.
//
// Old versions are removed, so a name can become free again: a swapper that slept through several versions could link a
// low one. It therefore looks again *after* its link, and has lost if a higher version exists. Whoever reads takes the
// highest, so such a file misleads nobody. A winner that was overtaken at once is told that it lost, which is true by then.
//
// A reader makes the directory durable before it believes a version that it has not seen, since its writer may have died
// between link and fsync.
//
// Presences are files replaced by `rename` without fsync: they say that a process is alive now, and mean nothing after a crash.

internal import Foundation
internal import Glibc
public import LogModel
internal import Synchronization

public final class FileCoordinator: Coordinator {
    /// Far above any record; bounds what a damaged directory makes a reader load.
    static let maximumFileBytes = 64 << 10
    /// Versions kept for people who want to see what happened.
    static let keptVersions: UInt64 = 8
    static let formatVersion = 1

    public let directory: String
    private let durableVersions = Mutex<[GroupID: UInt64]>([:])

    /// Creates the directory (mode 0700) if it is missing.
    public init(directory: String) throws(CoordinationError) {
        self.directory = directory
        if mkdir(directory, 0o700) != 0 && errno != EEXIST {
            throw Self.unreachable(directory, "cannot be created", errno)
        }
    }

    private struct Body: Codable {
        var format: Int
        var record: GroupRecord
    }

    private struct FormatOnly: Codable { var format: Int }

    // MARK: Records

    public func read(_ group: GroupID) throws(CoordinationError) -> GroupRecord? {
        // A version can be pruned between listing and opening only if higher ones exist by then.
        for _ in 0..<100 {
            guard let version = try highestVersion(of: group) else { return nil }
            let path = path(of: group, version)
            guard let bytes = try contents(of: path) else { continue }
            let record = try decode(bytes, path: path)
            guard record.version == version, record.group == group else {
                throw CoordinationError(
                    .invalidRecord, "\(path): holds version \(record.version) of group \(record.group)")
            }
            if durableVersions.withLock({ $0[group] }) != version {
                try syncDirectory()
                durableVersions.withLock { $0[group] = version }
            }
            return record
        }
        throw CoordinationError(.unreachable, "\(directory): the record of \(group) changes faster than it can be read")
    }

    public func swap(expecting expected: UInt64, to record: GroupRecord) throws(CoordinationError) -> SwapOutcome {
        precondition(record.version == expected + 1, "a swap raises the version by one")
        guard try highestVersion(of: record.group) ?? 0 == expected else { return .lost(try read(record.group)) }
        let temporary = temporaryPath("swap")
        defer { unlink(temporary) }
        try write(Body(format: Self.formatVersion, record: record), to: temporary, durable: true)
        if link(temporary, path(of: record.group, record.version)) != 0 {
            guard errno == EEXIST else {
                throw Self.unreachable(directory, "a record cannot be linked into place", errno)
            }
            return .lost(try read(record.group))
        }
        try syncDirectory()
        guard try highestVersion(of: record.group) == record.version else { return .lost(try read(record.group)) }
        durableVersions.withLock { $0[record.group] = record.version }
        prune(record.group, below: record.version)
        return .won
    }

    private func path(of group: GroupID, _ version: UInt64) -> String {
        let digits = String(version)
        return "\(directory)/\(group).\(String(repeating: "0", count: 20 - digits.count))\(digits)"
    }

    private func versions(of group: GroupID) throws(CoordinationError) -> [UInt64] {
        guard let stream = opendir(directory) else { throw Self.unreachable(directory, "cannot be listed", errno) }
        defer { closedir(stream) }
        let prefix = "\(group)."
        var found: [UInt64] = []
        while true {
            errno = 0
            guard let entry = readdir(stream) else { break }
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name.hasPrefix(prefix) else { continue }
            let digits = name.utf8.dropFirst(prefix.utf8.count)
            let isNumber = digits.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            guard digits.count == 20, isNumber, let version = UInt64(Substring(digits)) else { continue }
            found.append(version)
        }
        // Half a listing could hide the newest version, or all of them.
        guard errno == 0 else { throw Self.unreachable(directory, "cannot be listed", errno) }
        return found
    }

    private func highestVersion(of group: GroupID) throws(CoordinationError) -> UInt64? {
        try versions(of: group).max()
    }

    /// Housekeeping: a version that stays because of an error harms nobody.
    private func prune(_ group: GroupID, below version: UInt64) {
        guard let versions = try? versions(of: group) else { return }
        for old in versions where old <= version && version - old >= Self.keptVersions { unlink(path(of: group, old)) }
    }

    private func decode(_ bytes: [UInt8], path: String) throws(CoordinationError) -> GroupRecord {
        let data = Data(bytes)
        do {
            let format = try JSONDecoder().decode(FormatOnly.self, from: data).format
            guard format == Self.formatVersion else {
                throw CoordinationError(
                    .invalidRecord,
                    "\(path): format \(format) is not the one that this version reads (\(Self.formatVersion))")
            }
            let record = try JSONDecoder().decode(Body.self, from: data).record
            if let problem = record.problem { throw CoordinationError(.invalidRecord, "\(path): \(problem)") }
            return record
        } catch let error as CoordinationError {
            throw error
        } catch {
            throw CoordinationError(.invalidRecord, "\(path): is not a record: \(error)")
        }
    }

    // MARK: Presences

    private func presencePath(_ node: NodeID) -> String { "\(directory)/presence.\(node)" }

    public func announce(_ presence: Presence) throws(CoordinationError) {
        let temporary = temporaryPath("presence")
        defer { unlink(temporary) }
        try write(presence, to: temporary, durable: false)
        guard rename(temporary, presencePath(presence.process.node)) == 0 else {
            throw Self.unreachable(directory, "a presence cannot be put in place", errno)
        }
    }

    public func presence(of node: NodeID) throws(CoordinationError) -> Presence? {
        let path = presencePath(node)
        guard let bytes = try contents(of: path) else { return nil }
        do {
            let presence = try JSONDecoder().decode(Presence.self, from: Data(bytes))
            guard presence.process.node == node else {
                throw CoordinationError(.invalidRecord, "\(path): is the presence of '\(presence.process.node)'")
            }
            return presence
        } catch let error as CoordinationError {
            throw error
        } catch {
            throw CoordinationError(.invalidRecord, "\(path): is not a presence: \(error)")
        }
    }

    // MARK: Files

    /// A name that nobody else uses or used: a swapper that was killed after its `link` leaves a second name of the very
    /// record, and pids are equal across containers, hosts and restarts.
    private func temporaryPath(_ kind: String) -> String { "\(directory)/.\(kind).\(UUID128.random())" }

    private func write(_ value: some Encodable, to path: String, durable: Bool) throws(CoordinationError) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        let data: Data
        do {
            data = try encoder.encode(value)
        } catch {
            throw CoordinationError(.invalidRecord, "\(path): cannot be encoded: \(error)")
        }
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Self.unreachable(path, "cannot be created", errno) }
        defer { close(descriptor) }
        let written = data.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress!, $0.count) }
        guard written == data.count, !durable || fsync(descriptor) == 0 else {
            throw Self.unreachable(path, "cannot be written", errno)
        }
    }

    /// `nil` if there is no such file.
    private func contents(of path: String) throws(CoordinationError) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw Self.unreachable(path, "cannot be opened", errno)
        }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: Self.maximumFileBytes + 1)
        var count = 0
        while count < bytes.count {
            let more = bytes.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress! + count, $0.count - count)
            }
            if more < 0 && errno == EINTR { continue }
            guard more >= 0 else { throw Self.unreachable(path, "cannot be read", errno) }
            if more == 0 { break }
            count += more
        }
        guard count <= Self.maximumFileBytes else {
            throw CoordinationError(.invalidRecord, "\(path): is larger than \(Self.maximumFileBytes) bytes")
        }
        return Array(bytes.prefix(count))
    }

    private func syncDirectory() throws(CoordinationError) {
        let descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.unreachable(directory, "cannot be opened", errno) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw Self.unreachable(directory, "cannot be made durable", errno) }
    }

    private static func unreachable(_ path: String, _ what: String, _ number: CInt) -> CoordinationError {
        CoordinationError(.unreachable, "\(path): \(what): \(String(cString: strerror(number)))")
    }
}

extension GroupRecord {
    /// Swaps that no cluster ever makes; what is below can be raised without overflow.
    static let maximumCount: UInt64 = 1 << 62

    /// Why the record cannot be true, or `nil` (S21).
    var problem: String? {
        let nodes = [owner] + inSync + sources + mustFence.map(\.node)
        if !Name.isValid(group.rawValue) || nodes.contains(where: { !Name.isValid($0.rawValue) }) {
            return "a name is not valid"
        }
        if version == 0 || epoch == .none { return "version and epoch begin at 1" }
        if version > Self.maximumCount || epoch.rawValue > Self.maximumCount {
            return "version or epoch is beyond counting"
        }
        if inSync.isEmpty || !inSync.contains(owner) { return "the owner is not in the in-sync set" }
        if phase == .claimed && sources.isEmpty { return "claimed from nobody" }
        if phase == .published && !(sources.isEmpty && mustFence.isEmpty) { return "published, but not recovered" }
        if nodes.count > 64 || pools.count > 64 { return "more nodes than a group can have" }
        return nil
    }
}
