// Lines of one cause, limited: what a stranger can make a node say again and again may fill neither a disk nor the queue.

struct RepeatLimit {
    /// Of each cause so many lines pass in a window; the rest is counted.
    static let linesPerWindow = 10
    static let windowNanos: UInt64 = 10_000_000_000
    /// Causes are places in the source, and few; beyond these all others share one.
    static let causeCount = 256

    private struct Window {
        var begin: UInt64
        var passed: Int
        /// The last one that was held back.
        var held: (line: LogLine, count: Int)?
    }

    private var windows: [LogCause: Window] = [:]
    private static let others = LogCause(file: "", line: 0, subject: "")

    /// The line, or `nil` if it is held back.
    mutating func admit(_ line: LogLine, now: UInt64) -> LogLine? {
        let isKnown = windows[line.cause] != nil || windows.count < Self.causeCount
        let cause = isKnown ? line.cause : Self.others
        var window = windows[cause] ?? Window(begin: now, passed: 0)
        defer { windows[cause] = window }
        guard window.passed < Self.linesPerWindow else {
            window.held = (line, (window.held?.count ?? 0) + 1)
            return nil
        }
        window.passed += 1
        return line
    }

    /// Ends the windows whose time is over; answers a line for each that held something back.
    mutating func finish(now: UInt64) -> [LogLine] {
        var told: [LogLine] = []
        for (cause, window) in windows where now - min(now, window.begin) >= Self.windowNanos {
            windows[cause] = nil
            guard let held = window.held else { continue }
            var line = held.line
            if held.count > 1 { line.message += " (and \(held.count - 1) more like this, held back)" }
            told.append(line)
        }
        return told
    }
}
