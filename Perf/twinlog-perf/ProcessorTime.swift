// What processes have used of the processor, to the nanosecond.

import Foundation
import LogModel

enum ProcessorTime {
    /// Of all threads that live: a server's threads do. Throws if the kernel does not tell.
    static func nanos(of process: Int32) throws(PerfError) -> UInt64 {
        let tasks = "/proc/\(process)/task"
        do {
            let threads = try FileManager.default.contentsOfDirectory(atPath: tasks)
            let used = threads.compactMap { runNanos("\(tasks)/\($0)/schedstat") }
            // A thread may have ended since; not all of them.
            guard !used.isEmpty else { throw PerfError("\(tasks): the kernel keeps no schedstat") }
            return used.reduce(0, +)
        } catch {
            throw PerfError("the processor time of process \(process): \(error)")
        }
    }

    /// `nil` if the thread is gone.
    private static func runNanos(_ path: String) -> UInt64? {
        FileManager.default.contents(atPath: path)
            .flatMap { String(decoding: $0, as: UTF8.self).split(separator: " ").first }.flatMap { UInt64($0) }
    }

    /// By the names of `processes`.
    static func nanos(of processes: [String: Int32]) throws(PerfError) -> [String: UInt64] {
        var used: [String: UInt64] = [:]
        for (name, process) in processes { used[name] = try nanos(of: process) }
        return used
    }

    /// What was used between two looks.
    static func used(_ before: [String: UInt64], _ after: [String: UInt64]) -> [String: UInt64] {
        after.merging(before) { $0 - min($0, $1) }
    }
}
