// What would remain of a run outside of its process: files with names, and processes. Its maker removes it; SIGINT, SIGTERM and SIGHUP
// remove it, too, and then end the process by the signal itself, as a shell expects.

import Foundation
import Synchronization

enum Remains {
    /// Held while something is made or removed, and by the signal that ends the process for good.
    private static let lock = NSLock()
    /// In the order in which they were made. `unsafe`: `lock` guards them.
    nonisolated(unsafe) private static var removals: [(key: UInt64, body: () -> Void)] = []
    nonisolated(unsafe) private static var lastKey: UInt64 = 0
    /// Where the handler writes the signal's number.
    private static let pipeEnd = Atomic<Int32>(-1)
    private static let isWatching: Bool = watch()

    /// A signal waits until `body` is over: for what is made and removed in it, and for what changes what `remove` of ``with`` sees. Not
    /// to be nested.
    static func undisturbed<Result, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(isWatching)
        lock.lock()
        defer { lock.unlock() }
        return try body()
    }

    /// What `make` makes stays until `body` is over or a signal comes: `remove` is called once, by this thread or another.
    static func with<Thing, Result>(
        _ make: () throws -> Thing, remove: @escaping (Thing) -> Void, _ body: (Thing) throws -> Result
    ) throws -> Result {
        let (key, thing) = try undisturbed {
            let thing = try make()
            lastKey += 1
            removals.append((lastKey, { remove(thing) }))
            return (lastKey, thing)
        }
        defer {
            undisturbed {
                removals.removeAll { $0.key == key }
                remove(thing)
            }
        }
        return try body(thing)
    }

    private static func watch() -> Bool {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0, ends.allSatisfy({ fcntl($0, F_SETFD, FD_CLOEXEC) == 0 }) else { return false }
        let (reading, writing) = (ends[0], ends[1])
        pipeEnd.store(writing, ordering: .relaxed)
        Thread.detachNewThread {
            var number: UInt8 = 0
            // The writing end is never closed: what fails is interrupted.
            while read(reading, &number, 1) != 1 {}
            end(by: Int32(number))
        }
        for number in [SIGINT, SIGTERM, SIGHUP] {
            let earlier = signal(number) { number in
                let before = errno
                var byte = UInt8(number)
                // A full pipe has the same question in it.
                _ = write(Remains.pipeEnd.load(ordering: .relaxed), &byte, 1)
                errno = before
            }
            // As a shell ignores SIGINT in the background, and nohup SIGHUP.
            if unsafeBitCast(earlier, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) { signal(number, SIG_IGN) }
        }
        return true
    }

    /// Whoever makes or removes something waits for the end.
    private static func end(by number: Int32) -> Never {
        lock.lock()
        for removal in removals.reversed() { removal.body() }
        signal(number, SIG_DFL)
        raise(number)
        exit(128 + number)
    }
}
