// A regular file or a block device as a medium. Writes go through the page cache and are durable after `fdatasync`. The
// exclusive lock belongs to the open file description, so it ends with the process that holds it and acquiring it
// confirms that no other writer is left (S18).

internal import CHostSupport
internal import Glibc
public import LogModel
internal import Synchronization

public final class FileMedium: Medium {
    public let path: String
    /// Less than the configuration says where the file has not been made longer yet.
    public var sizeBytes: UInt64 { size.load(ordering: .relaxed) }
    private let size: Atomic<UInt64>
    public let file: FileIdentity
    let descriptor: CInt
    let isBlockDevice: Bool
    private let readyRead: tl_ready_read
    /// ``sizeBytes``, or the least that the file was seen to have since it was opened.
    private let leastBytes: Atomic<UInt64>

    /// Opens `path`, without the lock. A missing file is created sparse with `access` and an identity if `createIfMissing`.
    /// Throws `missing`, `notAMedium`, `open`, or `wrongSize` if what exists is of another size. A block device may be larger, and a file
    /// that nothing was cut off smaller: see ``grow(to:)``.
    public static func open(
        path: String, sizeBytes: UInt64, createIfMissing: Bool, access: FileAccess = .ownerOnly
    ) throws(MediumError) -> FileMedium {
        var descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC)
        if descriptor < 0 && errno == ENOENT && createIfMissing {
            try create(path: path, sizeBytes: sizeBytes, access: access)
            descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC)
        }
        return try FileMedium(path: path, opened: descriptor, sizeBytes: sizeBytes)
    }

    /// Opens `path` for reading only, if it could be opened for writing: a look that changes nothing and takes no lock.
    public static func look(path: String, sizeBytes: UInt64) throws(MediumError) -> FileMedium {
        let medium = try FileMedium(
            path: path, opened: Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), sizeBytes: sizeBytes)
        guard faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 else {
            throw failure(.open, path, "cannot be written", errno)
        }
        return medium
    }

    /// Writing to it takes no more space. False if that cannot be told.
    public var isFullyAllocated: Bool {
        var status = stat()
        return isBlockDevice || (fstat(descriptor, &status) == 0 && UInt64(max(0, status.st_blocks)) * 512 >= sizeBytes)
    }

    /// Takes ownership of what `open` answered.
    private convenience init(path: String, opened descriptor: CInt, sizeBytes: UInt64) throws(MediumError) {
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT:
                throw MediumError(
                    .missing,
                    "\(path): does not exist; mount what it is on, or for a new volume make a file of \(sizeBytes) bytes",
                    errno: ENOENT)
            case EISDIR: throw MediumError(.notAMedium, "\(path): is a directory, not a medium", errno: EISDIR)
            case let number: throw Self.failure(.open, path, "cannot be opened", number)
            }
        }
        do throws(MediumError) {
            try self.init(path: path, descriptor: descriptor, sizeBytes: sizeBytes)
        } catch {
            Glibc.close(descriptor)
            throw error
        }
    }

    /// Takes ownership of `descriptor` unless it throws.
    private init(path: String, descriptor: CInt, sizeBytes: UInt64) throws(MediumError) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw Self.failure(.open, path, "has no status", errno) }
        isBlockDevice = status.st_mode & S_IFMT == S_IFBLK
        guard isBlockDevice || status.st_mode & S_IFMT == S_IFREG else {
            let isDirectory = status.st_mode & S_IFMT == S_IFDIR
            throw MediumError(
                .notAMedium,
                "\(path): is \(isDirectory ? "a directory, not a medium" : "neither a file nor a block device")"
            )
        }
        // What a file is says more than its size does.
        if !isBlockDevice { try Self.checkKind(of: descriptor, path: path) }
        let actual = try Self.size(of: descriptor, isBlockDevice, path)
        let isUsable =
            isBlockDevice
            ? actual >= sizeBytes : actual == sizeBytes || actual < sizeBytes && Self.isUncut(descriptor, actual)
        guard isUsable else { throw Self.wrongSize(path, actual, sizeBytes) }
        readyRead = tl_host_ready_read(descriptor, isBlockDevice)
        file = FileIdentity(status)
        self.path = path
        self.descriptor = descriptor
        size = Atomic(min(actual, sizeBytes))
        leastBytes = Atomic(min(actual, sizeBytes))
    }

    func setSize(_ bytes: UInt64) {
        size.store(bytes, ordering: .relaxed)
        leastBytes.store(bytes, ordering: .relaxed)
    }

    private static func size(of descriptor: CInt, _ isBlockDevice: Bool, _ path: String) throws(MediumError) -> UInt64 {
        if isBlockDevice {
            var bytes: UInt64 = 0
            let result = tl_host_block_size(descriptor, &bytes)
            guard result >= 0 else { throw failure(.open, path, "does not tell its size", -result) }
            return bytes
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure(.open, path, "has no status", errno) }
        return UInt64(max(0, status.st_size))
    }

    private static func wrongSize(_ path: String, _ actual: UInt64, _ configured: UInt64) -> MediumError {
        MediumError(.wrongSize, "\(path): is \(actual) bytes, but the configuration says \(configured)")
    }

    /// The lock is let go by name: a child of this process that is between fork and exec shares the open description.
    deinit {
        HeldLocks.remove(file, descriptor)
        _ = tl_host_unlock(descriptor)
        Glibc.close(descriptor)
    }

    /// Built under another name and linked into place, so that the file never exists with another size. The name is
    /// random: one made of the pid would be taken, for good, if an earlier process of that pid was killed in here. It stands
    /// in no error: whoever tries again is to hear the same reason again.
    private static func create(path: String, sizeBytes: UInt64, access: FileAccess) throws(MediumError) {
        let temporary = "\(path).new-\(UUID128.random())"
        let descriptor = Glibc.open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure(.open, path, "cannot be created", errno) }
        defer {
            Glibc.close(descriptor)
            unlink(temporary)
        }
        let given = tl_host_set_access(descriptor, access.mode, access.group ?? .max)
        guard given >= 0 else { throw failure(.open, path, "cannot be given its mode and group", -given) }
        let named = setIdentity(.random(), of: descriptor)
        guard named >= 0 || named == -EOPNOTSUPP else {
            throw failure(.open, path, "cannot be given an identity", -named)
        }
        noteSize(sizeBytes, of: descriptor)
        guard ftruncate(descriptor, off_t(sizeBytes)) == 0, fsync(descriptor) == 0 else {
            throw failure(.open, path, "cannot be given \(sizeBytes) bytes", errno)
        }
        guard link(temporary, path) == 0 || errno == EEXIST else {
            throw failure(.open, path, "cannot be created", errno)
        }
        try syncDirectory(of: path)
    }

    private static func syncDirectory(of path: String) throws(MediumError) {
        let parent = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let directory = parent.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : parent
        let descriptor = Glibc.open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(.open, directory, "cannot be opened", errno) }
        defer { Glibc.close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure(.flush, directory, "cannot be made durable", errno) }
    }

    static func failure(_ code: MediumError.Code, _ path: String, _ what: String, _ number: CInt) -> MediumError {
        let limit = number == EFBIG ? Size.fileLimit(tl_process_file_size_limit()) : ""
        return MediumError(code, "\(path): \(what): \(String(cString: strerror(number)))\(limit)", errno: number)
    }

    /// Of a call that needs space: a full file system is said to be full, which is no failing path.
    private func spaceFailure(_ code: MediumError.Code, _ what: String, _ number: CInt) -> MediumError {
        var error = Self.failure(code, path, what, number)
        if error.isFull { error.message = "the medium's file system is full: \(error.message)" }
        return error
    }

    // MARK: The lock

    /// Takes the exclusive lock and drops cached pages, so that what another owner wrote is seen (S18). Throws `locked`
    /// if another description holds it, and names who: another process, or this one for another `user` (a volume).
    public func lock(for user: String? = nil) throws(MediumError) {
        let result = tl_host_lock(descriptor, true)
        if result == -EAGAIN { throw MediumError(.locked, "\(path): \(holderOfLock)", errno: EAGAIN) }
        guard result >= 0 else { throw Self.failure(.open, path, "cannot be locked", -result) }
        HeldLocks.add(file, descriptor, user: user ?? path)
        let dropped = tl_host_drop_cache(descriptor, isBlockDevice)
        guard dropped >= 0 else { throw Self.failure(.open, path, "cached pages cannot be dropped", -dropped) }
    }

    private var holderOfLock: String {
        if let user = HeldLocks.user(of: file) {
            return "this process itself holds the medium's exclusive lock, for \(user): two names of one file"
        }
        let holder = FileHolder.find(file, locking: true)?.description ?? "another process"
        return "\(holder) holds the medium's exclusive lock"
    }

    public func unlock() throws(MediumError) {
        HeldLocks.remove(file, descriptor)
        let result = tl_host_unlock(descriptor)
        guard result >= 0 else { throw Self.failure(.open, path, "cannot be unlocked", -result) }
    }

    /// Who holds the lock and is neither process `owner` nor this one for `user`; `nil` if nobody does, or it cannot be seen who.
    /// Takes nothing.
    public func stranger(besides owner: Int32?, user: String) throws(MediumError) -> String? {
        let result = tl_host_is_locked(descriptor)
        guard result >= 0 else { throw Self.failure(.open, path, "does not tell its locks", -result) }
        guard result == 1 else { return nil }
        if let holder = HeldLocks.user(of: file) { return holder == user ? nil : "\(path): \(holderOfLock)" }
        if let owner, FileHolder.holds(owner, file, locking: true) != false { return nil }
        guard let holder = FileHolder.find(file, locking: true) else { return nil }
        return "\(path): \(holder) holds the medium's exclusive lock, and is not the owner's"
    }

    // MARK: Medium

    func check(_ offset: UInt64, _ length: UInt64) throws(MediumError) {
        guard offset <= sizeBytes, length <= sizeBytes - offset else {
            throw MediumError(.outOfRange, "\(path): \(length) bytes at \(offset) are outside of \(sizeBytes) bytes")
        }
    }

    /// A file that somebody cut gives no bytes for what it lost, and is not made longer again by a write that lies beyond its
    /// end. What was lost stays lost when the file is made longer by hand, so it is refused until it is opened anew.
    func checkSize() throws(MediumError) {
        let actual = try Self.size(of: descriptor, isBlockDevice, path)
        let least = leastBytes.min(actual, ordering: .relaxed).newValue
        guard least >= sizeBytes else {
            throw MediumError(
                .wrongSize,
                "\(path): was cut to \(least) bytes while it was in use, the configuration says \(sizeBytes): restore it, then "
                    + "restart this node")
        }
        guard isBlockDevice || actual == sizeBytes else { throw Self.wrongSize(path, actual, sizeBytes) }
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        try check(offset, UInt64(buffer.count))
        let result = Result { () throws(MediumError) in try readAll(buffer, offset) }
        try checkSize()
        try result.get()
    }

    /// A part of the range that is not cached, or an end of the file, is left to a read that may wait.
    public func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool {
        try check(offset, UInt64(buffer.count))
        let count = tl_host_read_ready(descriptor, readyRead, buffer.baseAddress, buffer.count, offset)
        guard count == buffer.count || count < 0 && count != -Int(EAGAIN) else { return false }
        try checkSize()
        guard count >= 0 else { throw readFailure(buffer.count, offset, CInt(-count)) }
        return true
    }

    private func readFailure(_ count: Int, _ offset: UInt64, _ number: CInt) -> MediumError {
        Self.failure(.read, path, "read of \(count) bytes at \(offset) failed", number)
    }

    /// As ``read(into:at:)``, past the cache of this host: what another host wrote meanwhile is seen (S18).
    public func readUncached(_ range: ByteRange) throws(MediumError) -> [UInt8] {
        try check(range.offset, range.length)
        let dropped = tl_host_drop_range(descriptor, range.offset, range.length)
        guard dropped >= 0 else { throw Self.failure(.read, path, "cached pages cannot be dropped", -dropped) }
        var bytes = [UInt8](repeating: 0, count: Int(range.length))
        let result = bytes.withUnsafeMutableBytes { space in
            Result { () throws(MediumError) in try read(into: space, at: range.offset) }
        }
        try result.get()
        return bytes
    }

    private func readAll(_ buffer: UnsafeMutableRawBufferPointer, _ offset: UInt64) throws(MediumError) {
        var done = 0
        while done < buffer.count {
            let count = pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset) + off_t(done))
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw readFailure(buffer.count, offset, count == 0 ? EIO : errno) }
            done += count
        }
    }

    public func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        try check(offset, buffers.reduce(0) { $0 + UInt64($1.count) })
        try checkSize()
        var position = off_t(offset)
        var next = 0
        var skip = 0
        while next < buffers.count {
            if buffers[next].count == skip {
                next += 1
                skip = 0
                continue
            }
            var vectors: [iovec] = []
            for buffer in buffers[next...].prefix(Int(IOV_MAX_VECTORS)) {
                vectors.append(
                    iovec(iov_base: UnsafeMutableRawPointer(mutating: buffer.baseAddress), iov_len: buffer.count))
            }
            if let base = vectors[0].iov_base { vectors[0].iov_base = base + skip }
            vectors[0].iov_len -= skip
            let count = pwritev(descriptor, vectors, CInt(vectors.count), position)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                throw spaceFailure(.write, "write at \(position) failed", count == 0 ? EIO : errno)
            }
            position += off_t(count)
            var left = count
            while left > 0 {
                let rest = buffers[next].count - skip
                if left < rest {
                    skip += left
                    left = 0
                } else {
                    left -= rest
                    next += 1
                    skip = 0
                }
            }
        }
    }

    public func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        try check(range.offset, range.length)
        guard !range.isEmpty else { return }
        try checkSize()
        if isBlockDevice {
            if range.offset % 512 == 0, range.length % 512 == 0, zeroDevice(range) { return }
        } else if tl_host_file_zero(descriptor, range.offset, range.length, releasingSpace) >= 0 {
            return
        }
        try writeZeros(range)
    }

    /// A process inside of this call may not be killed before it returns, and a fence waits for that (S18): a device
    /// that has to write the zeros takes less than a second for a step.
    private static let zeroStepBytes: UInt64 = 64 << 20

    private func zeroDevice(_ range: ByteRange) -> Bool {
        var offset = range.offset
        while offset < range.end {
            let length = min(range.end - offset, Self.zeroStepBytes)
            guard tl_host_block_zero(descriptor, offset, length) >= 0 else { return false }
            offset += length
        }
        return true
    }

    /// For file systems and devices that cannot do it by themselves.
    private func writeZeros(_ range: ByteRange) throws(MediumError) {
        let zeros = [UInt8](repeating: 0, count: Int(min(range.length, 1 << 20)))
        var offset = range.offset
        while offset < range.end {
            let length = Int(min(range.end - offset, UInt64(zeros.count)))
            let result = zeros.withUnsafeBytes { bytes in
                Result { () throws(MediumError) in
                    try write([UnsafeRawBufferPointer(rebasing: bytes[..<length])], at: offset)
                }
            }
            try result.get()
            offset += UInt64(length)
        }
    }

    public func startWriteback(_ range: ByteRange) { tl_host_start_writeback(descriptor, range.offset, range.length) }

    public func flush() throws(MediumError) {
        while fdatasync(descriptor) != 0 {
            guard errno == EINTR else { throw spaceFailure(.flush, "flush failed", errno) }
        }
        try checkSize()
    }
}

/// The most buffers of one `pwritev` (`IOV_MAX` on Linux).
private let IOV_MAX_VECTORS = 1024
