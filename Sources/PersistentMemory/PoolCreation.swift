// Making a pool: under a temporary name until all of it is durable, so that a crash leaves a complete pool or none.

internal import CHostSupport
package import CLogCore
import Glibc
public import LogModel

extension Pool {
    /// Creates a pool of `sizeBytes` (a multiple of 4096 from 128 KiB on), fully allocated, with `access`, and opens it.
    /// Fails if `path` exists. Throws `invalidValue`, `inUse`, `noSpace`, `noPersistence` or `system`.
    public static func create(
        path: String, sizeBytes: UInt64, identity: PoolIdentity, persistence: PersistenceRequest,
        access: FileAccess = .ownerOnly
    ) throws(PoolError) -> Pool {
        try create(
            path: path, sizeBytes: sizeBytes, identity: identity, persistence: persistence, access: access,
            recorder: nil)
    }

    /// The same; what passes the persistence seam is noted in a `tl_recorder` that outlives the pool. `isa`: instead of
    /// the best instructions that this processor has. `isSparse`: for tests of sizes that no machine has; against S26.
    package static func create(
        path: String, sizeBytes: UInt64, identity: PoolIdentity, persistence: PersistenceRequest,
        access: FileAccess = .ownerOnly, recorder: OpaquePointer?, isa: tl_isa? = nil, isSparse: Bool = false
    ) throws(PoolError) -> Pool {
        guard Name.isValid(identity.cluster), Name.isValid(identity.node.rawValue),
            sizeBytes % UInt64(PoolFormat.pageBytes) == 0, sizeBytes >= 128 * 1024,
            sizeBytes <= PoolFormat.maximumPoolBytes
        else {
            throw PoolError(
                .invalidValue, path: path,
                "a pool of \(sizeBytes) bytes for cluster '\(identity.cluster)', node '\(identity.node)' is not possible"
            )
        }
        if Glibc.access(path, F_OK) == 0 { throw .system(path, "create", EEXIST) }
        let temporary = path + ".creating"
        let descriptor = try claim(temporary, access)
        do throws(PoolError) {
            return try fill(
                descriptor, temporary, path: path, sizeBytes: sizeBytes, identity: identity, persistence: persistence,
                access: access, recorder: recorder, isa: isa, isSparse: isSparse)
        } catch {
            unlink(temporary)
            throw error
        }
    }

    /// Takes over the temporary file, also one that a crash left, unless another creator is at it.
    private static func claim(_ temporary: String, _ access: FileAccess) throws(PoolError) -> Descriptor {
        let descriptor = try Descriptor.open(temporary, O_RDWR | O_CREAT | O_NOFOLLOW)
        try descriptor.lock(exclusive: true, path: temporary)
        let mine = try descriptor.status(path: temporary)
        if mine.st_nlink > 1 {
            // A complete pool, whose creator died after it got its name: only this name of it goes.
            guard unlink(temporary) == 0 else { throw .system(temporary, "unlink") }
            return try claim(temporary, access)
        }
        var named = stat()
        guard lstat(temporary, &named) == 0, named.st_ino == mine.st_ino, named.st_dev == mine.st_dev else {
            throw PoolError(.inUse, path: temporary, "in use: another process creates the same pool")
        }
        try descriptor.give(access, path: temporary)
        guard ftruncate(descriptor.raw, 0) == 0 else { throw .system(temporary, "truncate") }
        return descriptor
    }

    private static func fill(
        _ descriptor: consuming sending Descriptor, _ temporary: String, path: String, sizeBytes: UInt64,
        identity: PoolIdentity, persistence: PersistenceRequest, access: FileAccess, recorder: OpaquePointer?,
        isa: tl_isa?, isSparse: Bool
    ) throws(PoolError) -> Pool {
        let failure =
            isSparse
            ? (ftruncate(descriptor.raw, off_t(sizeBytes)) == 0 ? 0 : errno)
            : posix_fallocate(descriptor.raw, 0, off_t(sizeBytes))
        guard failure == 0 else { throw .system(path, "allocate \(Size.format(sizeBytes))", failure) }
        let mapping = try Mapping.map(
            descriptor, length: Int(sizeBytes), request: persistence, path: path, isReadOnly: false, recorder: recorder,
            isa: isa)
        let superblock = Superblock(
            sequence: 1, pool: identity.uuid, sizeBytes: sizeBytes, cluster: identity.cluster, node: identity.node)
        let directory = RegionDirectory(sequence: 1, pool: identity.uuid, entries: [])
        for offset in PoolFormat.directoryOffsets { try mapping.store(directory.encoded(), at: offset) }
        for offset in PoolFormat.superblockOffsets { try mapping.store(superblock.encoded(), at: offset) }
        try descriptor.sync(path: path)
        try name(temporary, as: path)
        return Pool(
            path: path, superblock: superblock, access: access, mapping: mapping, isReadOnly: false,
            state: State(descriptor: descriptor, directory: directory, directoryTurn: 0, regions: []))
    }

    /// `link` refuses a name that exists, where `rename` would replace it.
    private static func name(_ temporary: String, as path: String) throws(PoolError) {
        guard link(temporary, path) == 0 else { throw .system(path, "create") }
        guard unlink(temporary) == 0 else { throw .system(temporary, "unlink") }
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        try Descriptor.open(folder, O_RDONLY | O_DIRECTORY).sync(path: folder)
    }
}
