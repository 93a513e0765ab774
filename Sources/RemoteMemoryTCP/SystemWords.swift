// Errors of sockets, for people.

internal import Glibc
internal import NIOCore

extension Error {
    /// What the system says, without the call that failed.
    var systemWords: String { (self as? IOError).map { String(cString: strerror($0.errnoCode)) } ?? "\(self)" }
}
