// Which medium each volume of the log goes to, and getting hold of it.

import ClusterConfiguration
import Glibc
import LogModel
import StorageMedium

struct VolumeArgument {
    var name: String
    var path: String
    var sizeBytes: UInt64
    var id: VolumeID { VolumeID(name: name) }

    /// From NAME=PATH arguments; checked against the configuration if there is one, and taken from it if there are none.
    static func resolve(
        _ arguments: [String], group: GroupID, _ configuration: ClusterConfiguration?
    ) throws(Failure) -> [VolumeArgument] {
        let configured = configuration?.group(group)?.volumes
        if arguments.isEmpty, let configured {
            if let unit = configured.first(where: { ISCSIAddress($0.mediumPath) != nil }) {
                throw Failure(
                    .refused,
                    "\(unit.mediumPath): this tool writes to files and block devices; log in to the target with open-iscsi, and give "
                        + "--volume \(unit.name)=DEVICE; nothing was written")
            }
            return configured.map { VolumeArgument(name: $0.name, path: $0.mediumPath, sizeBytes: $0.sizeBytes) }
        }
        guard !arguments.isEmpty else {
            throw Failure(
                .usage, "no medium is named: give --volume NAME=PATH for every volume of the group, or --config FILE")
        }
        var volumes: [VolumeArgument] = []
        for argument in arguments {
            let volume = try parse(argument, configured)
            guard !volumes.contains(where: { $0.id == volume.id }) else {
                throw Failure(.usage, "--volume \(argument): this volume is named twice")
            }
            if let other = volumes.first(where: { $0.isSameFile(as: volume) }) {
                throw Failure(.usage, "--volume \(argument): \(other.path) of \(other.name) is the same file")
            }
            volumes.append(volume)
        }
        return volumes
    }

    /// Two names of one file are one medium, however they are written.
    private func isSameFile(as other: VolumeArgument) -> Bool {
        path == other.path || FileIdentity(path: path).map { $0 == FileIdentity(path: other.path) } == true
    }

    private static func parse(
        _ argument: String, _ configured: [ClusterConfiguration.Volume]?
    ) throws(Failure) -> VolumeArgument {
        guard let equals = argument.firstIndex(of: "="), case let name = String(argument[..<equals]),
            Name.isValid(name),
            case let path = String(argument[argument.index(after: equals)...]), !path.isEmpty
        else { throw Failure(.usage, "--volume \(argument): is not NAME=PATH") }
        guard let configured else { return VolumeArgument(name: name, path: path, sizeBytes: try size(of: path)) }
        guard let volume = configured.first(where: { $0.name == name }) else {
            throw Failure(
                .usage,
                "--volume \(argument): the configuration has no such volume; it has \(configured.map(\.name).joined(separator: ", "))"
            )
        }
        return VolumeArgument(name: name, path: path, sizeBytes: volume.sizeBytes)
    }

    /// Of a file or a block device.
    private static func size(of path: String) throws(Failure) -> UInt64 {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw Failure(
                .refused,
                "\(path): cannot be opened: \(String(cString: strerror(errno))); a medium must exist to be replayed to")
        }
        defer { close(descriptor) }
        let end = lseek(descriptor, 0, SEEK_END)
        guard end >= 0 else { throw Failure(.refused, "\(path): has no size: \(String(cString: strerror(errno)))") }
        return UInt64(end)
    }

    /// Whoever holds the lock may still write (S18). `identities`: of the group's media, by the record, if it is known.
    func openLocked(identities: [String: UUID128]) throws(Failure) -> FileMedium {
        do throws(MediumError) {
            let medium = try FileMedium.open(path: path, sizeBytes: sizeBytes, createIfMissing: false)
            try medium.lock(for: name)
            try medium.check(
                MediumExpectation(
                    volume: name, identity: identities[name],
                    volumes: Dictionary(identities.map { ($1, $0) }, uniquingKeysWith: { first, _ in first })))
            return medium
        } catch {
            guard error.code == .locked else { throw Failure(.refused, "\(error); nothing was written") }
            throw Failure(.inUse, "\(error): a node still serves it, stop it first; nothing was written")
        }
    }
}
