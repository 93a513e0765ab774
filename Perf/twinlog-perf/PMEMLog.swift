// The peer of an append: libpmemlog's pmemlog_append, which copies and persists but has no checksum, if it is installed
// (Debian: libpmemlog1). It is loaded when it is asked for, so that nothing else depends on it.

import Foundation
import Glibc
import Synchronization

final class PMEMLogTarget: StoreTarget {
    private typealias Create = @convention(c) (UnsafePointer<CChar>, Int, mode_t) -> OpaquePointer?
    private typealias Append = @convention(c) (OpaquePointer, UnsafeRawPointer?, Int) -> CInt
    private typealias Use = @convention(c) (OpaquePointer) -> Void

    /// Sendable: libpmemlog locks for itself.
    nonisolated(unsafe) private let log: OpaquePointer
    private let append: Append
    private let rewind: Use
    private let close: Use

    /// `nil` if the library is not installed. The log is filled once and rewound, so that no page of it is new.
    init?(folder: String = "/dev/shm", bytes: Int) throws(PerfError) {
        guard let library = dlopen("libpmemlog.so.1", RTLD_NOW) else { return nil }
        guard let create = dlsym(library, "pmemlog_create"), let append = dlsym(library, "pmemlog_append"),
            let rewind = dlsym(library, "pmemlog_rewind"), let close = dlsym(library, "pmemlog_close")
        else { return nil }
        // Without it libpmemlog would msync on a memory file system, which our log does not either.
        setenv("PMEM_IS_PMEM_FORCE", "1", 1)
        let path = "\(folder)/twinlog-perf-\(getpid()).pmemlog"
        log = try Remains.undisturbed { () throws(PerfError) in
            guard let log = unsafeBitCast(create, to: Create.self)(path, bytes, 0o600) else {
                throw PerfError("\(path): pmemlog_create: \(String(cString: strerror(errno)))")
            }
            unlink(path)
            return log
        }
        self.append = unsafeBitCast(append, to: Append.self)
        self.rewind = unsafeBitCast(rewind, to: Use.self)
        self.close = unsafeBitCast(close, to: Use.self)
        let block = [UInt8](repeating: 7, count: 1 << 16)
        while self.append(log, block, block.count) == 0 {}
        self.rewind(log)
    }

    deinit { close(log) }

    func begin(thread: Int) -> StoreCursor { StoreCursor(place: 0, end: 0) }

    func store(_ bytes: UnsafeRawBufferPointer, _ cursor: inout StoreCursor) throws(PerfError) {
        while append(log, bytes.baseAddress, bytes.count) != 0 {
            guard errno == ENOSPC else { throw PerfError("pmemlog_append: \(String(cString: strerror(errno)))") }
            rewind(log)
        }
    }
}
