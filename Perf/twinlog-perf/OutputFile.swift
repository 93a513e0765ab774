// Where results go: tried before anything is measured, and replaced as a whole.

import Foundation

enum OutputFile {
    /// Room for the results of the largest run.
    private static let probeBytes = 256 << 10

    /// Throws if a file of some size cannot be made beside `path`. Leaves nothing behind, and what is at `path` as it is.
    static func check(_ path: String) throws(PerfError) {
        try Remains.undisturbed { () throws(PerfError) in
            let temporary = try writeBeside(path, Data(count: probeBytes))
            unlink(temporary)
        }
    }

    /// Whoever reads `path` meanwhile sees what was there or all of `contents`.
    static func replace(_ path: String, by contents: Data) throws(PerfError) {
        try Remains.undisturbed { () throws(PerfError) in
            let temporary = try writeBeside(path, contents)
            guard rename(temporary, path) == 0 else {
                let reason = String(cString: strerror(errno))
                unlink(temporary)
                throw PerfError("\(path): cannot be replaced: \(reason)")
            }
        }
    }

    private static func writeBeside(_ path: String, _ contents: Data) throws(PerfError) -> String {
        let temporary = "\(path).\(getpid()).new"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw failure(path) }
        defer { close(descriptor) }
        var rest = contents[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let error = failure(path)
                unlink(temporary)
                throw error
            }
            rest = rest.dropFirst(count)
        }
        return temporary
    }

    private static func failure(_ path: String) -> PerfError {
        PerfError("\(path): cannot be written: \(String(cString: strerror(errno)))")
    }
}
