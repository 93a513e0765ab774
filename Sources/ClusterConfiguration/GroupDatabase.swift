// The groups of this machine by name.

internal import Glibc

enum GroupDatabase {
    /// An entry lists its members; what does not fit into this is none that a storage server is given.
    private static let maximumEntryBytes = 1 << 20

    /// `nil` if there is no such group.
    static func number(of name: String, _ value: YAMLValue) throws(ConfigurationError) -> UInt32? {
        var buffer = [CChar](repeating: 0, count: 4096)
        while true {
            var entry = Glibc.group()
            var found: UnsafeMutablePointer<Glibc.group>?
            let failure = getgrnam_r(name, &entry, &buffer, buffer.count, &found)
            if failure == ERANGE, buffer.count < maximumEntryBytes {
                buffer = [CChar](repeating: 0, count: 4 * buffer.count)
                continue
            }
            // Some databases say so of a name that they do not have.
            guard failure == 0 || failure == ENOENT || failure == ESRCH else {
                throw value.error("the group '\(name)' cannot be looked up: \(String(cString: strerror(failure)))")
            }
            return found.map { UInt32($0.pointee.gr_gid) }
        }
    }
}
