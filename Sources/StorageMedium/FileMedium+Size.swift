// The size that a medium's owner gave it, in an extended attribute. A volume may be given more bytes by the configuration; a file
// that has fewer than its volume is one to be made longer only if nothing was cut off it.

internal import CHostSupport
internal import Glibc

extension FileMedium {
    /// In decimal.
    public static let sizeAttribute = "user.twinlog.size"

    /// `nil` if the file has none, as on file systems without attributes, or one that is no size.
    static func knownSize(of descriptor: CInt) -> UInt64? {
        var text = [UInt8](repeating: 0, count: 20)
        let length = text.withUnsafeMutableBytes {
            tl_host_get_attribute(descriptor, sizeAttribute, $0.baseAddress, $0.count)
        }
        guard length > 0 else { return nil }
        return String(validating: text.prefix(length), as: UTF8.self).flatMap { UInt64($0) }
    }

    /// It has all that it ever had. False if that is not known.
    static func isUncut(_ descriptor: CInt, _ actualBytes: UInt64) -> Bool {
        knownSize(of: descriptor).map { actualBytes >= $0 } ?? false
    }

    /// Where it cannot be noted the medium serves as before, and cannot grow.
    static func noteSize(_ bytes: UInt64, of descriptor: CInt) {
        guard knownSize(of: descriptor) != bytes else { return }
        _ = Array("\(bytes)".utf8).withUnsafeBytes {
            tl_host_set_attribute(descriptor, sizeAttribute, $0.baseAddress, $0.count)
        }
    }

    /// Makes a file that is shorter `bytes` long, durably; what is new reads as zeros. Under the lock, and before anybody else uses the
    /// medium.
    public func grow(to bytes: UInt64) throws(MediumError) {
        guard !isBlockDevice, bytes > sizeBytes else { return }
        guard ftruncate(descriptor, off_t(bytes)) == 0 else {
            throw Self.failure(.open, path, "cannot be made \(bytes) bytes long", errno)
        }
        Self.noteSize(bytes, of: descriptor)
        guard fsync(descriptor) == 0 else {
            throw Self.failure(.flush, path, "its new size cannot be made durable", errno)
        }
        setSize(bytes)
    }
}
