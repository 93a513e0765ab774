// The groups of this machine by name.

internal import Glibc

enum GroupDatabase {
    /// An entry lists its members; what does not fit into this is none that a storage server is given.
    private static let maximumEntryBytes = 1 << 20

    struct LookupError: Error {
        /// An errno value.
        var number: CInt
    }

    /// `nil` if there is no such group.
    static func number(of name: String) throws(LookupError) -> UInt32? {
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
            guard failure == 0 || failure == ENOENT || failure == ESRCH else { throw LookupError(number: failure) }
            return found.map { UInt32($0.pointee.gr_gid) }
        }
    }
}
