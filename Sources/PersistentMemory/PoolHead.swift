// The superblock and the region directory in bytes: see docs/FORMATS.md, "The pool file". Decoding trusts nothing.

import LogModel

struct Superblock: Equatable {
    static let magic: StaticString = "TWINLOG\0"

    var sequence: UInt64
    var pool: UUID128
    var sizeBytes: UInt64
    var cluster: String
    var node: NodeID

    enum Copy {
        case valid(Superblock)
        /// Of a later format, which keeps magic, version and checksum where they are.
        case newer(UInt32, isWhole: Bool)
        /// Has the magic, and a checksum or contents that fail.
        case damaged
        case alien
    }

    func encoded() -> ByteBlock {
        var page = ByteBlock(count: PoolFormat.pageBytes)
        page.put(magic: Self.magic)
        page.put(PoolFormat.version, at: 8)
        page.put(sequence, at: 16)
        page.put(pool, at: 24)
        page.put(sizeBytes, at: 40)
        page.put(name: cluster, at: 48)
        page.put(name: node.rawValue, at: 112)
        page.put(page.checksum(of: PoolFormat.pageBytes, without: 12), at: 12)
        return page
    }

    static func decode(_ page: ByteBlock) -> Copy {
        guard page.starts(with: magic) else { return .alien }
        let version = page.get(UInt32.self, at: 8)
        let isWhole = page.get(UInt32.self, at: 12) == page.checksum(of: PoolFormat.pageBytes, without: 12)
        if version > PoolFormat.version { return .newer(version, isWhole: isWhole) }
        guard version == PoolFormat.version, isWhole, page.get(UInt64.self, at: 16) <= PoolFormat.maximumSequence,
            let cluster = page.name(at: 48), let node = page.name(at: 112)
        else { return .damaged }
        return .valid(
            Superblock(
                sequence: page.get(UInt64.self, at: 16), pool: page.uuid(at: 24),
                sizeBytes: page.get(UInt64.self, at: 40), cluster: cluster, node: NodeID(node)))
    }
}

struct RegionDirectory: Equatable {
    static let magic: StaticString = "TWINDIR\0"
    private static let firstEntryOffset = 64
    private static let entryBytes = 96

    struct Entry: Equatable {
        var group: GroupID
        var offset: UInt64
        var ringBytes: UInt64
        var end: UInt64 { offset + RegionFormat.headerBytes + ringBytes }
    }

    var sequence: UInt64
    var pool: UUID128
    var entries: [Entry]

    func encoded() -> ByteBlock {
        var page = ByteBlock(count: PoolFormat.pageBytes)
        page.put(magic: Self.magic)
        page.put(UInt32(entries.count), at: 12)
        page.put(sequence, at: 16)
        page.put(pool, at: 24)
        for (index, entry) in entries.enumerated() {
            let at = Self.firstEntryOffset + index * Self.entryBytes
            page.put(name: entry.group.rawValue, at: at)
            page.put(entry.offset, at: at + 64)
            page.put(entry.ringBytes, at: at + 72)
        }
        page.put(page.checksum(of: PoolFormat.pageBytes, without: 8), at: 8)
        return page
    }

    /// `nil` unless every entry lies inside of the pool, apart from the others.
    static func decode(_ page: ByteBlock, pool: UUID128, poolBytes: UInt64) -> RegionDirectory? {
        let count = page.get(UInt32.self, at: 12)
        guard page.starts(with: magic), count <= PoolFormat.maximumRegions, page.uuid(at: 24) == pool,
            page.get(UInt32.self, at: 8) == page.checksum(of: PoolFormat.pageBytes, without: 8),
            page.get(UInt64.self, at: 16) <= PoolFormat.maximumSequence
        else { return nil }
        var directory = RegionDirectory(sequence: page.get(UInt64.self, at: 16), pool: pool, entries: [])
        var free = PoolFormat.firstRegionOffset
        for index in 0..<Int(count) {
            let at = firstEntryOffset + index * entryBytes
            guard let name = page.name(at: at) else { return nil }
            let entry = Entry(
                group: GroupID(name), offset: page.get(UInt64.self, at: at + 64),
                ringBytes: page.get(UInt64.self, at: at + 72))
            guard isSound(entry, from: free, poolBytes: poolBytes),
                !directory.entries.contains(where: { $0.group == entry.group })
            else { return nil }
            directory.entries.append(entry)
            free = entry.end
        }
        return directory
    }

    /// Bounds each number before it is added to another (S21).
    private static func isSound(_ entry: Entry, from free: UInt64, poolBytes: UInt64) -> Bool {
        let page = UInt64(PoolFormat.pageBytes)
        return entry.offset >= free && entry.offset % page == 0 && entry.ringBytes % page == 0
            && entry.ringBytes >= PoolFormat.minimumRingBytes && entry.offset < poolBytes && entry.ringBytes < poolBytes
            && entry.end <= poolBytes
    }

    /// Where the next region goes.
    var free: UInt64 { entries.last?.end ?? PoolFormat.firstRegionOffset }
}
