// A folder of a test's own, and raw looks at files, past every library under test.

internal import Foundation
internal import Glibc
internal import LogModel

/// Removed with everything in it when it goes.
package final class Folder: Sendable {
    package let path: String

    package init(in parent: String = "/dev/shm") throws {
        path = "\(parent)/twinlog-test-\(UUID128.random())"
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }

    deinit {
        do { try FileManager.default.removeItem(atPath: path) } catch {
            print("\(path) could not be removed: \(error)")
        }
    }

    package func file(_ name: String) -> String { "\(path)/\(name)" }

    /// What is in it, sorted; nothing if it is gone.
    package var names: [String] { listing(of: path) }
}

package func listing(of path: String) -> [String] {
    guard FileManager.default.fileExists(atPath: path) else { return [] }
    do {
        return try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    } catch {
        preconditionFailure("\(path): \(error)")
    }
}

package func contents(of path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }

/// In place: what is at the path keeps its identity.
package func put(_ bytes: [UInt8], into path: String) throws {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
    let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    try file.write(contentsOf: bytes)
}

package func put(_ text: String, into path: String) throws { try put(Array(text.utf8), into: path) }
