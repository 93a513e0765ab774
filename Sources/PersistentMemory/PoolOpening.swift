// Opening a pool that exists: every refusal comes before the first store, and names what is wrong and where.

package import CLogCore
import Glibc
public import LogModel

extension Pool {
    /// Opens the pool at `path`, exclusively, or beside other readers if `readOnly`. `expecting` refuses a pool of
    /// another cluster or node as `foreign`; `access` is of the files that are made beside it. Throws also `notAPool`, `truncated`, `newerFormat`, `corrupt`, `inUse`,
    /// `noPersistence` and `system`.
    public static func open(
        path: String, expecting: (cluster: String, node: NodeID)?, persistence: PersistenceRequest,
        readOnly: Bool = false, access: FileAccess = .ownerOnly
    ) throws(PoolError) -> Pool {
        try open(
            path: path, expecting: expecting, persistence: persistence, readOnly: readOnly, access: access,
            recorder: nil)
    }

    /// The same; see ``create(path:sizeBytes:identity:persistence:recorder:isa:)``. `isOrdinaryFile`: one on the memory file
    /// system is held to be a file on a disk.
    package static func open(
        path: String, expecting: (cluster: String, node: NodeID)?, persistence: PersistenceRequest, readOnly: Bool,
        access: FileAccess = .ownerOnly, recorder: OpaquePointer?, isa: tl_isa? = nil, isOrdinaryFile: Bool = false
    ) throws(PoolError) -> Pool {
        // O_NONBLOCK: a pipe in the place of a pool is refused, not waited for.
        let descriptor = try Descriptor.open(path, (readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK)
        _ = try regularFileBytes(descriptor, path)
        try descriptor.lock(exclusive: !readOnly, path: path)
        let superblock = try admit(descriptor, path, expecting)
        let mapping = try Mapping.map(
            descriptor, length: Int(superblock.sizeBytes), request: persistence, path: path, isReadOnly: readOnly,
            recorder: recorder, isa: isa, isOrdinaryFile: isOrdinaryFile)
        let (directory, turn) = try directory(mapping, superblock)
        var regions: [Region] = []
        for entry in directory.entries { regions.append(try Region(entry, in: mapping)) }
        if !readOnly { try heal(superblock, directory, regions, in: mapping) }
        return Pool(
            path: path, superblock: superblock, access: access, mapping: mapping, isReadOnly: readOnly,
            state: State(descriptor: descriptor, directory: directory, directoryTurn: turn, regions: regions))
    }

    /// The superblock of a pool that is whole, and belongs to whom it is expected to.
    static func admit(
        _ descriptor: borrowing Descriptor, _ path: String, _ expecting: (cluster: String, node: NodeID)?
    ) throws(PoolError) -> Superblock {
        let fileBytes = try regularFileBytes(descriptor, path)
        guard fileBytes >= PoolFormat.firstRegionOffset else { throw try tooShort(descriptor, fileBytes, path) }
        let superblock = try superblock(fileBytes: fileBytes, path: path) { offset throws(PoolError) in
            try descriptor.read(PoolFormat.pageBytes, at: offset, path: path)
        }
        if let expecting, expecting != (superblock.cluster, superblock.node) {
            throw PoolError(
                .foreign, path: path, offset: 48,
                "this pool belongs to node \(superblock.node) of cluster \(superblock.cluster), not to node "
                    + "\(expecting.node) of cluster \(expecting.cluster)")
        }
        return superblock
    }

    private static func regularFileBytes(_ descriptor: borrowing Descriptor, _ path: String) throws(PoolError) -> UInt64
    {
        let about = try descriptor.status(path: path)
        guard about.st_mode & S_IFMT == S_IFREG else { throw PoolError(.notAPool, path: path, "not a regular file") }
        return UInt64(max(0, about.st_size))
    }

    /// The version is looked at before anything else is believed; then checksums; then the size. A copy that cannot be read is
    /// like one that is damaged (S26).
    static func superblock(
        fileBytes: UInt64, path: String, read: (_ offset: UInt64) throws(PoolError) -> ByteBlock
    ) throws(PoolError) -> Superblock {
        var valid: [Superblock] = []
        var damagedOffset: UInt64?
        var unreadable: PoolError?
        var newer: PoolError?
        for offset in PoolFormat.superblockOffsets {
            let page: ByteBlock
            do throws(PoolError) {
                page = try read(offset)
            } catch {
                unreadable = unreadable ?? error
                continue
            }
            switch Superblock.decode(page) {
            case .valid(let superblock): valid.append(superblock)
            case .damaged: damagedOffset = damagedOffset ?? offset
            case .alien: continue
            case .newer(let version, let isWhole):
                let error = PoolError(
                    .newerFormat, path: path, offset: offset + 8,
                    "pool format \(version) is newer than this program's \(PoolFormat.version)")
                if isWhole { throw error }
                newer = error
            }
        }
        // A version whose checksum fails is a rotten byte, as long as the twin says otherwise.
        if let newer, valid.isEmpty { throw newer }
        guard let superblock = valid.max(by: { $0.sequence < $1.sequence }) else {
            if let unreadable { throw unreadable }
            if let offset = damagedOffset {
                throw PoolError(.corrupt, path: path, offset: offset, "no copy of the superblock is intact")
            }
            throw PoolError(.notAPool, path: path, offset: 0, "not a TwinLog pool")
        }
        if fileBytes < superblock.sizeBytes {
            throw PoolError(
                .truncated, path: path, offset: fileBytes,
                "truncated: a pool of \(superblock.sizeBytes) bytes ends here")
        }
        guard fileBytes == superblock.sizeBytes else {
            throw PoolError(
                .corrupt, path: path, offset: superblock.sizeBytes,
                "the file goes on to \(fileBytes) behind the pool's end")
        }
        return superblock
    }

    private static func tooShort(
        _ descriptor: borrowing Descriptor, _ fileBytes: UInt64, _ path: String
    ) throws(PoolError) -> PoolError {
        let beginning = try descriptor.read(Int(min(fileBytes, 8)), at: 0, path: path)
        return beginning.bytes.count == 8 && beginning.starts(with: Superblock.magic)
            ? PoolError(.truncated, path: path, offset: fileBytes, "truncated: a pool's file ends here")
            : PoolError(.notAPool, path: path, offset: 0, "not a TwinLog pool")
    }

    /// The newer valid copy, and the one to be written next.
    static func directory(_ mapping: Mapping, _ superblock: Superblock) throws(PoolError) -> (
        RegionDirectory, Int
    ) {
        let copies = PoolFormat.directoryOffsets.map {
            RegionDirectory.decode(
                mapping.block(at: $0, count: PoolFormat.pageBytes), pool: superblock.pool,
                poolBytes: superblock.sizeBytes)
        }
        let newest = (copies[1]?.sequence ?? 0) > (copies[0]?.sequence ?? 0) ? 1 : 0
        guard let directory = copies[newest] else {
            throw PoolError(
                .corrupt, path: mapping.path, offset: PoolFormat.directoryOffsets[0],
                "no copy of the region directory is intact")
        }
        return (directory, 1 - newest)
    }

    /// Writes every copy that differs from the one that counts.
    private static func heal(
        _ superblock: Superblock, _ directory: RegionDirectory, _ regions: [Region], in mapping: Mapping
    ) throws(PoolError) {
        let wanted =
            PoolFormat.superblockOffsets.map { ($0, superblock.encoded()) }
            + PoolFormat.directoryOffsets.map { ($0, directory.encoded()) }
        for (offset, page) in wanted where !mapping.holds(page, at: offset) {
            try mapping.store(page, at: offset)
        }
        for region in regions { try region.healSlots() }
    }
}
