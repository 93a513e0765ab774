// What tells one medium from another of the same size: a random identity in an extended attribute of the file (S18). It is
// set before the file gets its name, and never changed. Block devices and some file systems keep no attributes; what their
// media hold is compared instead (see MediumProof in StorageNode).

internal import CHostSupport
internal import Glibc
public import LogModel

public enum MediumIdentity: Hashable, Sendable {
    case known(UUID128)
    /// The file system keeps attributes, and the file has none: TwinLog did not make it, or it was copied without them.
    case none
    /// A block device, or a file system without extended attributes.
    case unsupported
}

extension FileMedium {
    /// As text, so that `getfattr` shows it and `setfattr` gives it to a copy.
    public static let identityAttribute = "user.twinlog.medium"
    private static let identityBytes = 32

    /// Throws `otherMedium` if the attribute is no identity.
    public func readIdentity() throws(MediumError) -> MediumIdentity {
        isBlockDevice ? .unsupported : try Self.identity(of: descriptor, path: path)
    }

    /// Of a regular file.
    static func identity(of descriptor: CInt, path: String) throws(MediumError) -> MediumIdentity {
        var text = [UInt8](repeating: 0, count: identityBytes)
        let length = text.withUnsafeMutableBytes {
            tl_host_get_attribute(descriptor, identityAttribute, $0.baseAddress, $0.count)
        }
        switch CInt(truncatingIfNeeded: -length) {
        case ENODATA: return .none
        case EOPNOTSUPP: return .unsupported
        case ERANGE: break
        case let number where number > 0: throw failure(.open, path, "\(identityAttribute) cannot be read", number)
        default:
            let value = String(validating: text.prefix(length), as: UTF8.self)
            if let identity = value.flatMap({ UUID128($0) }) { return .known(identity) }
        }
        throw MediumError(
            .otherMedium, "\(path): its attribute \(identityAttribute) is not an identity (32 hexadecimal digits)")
    }

    /// Gives a file that has no identity this one, durably. Throws `otherMedium` if it has one by now.
    public func adopt(_ identity: UUID128) throws(MediumError) {
        let result = Self.setIdentity(identity, of: descriptor)
        if result == -EEXIST { throw MediumError(.otherMedium, "\(path): was given an identity by somebody else") }
        guard result >= 0 else { throw Self.failure(.open, path, "cannot be given an identity", -result) }
        guard fsync(descriptor) == 0 else {
            throw Self.failure(.flush, path, "its identity cannot be made durable", errno)
        }
    }

    static func setIdentity(_ identity: UUID128, of descriptor: CInt) -> CInt {
        Array(identity.description.utf8).withUnsafeBytes {
            tl_host_create_attribute(descriptor, identityAttribute, $0.baseAddress, $0.count)
        }
    }
}
