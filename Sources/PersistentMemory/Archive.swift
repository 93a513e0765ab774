// An archive: the log of one region, as it was when the region was given to another log. A header page of its own, and behind it
// the region with the layout that it has in a pool, so whoever reads a pool's region reads an archive's. The format is drawn
// in docs/FORMATS.md, "The pool file".
//
// Invariants:
//  - an archive exists under its name only when it and its name are durable, and it never changes afterwards;
//  - a reader trusts nothing in it (S21).

import Glibc
public import LogModel

/// Whose log an archive holds, and what was known of it.
public struct ArchiveHeader: Hashable, Sendable {
    public var pool: PoolIdentity
    public var group: GroupID
    public var log: RegionIdentity
    public var head: LSN
    public var acknowledged: LSN
    /// Which start of the node with this pool it was (S20).
    public var generation: UInt64
    public var ringBytes: UInt64
    /// Seconds since 1970.
    public var archivedAt: UInt64

    static let magic: StaticString = "TWINARCH"
    static let version: UInt32 = 1
    /// Where the region begins in the file.
    static let regionOffset: UInt64 = 4096

    var fileBytes: UInt64 { Self.regionOffset + RegionFormat.headerBytes + ringBytes }

    func encoded() -> ByteBlock {
        var page = ByteBlock(count: PoolFormat.pageBytes)
        page.put(magic: Self.magic)
        page.put(Self.version, at: 8)
        page.put(pool.uuid, at: 16)
        page.put(log.logUUID, at: 32)
        page.put(log.incarnation.rawValue, at: 48)
        page.put(log.startLSN.rawValue, at: 56)
        page.put(head.rawValue, at: 64)
        page.put(acknowledged.rawValue, at: 72)
        page.put(generation, at: 80)
        page.put(ringBytes, at: 88)
        page.put(archivedAt, at: 96)
        page.put(log.role.rawValue, at: 104)
        page.put(UInt32(log.isReplayed ? 1 : 0), at: 108)
        page.put(name: pool.cluster, at: 112)
        page.put(name: pool.node.rawValue, at: 176)
        page.put(name: group.rawValue, at: 240)
        page.put(page.checksum(of: PoolFormat.pageBytes, without: 12), at: 12)
        return page
    }

    /// The version is looked at before anything else is believed.
    static func decode(_ page: ByteBlock, path: String) throws(PoolError) -> ArchiveHeader {
        guard page.starts(with: magic) else {
            throw PoolError(.notAPool, path: path, offset: 0, "not an archive of a log")
        }
        let version = page.get(UInt32.self, at: 8)
        guard version <= Self.version else {
            throw PoolError(
                .newerFormat, path: path, offset: 8,
                "archive format \(version) is newer than this program's \(Self.version)")
        }
        guard version == Self.version,
            page.get(UInt32.self, at: 12) == page.checksum(of: PoolFormat.pageBytes, without: 12),
            let header = ArchiveHeader(page)
        else { throw PoolError(.corrupt, path: path, offset: 0, "the archive's header is damaged") }
        return header
    }

    /// `nil` unless every value is possible.
    private init?(_ page: ByteBlock) {
        let incarnation = page.get(UInt64.self, at: 48), generation = page.get(UInt64.self, at: 80)
        let positions = [56, 64, 72].map { page.get(UInt64.self, at: $0) }
        let ringBytes = page.get(UInt64.self, at: 88), flags = page.get(UInt32.self, at: 108)
        guard let cluster = page.name(at: 112), let node = page.name(at: 176), let group = page.name(at: 240),
            let role = RegionRole(rawValue: page.get(UInt32.self, at: 104)), role != .empty, flags <= 1,
            max(incarnation, generation) <= PoolFormat.maximumSequence,
            positions.allSatisfy({ $0 <= RegionFormat.maximumLSN }),
            ringBytes % UInt64(PoolFormat.pageBytes) == 0, ringBytes >= PoolFormat.minimumRingBytes,
            ringBytes <= PoolFormat.maximumPoolBytes
        else { return nil }
        pool = PoolIdentity(uuid: page.uuid(at: 16), cluster: cluster, node: NodeID(node))
        self.group = GroupID(group)
        log = RegionIdentity(
            role: role, logUUID: page.uuid(at: 32), incarnation: Incarnation(incarnation),
            startLSN: LSN(positions[0]), isReplayed: flags == 1)
        head = LSN(positions[1])
        acknowledged = LSN(positions[2])
        self.generation = generation
        self.ringBytes = ringBytes
        archivedAt = page.get(UInt64.self, at: 96)
    }

    init(_ region: Region, _ log: RegionIdentity, of pool: PoolIdentity, archivedAt: UInt64) {
        self.pool = pool
        self.log = log
        self.archivedAt = archivedAt
        group = region.group
        head = region.head
        acknowledged = region.acknowledged
        generation = region.standing.generation
        ringBytes = region.ringBytes
    }
}

/// An archive that was opened to be read. Safe from any number of threads.
public struct Archive: Sendable {
    public let path: String
    public let header: ArchiveHeader
    /// Read-only.
    public let region: Region
    public let sizeBytes: UInt64

    /// Whether the file begins as an archive does. Throws `system`.
    public static func isArchive(_ path: String) throws(PoolError) -> Bool {
        let descriptor = try Descriptor.open(path, O_RDONLY | O_NONBLOCK)
        // A pipe in the place of a file has nothing to look at.
        guard try descriptor.status(path: path).st_mode & S_IFMT == S_IFREG else { return false }
        var bytes = [UInt8](repeating: 0, count: 8)
        let count = bytes.withUnsafeMutableBytes { pread(descriptor.raw, $0.baseAddress, $0.count, 0) }
        guard count >= 0 else { throw .system(path, "read", offset: 0) }
        return bytes.withUnsafeBytes { ByteBlock($0) }.starts(with: ArchiveHeader.magic)
    }

    /// Throws `notAPool`, `newerFormat`, `truncated`, `corrupt` or `system`.
    public static func open(path: String) throws(PoolError) -> Archive {
        let descriptor = try Descriptor.open(path, O_RDONLY | O_NONBLOCK)
        let about = try descriptor.status(path: path)
        guard about.st_mode & S_IFMT == S_IFREG else { throw PoolError(.notAPool, path: path, "not a regular file") }
        let bytes = UInt64(max(0, about.st_size))
        guard bytes >= PoolFormat.pageBytes else {
            throw PoolError(.truncated, path: path, offset: bytes, "truncated: an archive's header ends here")
        }
        let header = try ArchiveHeader.decode(
            descriptor.read(PoolFormat.pageBytes, at: 0, path: path), path: path)
        guard bytes == header.fileBytes else {
            throw PoolError(
                bytes < header.fileBytes ? .truncated : .corrupt, path: path, offset: min(bytes, header.fileBytes),
                "an archive of \(header.fileBytes) bytes, the file has \(bytes)")
        }
        let mapping = try Mapping.map(
            descriptor, length: Int(bytes), request: .auto, path: path, isReadOnly: true)
        let region = try Region(
            RegionDirectory.Entry(group: header.group, offset: ArchiveHeader.regionOffset, ringBytes: header.ringBytes),
            in: mapping)
        guard region.identity == header.log else {
            throw PoolError(
                .corrupt, path: path, offset: ArchiveHeader.regionOffset,
                "the header and the region behind it are of different logs")
        }
        return Archive(path: path, header: header, region: region, sizeBytes: bytes)
    }
}
