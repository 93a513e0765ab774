// Owner of a pool file's descriptor and of the lock that goes with it: both end with this value.

import CHostSupport
import Glibc
import LogModel
import SystemPackage

struct Descriptor: ~Copyable, Sendable {
    let raw: Int32

    init(raw: Int32) { self.raw = raw }
    deinit {
        _ = tl_host_unlock(raw)
        Glibc.close(raw)
    }

    /// Opens with O_CLOEXEC.
    static func open(_ path: String, _ flags: Int32, mode: mode_t = 0o600) throws(PoolError) -> Descriptor {
        let raw = Glibc.open(path, flags | O_CLOEXEC, mode)
        guard raw >= 0 else { throw .system(path, "open") }
        return Descriptor(raw: raw)
    }

    func lock(exclusive: Bool, path: String) throws(PoolError) {
        let result = tl_host_lock(raw, exclusive)
        guard result != -EAGAIN else {
            throw PoolError(.inUse, path: path, "in use: another process, or this one, has the pool open")
        }
        guard result >= 0 else { throw .system(path, "lock", -result) }
    }

    func status(path: String) throws(PoolError) -> stat {
        var about = stat()
        guard fstat(raw, &about) == 0 else { throw .system(path, "fstat") }
        return about
    }

    func read(_ count: Int, at offset: UInt64, path: String) throws(PoolError) -> ByteBlock {
        var buffer = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let got = buffer.withUnsafeMutableBytes {
                pread(raw, $0.baseAddress! + done, count - done, off_t(offset) + off_t(done))
            }
            if got < 0 && errno == EINTR { continue }
            if got < 0 { throw .system(path, "read", offset: offset + UInt64(done)) }
            if got == 0 { throw PoolError(.truncated, path: path, offset: offset, "the file ends here") }
            done += got
        }
        return buffer.withUnsafeBytes { ByteBlock($0) }
    }

    /// Its mode and group.
    func give(_ access: FileAccess, path: String) throws(PoolError) {
        let result = tl_host_set_access(raw, access.mode, access.group ?? .max)
        guard result >= 0 else { throw .system(path, "give mode and group", -result) }
    }

    func sync(path: String) throws(PoolError) {
        guard fsync(raw) == 0 else { throw .system(path, "fsync") }
    }
}

extension PoolError {
    /// A failed system call; reads `errno`.
    static func system(
        _ path: String, _ call: String, _ number: Int32 = errno, offset: UInt64? = nil
    ) -> PoolError {
        let code: Code = number == ENOSPC || number == EDQUOT || number == EFBIG ? .noSpace : .system
        let limit = number == EFBIG ? Size.fileLimit(tl_process_file_size_limit()) : ""
        return PoolError(code, path: path, offset: offset, "\(call): \(Errno(rawValue: number))\(limit)")
    }
}
