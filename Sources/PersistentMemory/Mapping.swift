// A pool's memory: mapped once, unmapped when the last user is gone. Knows how to make stores durable.

package import CLogCore
import Clibpmem
import Glibc

/// What a configuration may ask for.
public enum PersistenceRequest: String, Hashable, Sendable, CaseIterable {
    /// The best that the file gives.
    case auto
    /// Persistent memory, or an error.
    case pmem
    /// An ordinary file made durable by `msync`, or an error where that does not help.
    case msync
    /// As persistent memory, on anything; nothing is promised across a loss of power.
    case volatile
}

/// What a pool's persistence really is.
public enum Persistence: String, Hashable, Sendable {
    /// Durable when drained.
    case pmem
    /// Durable after `msync`.
    case msync
    /// Survives the process, not a loss of power.
    case volatile
}

package final class Mapping: @unchecked Sendable {
    // Sendable: the fields never change, and who stores where in the mapping is agreed above (log, slots under locks).
    package let base: UnsafeMutableRawPointer
    package let length: Int
    package let persist: UnsafeMutablePointer<tl_persist>
    package let persistence: Persistence
    let path: String
    let isReadOnly: Bool
    private let isFromLibpmem: Bool
    /// Its number with the watcher of memory faults (S26).
    private let watched: CInt

    private init(
        _ memory: Memory, length: Int, persistence: Persistence, path: String, isReadOnly: Bool,
        recorder: OpaquePointer?, isa: tl_isa?
    ) {
        base = memory.base
        isFromLibpmem = memory.isFromLibpmem
        self.length = length
        self.persistence = persistence
        self.path = path
        self.isReadOnly = isReadOnly
        persist = .allocate(capacity: 1)
        tl_persist_init(persist, Self.mode(for: persistence), base, length)
        persist.pointee.recorder = recorder
        if let isa { persist.pointee.isa = isa }
        watched = tl_fault_watch(base, length)
    }

    deinit {
        tl_fault_unwatch(watched)
        persist.deallocate()
        Memory(base: base, isPersistent: false, isFromLibpmem: isFromLibpmem).unmap(length)
    }

    private static func mode(for persistence: Persistence) -> tl_persist_mode {
        switch persistence {
        case .msync: TL_PERSIST_DEFERRED
        case .volatile: TL_PERSIST_LINES
        case .pmem: pmem_has_auto_flush() == 1 ? TL_PERSIST_FENCE : TL_PERSIST_LINES
        }
    }

    private struct Memory {
        var base: UnsafeMutableRawPointer
        var isPersistent: Bool
        var isFromLibpmem: Bool

        func unmap(_ length: Int) {
            _ = isFromLibpmem ? pmem_unmap(base, length) : munmap(base, length)
        }
    }

    static func map(
        _ descriptor: borrowing Descriptor, length: Int, request: PersistenceRequest, path: String, isReadOnly: Bool,
        recorder: OpaquePointer? = nil, isa: tl_isa? = nil, isOrdinaryFile: Bool = false
    ) throws(PoolError) -> Mapping {
        let inMemory = tl_file_is_in_memory(descriptor.raw)
        guard inMemory >= 0 else { throw .system(path, "fstatfs", -inMemory) }
        let memory = try memory(
            descriptor.raw, length: length, isReadOnly: isReadOnly, useLibpmem: inMemory == 0, path: path)
        do throws(PoolError) {
            let persistence = try resolve(
                request, inMemory: inMemory == 1 && !isOrdinaryFile, isPersistent: memory.isPersistent, path: path)
            return Mapping(
                memory, length: length, persistence: persistence, path: path, isReadOnly: isReadOnly,
                recorder: recorder, isa: isa)
        } catch {
            memory.unmap(length)
            throw error
        }
    }

    private static func memory(
        _ descriptor: Int32, length: Int, isReadOnly: Bool, useLibpmem: Bool, path: String
    ) throws(PoolError) -> Memory {
        if isReadOnly || !useLibpmem {
            var isDax = false
            var base: UnsafeMutableRawPointer?
            let result = tl_file_map(descriptor, length, !isReadOnly, &base, &isDax)
            guard result >= 0, let base else { throw .system(path, "mmap", -result) }
            return Memory(base: base, isPersistent: isDax, isFromLibpmem: false)
        }
        // By the descriptor, so that it is the very file that is locked.
        var mapped = 0
        var isPersistent: Int32 = 0
        guard let base = pmem_map_file("/proc/self/fd/\(descriptor)", 0, 0, 0, &mapped, &isPersistent) else {
            throw .system(path, "pmem_map_file")
        }
        let memory = Memory(base: base, isPersistent: isPersistent == 1 && !isForced, isFromLibpmem: true)
        guard mapped == length else {
            memory.unmap(mapped)
            throw PoolError(.truncated, path: path, "the file changed its size to \(mapped) bytes while it was opened")
        }
        return memory
    }

    /// libpmem was told to take anything for persistent memory: it is not evidence then.
    private static var isForced: Bool { getenv("PMEM_IS_PMEM_FORCE") != nil }

    private static func resolve(
        _ request: PersistenceRequest, inMemory: Bool, isPersistent: Bool, path: String
    ) throws(PoolError) -> Persistence {
        let found: Persistence = inMemory ? .volatile : isPersistent ? .pmem : .msync
        switch request {
        case .auto: return found
        case .volatile: return .volatile
        case .msync where !inMemory: return .msync
        case .pmem where found == .pmem: return .pmem
        case .msync:
            throw PoolError(
                .noPersistence, path: path, "on a memory file system msync makes nothing durable; use auto or volatile")
        case .pmem:
            throw PoolError(.noPersistence, path: path, "not persistent memory (\(found.rawValue)); use auto")
        }
    }

    /// From here on a store traps instead of reaching a file that may have another opener.
    func forbidStores() {
        guard mprotect(base, length, PROT_READ) == 0 else { preconditionFailure("mprotect of an own mapping failed") }
    }

    /// Whether any of its memory has failed since the mapping was made.
    var hasFaults: Bool { tl_fault_any() && tl_fault_count(watched) > 0 }

    /// Parts of `range`, bytes of the file, whose memory has failed since the mapping was made.
    func faults(in range: Range<UInt64>) -> [Range<UInt64>] {
        (0..<tl_fault_count(watched)).compactMap { index in
            var offset: UInt64 = 0, count: UInt64 = 0
            tl_fault_range(watched, index, &offset, &count)
            let part = (offset..<offset + count).clamped(to: range)
            return part.isEmpty ? nil : part
        }
    }

    func block(at offset: UInt64, count: Int) -> ByteBlock {
        precondition(offset <= UInt64(length) && count <= length - Int(offset))
        return ByteBlock(UnsafeRawBufferPointer(start: base + Int(offset), count: count))
    }

    /// Whether these very bytes are there.
    func holds(_ block: ByteBlock, at offset: UInt64) -> Bool {
        precondition(offset <= UInt64(length) && block.bytes.count <= length - Int(offset))
        return block.bytes.withUnsafeBytes { memcmp($0.baseAddress!, base + Int(offset), $0.count) == 0 }
    }

    /// Stores one self-contained block with one drain; durable when it returns.
    func store(_ block: ByteBlock, at offset: UInt64) throws(PoolError) {
        precondition(!isReadOnly && offset <= UInt64(length) && block.bytes.count <= length - Int(offset))
        block.bytes.withUnsafeBytes { tl_store_block(persist, base + Int(offset), $0.baseAddress, $0.count) }
        try sync(offset: offset, count: UInt64(block.bytes.count))
    }

    /// Brings all pages in. Those of an ordinary file are only read: dirty, they would all have to be written.
    func prefault() throws(PoolError) {
        let result = tl_file_prefault(base, length, !isReadOnly && persistence != .msync)
        guard result >= 0 else { throw .system(path, "madvise", -result) }
    }

    /// In msync mode, makes a range durable (blocking); nothing otherwise.
    package func sync(offset: UInt64, count: UInt64) throws(PoolError) {
        guard persistence == .msync, count > 0 else { return }
        precondition(offset <= UInt64(length) && count <= UInt64(length) - offset)
        tl_note_sync(persist, base + Int(offset), Int(count), false)
        guard pmem_msync(base + Int(offset), Int(count)) == 0 else { throw .system(path, "msync") }
        tl_note_sync(persist, base + Int(offset), Int(count), true)
    }
}
