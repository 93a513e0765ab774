// A pool: one file of persistent memory that belongs to one node of one cluster, with a region for each group that the
// node takes part in.
//
// Invariants:
//  - one opener at a time may write: an exclusive lock is held from open to close;
//  - a refusal changes nothing in the file (S20, S21); only a writer that was admitted heals torn copies;
//  - a pool exists under its name only when it is complete and durable, and is fully allocated (S26).

import Glibc
public import LogModel
import Synchronization

public struct PoolIdentity: Hashable, Sendable {
    public var uuid: UUID128
    public var cluster: String
    public var node: NodeID

    public init(uuid: UUID128, cluster: String, node: NodeID) {
        self.uuid = uuid
        self.cluster = cluster
        self.node = node
    }
}

/// Safe from any number of threads.
public final class Pool: Sendable {
    public let path: String
    public let identity: PoolIdentity
    public let sizeBytes: UInt64
    public let isReadOnly: Bool
    /// Of the files that are made beside it.
    public let access: FileAccess
    let mapping: Mapping
    /// As it is in the file; it never changes.
    let superblock: Superblock
    let state: Mutex<State>

    struct State: ~Copyable {
        private var descriptor: Descriptor?
        /// -1 once it is closed.
        private(set) var raw: Int32
        var directory: RegionDirectory
        var directoryTurn: Int
        var regions: [Region]

        init(
            descriptor: consuming Descriptor, directory: RegionDirectory, directoryTurn: Int, regions: [Region]
        ) {
            raw = descriptor.raw
            self.descriptor = consume descriptor
            self.directory = directory
            self.directoryTurn = directoryTurn
            self.regions = regions
        }

        mutating func close() {
            raw = -1
            descriptor = nil
        }
    }

    public var persistence: Persistence { mapping.persistence }
    /// In the order of their places in the file.
    public var regions: [Region] { state.withLock { $0.regions } }

    public func region(of group: GroupID) -> Region? {
        state.withLock { $0.regions.first { $0.group == group } }
    }

    init(
        path: String, superblock: Superblock, access: FileAccess, mapping: Mapping, isReadOnly: Bool,
        state: consuming sending State
    ) {
        self.path = path
        self.mapping = mapping
        self.superblock = superblock
        self.isReadOnly = isReadOnly
        self.access = access
        identity = PoolIdentity(uuid: superblock.pool, cluster: superblock.cluster, node: superblock.node)
        sizeBytes = superblock.sizeBytes
        self.state = Mutex(state)
    }

    /// Releases the lock. The memory can be read until the last region and log are gone; a store through them traps.
    /// A second call does nothing.
    public func close() {
        state.withLock { state in
            mapping.forbidStores()
            state.close()
        }
    }

    /// Brings all of the pool's pages in, so that no append meets a page fault. Blocks; a pool that is larger than the
    /// memory that is free is better left alone. Throws `system`.
    public func prefault() throws(PoolError) { try mapping.prefault() }

    /// Adds a region for `group`, durably. `ringBytes`: a multiple of 4096, at least 64 KiB. Throws `regionExists`,
    /// `directoryFull`, `noSpace`, `invalidValue` or `system`; a crash leaves the directory with or without the region.
    public func allocateRegion(group: GroupID, ringBytes: UInt64) throws(PoolError) -> Region {
        precondition(!isReadOnly)
        guard Name.isValid(group.rawValue), ringBytes % UInt64(PoolFormat.pageBytes) == 0,
            ringBytes >= PoolFormat.minimumRingBytes, ringBytes <= PoolFormat.maximumPoolBytes
        else {
            throw PoolError(
                .invalidValue, path: path, "a region of \(ringBytes) bytes for group '\(group)' is not possible")
        }
        return try state.withLock { state throws(PoolError) in
            let entry = RegionDirectory.Entry(group: group, offset: state.directory.free, ringBytes: ringBytes)
            try admit(entry, state.directory)
            let region = try Region(entry, in: mapping)
            var directory = state.directory
            directory.entries.append(entry)
            directory.sequence += 1
            guard directory.sequence <= PoolFormat.maximumSequence else {
                throw PoolError(
                    .corrupt, path: path, offset: PoolFormat.directoryOffsets[0],
                    "sequence \(directory.sequence) is beyond what the format holds: this directory was not written by TwinLog"
                )
            }
            // The older copy first; then its twin, so that one rotten copy never hides a region.
            for turn in [state.directoryTurn, 1 - state.directoryTurn] {
                try mapping.store(directory.encoded(), at: PoolFormat.directoryOffsets[turn])
            }
            state.directory = directory
            state.regions.append(region)
            return region
        }
    }

    private func admit(_ entry: RegionDirectory.Entry, _ directory: RegionDirectory) throws(PoolError) {
        if directory.entries.contains(where: { $0.group == entry.group }) {
            throw PoolError(.regionExists, path: path, "group \(entry.group) has a region already")
        }
        if directory.entries.count == PoolFormat.maximumRegions {
            throw PoolError(.directoryFull, path: path, "a pool holds at most \(PoolFormat.maximumRegions) regions")
        }
        if entry.end > sizeBytes {
            throw PoolError(
                .noSpace, path: path,
                "a log of \(Size.format(entry.ringBytes)) needs \(entry.end) bytes of pool, which has \(sizeBytes)")
        }
    }
}
