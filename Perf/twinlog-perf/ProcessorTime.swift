// What processes have used of the processor, to the nanosecond where the kernel counts so.

import Foundation

enum ProcessorTime {
    /// Of all threads that live: a server's threads do. 0 for a process that is gone.
    static func nanos(of process: Int32) -> UInt64 {
        let tasks = "/proc/\(process)/task"
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
        return threads.reduce(0) { sum, thread in
            let line = (try? String(contentsOfFile: "\(tasks)/\(thread)/schedstat", encoding: .utf8)) ?? ""
            return sum + (line.split(separator: " ").first.flatMap { UInt64($0) } ?? 0)
        }
    }
}
