// Whether what is at a volume's path is the volume's medium (S18). A file is known by its identity; one without is taken in
// once, while nobody knows another for the volume. A pool, or the archive of a log, is never a medium.

internal import CHostSupport
internal import Glibc
public import LogModel

/// What is known of a volume's medium before it is opened.
public struct MediumExpectation: Sendable {
    public var volume: String
    /// From the group's record; `nil` if it knows none.
    public var identity: UUID128?
    /// The volumes whose media are known, in any group.
    public var volumes: [UUID128: String]
    /// Nothing was ever written to the group, so whatever is on a block device is not the volume's.
    public var isNew: Bool

    public init(volume: String, identity: UUID128?, volumes: [UUID128: String] = [:], isNew: Bool = false) {
        self.volume = volume
        self.identity = identity
        self.volumes = volumes
        self.isNew = isNew
    }

    /// Throws `otherMedium` unless what is at `place`, with `identity`, may be the medium.
    public func check(_ identity: UUID128, of place: String) throws(MediumError) {
        guard identity != self.identity else { return }
        let other = volumes[identity].flatMap { $0 == volume ? nil : $0 }
        guard other != nil || self.identity != nil else { return }
        let its = self.identity.map { " (id \($0))" } ?? ""
        throw MediumError(
            .otherMedium,
            "\(place): is \(other.map { "\($0)'s" } ?? "another") medium (id \(identity)), not \(volume)'s\(its)"
        )
    }
}

extension FileMedium {
    /// What a file that is never a medium begins with.
    private static let foreign: [(magic: [UInt8], what: String)] = [
        (Array("TWINLOG\0".utf8), "a pool"), (Array("TWINARCH".utf8), "the archive of a log"),
    ]

    /// Throws `notAMedium` unless the file may be one. A client can write a pool's first bytes to its own volume, so a file that
    /// has an identity is believed to be a medium.
    static func checkKind(of descriptor: CInt, path: String) throws(MediumError) {
        if case .known = try identity(of: descriptor, path: path) { return }
        try checkContents(of: descriptor, path: path)
    }

    /// Throws `notAMedium` if the file begins like one of TwinLog's other files.
    static func checkContents(of descriptor: CInt, path: String) throws(MediumError) {
        var start = [UInt8](repeating: 0, count: 8)
        let count = pread(descriptor, &start, start.count, 0)
        guard count >= 0 else { throw failure(.read, path, "cannot be read", errno) }
        for (magic, what) in foreign where start.prefix(count).elementsEqual(magic) {
            throw MediumError(.notAMedium, "\(path): is \(what), not a medium")
        }
    }

    /// Throws unless this may be the medium of `expected`; changes nothing.
    @discardableResult
    public func check(_ expected: MediumExpectation) throws(MediumError) -> MediumIdentity {
        let found = try readIdentity()
        switch found {
        case .known(let identity): try expected.check(identity, of: path)
        case .none:
            guard let identity = expected.identity else { break }
            throw MediumError(
                .otherMedium,
                "\(path): has no identity, \(expected.volume)'s medium has \(identity): mount what the medium is on, or, if this is "
                    + "a copy of it, run setfattr -n \(Self.identityAttribute) -v \(identity) on it")
        case .unsupported:
            if expected.isNew { try Self.checkContents(of: descriptor, path: path) }
        }
        return found
    }

    /// Under the lock: checks as ``check(_:)``, and gives a file that nobody knows yet an identity. Answers the medium's;
    /// `nil` if it cannot have one.
    public func admit(_ expected: MediumExpectation) throws(MediumError) -> UUID128? {
        switch try check(expected) {
        case .known(let identity):
            Self.noteSize(sizeBytes, of: descriptor)
            return identity
        case .unsupported: return nil
        case .none:
            let identity = UUID128.random()
            do throws(MediumError) {
                Self.noteSize(sizeBytes, of: descriptor)
                try adopt(identity)
            } catch {
                // A full file system ends no service: the medium is taken in when there is space again.
                guard error.isFull else { throw error }
                return nil
            }
            return identity
        }
    }
}
