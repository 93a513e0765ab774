// Lines on their way to whoever reads the log (S28). Writing a line never waits: it goes into a bounded queue, and a thread of its
// own brings it to the descriptor, however long that takes. What finds the queue full is dropped and counted.

internal import Dispatch
internal import Foundation
internal import Glibc
public import Logging
internal import Synchronization

/// Thread-safe.
public final class LogQueue: Sendable {
    public typealias Format = LogFormat

    /// A burst of a busy node; beyond it whoever reads has stopped.
    static let capacity = 1024
    /// Four times what ``capacity`` comes to with lines of ordinary length.
    static let capacityBytes = 1 << 20

    private struct State {
        var lines: [LogLine] = []
        var bytes = 0
        var dropped = 0
        var repeats = RepeatLimit()
        /// The writer has taken lines and not come back.
        var isWriting = false
    }

    private let descriptor: CInt
    private let format: Format
    private let clock: @Sendable () -> UInt64
    private let currentLevel: Mutex<Logger.Level>
    private let state = Mutex(State())
    private let filled = DispatchSemaphore(value: 0)

    /// Starts the writer, which lives as long as the process.
    public convenience init(descriptor: CInt, format: Format, level: Logger.Level) {
        self.init(descriptor: descriptor, format: format, level: level) { DispatchTime.now().uptimeNanoseconds }
    }

    /// `clock` answers monotonic nanoseconds.
    init(descriptor: CInt, format: Format, level: Logger.Level, clock: @escaping @Sendable () -> UInt64) {
        self.descriptor = descriptor
        self.format = format
        self.clock = clock
        currentLevel = Mutex(level)
        Thread.detachNewThread { [self] in write() }
    }

    /// One for the whole process, so that it can be changed while it runs.
    public var level: Logger.Level {
        get { currentLevel.withLock { $0 } }
        set { currentLevel.withLock { $0 = newValue } }
    }

    /// Never waits.
    func append(_ line: LogLine) {
        state.withLock { state in
            guard let line = state.repeats.admit(line, now: clock()) else { return }
            guard state.lines.count < Self.capacity, state.bytes + line.message.utf8.count <= Self.capacityBytes else {
                state.dropped += 1
                return
            }
            state.bytes += line.message.utf8.count
            state.lines.append(line)
        }
        filled.signal()
    }

    /// Waits until everything so far is written, at most as long as told: a reader may have stopped.
    public func flush(atMostMillis limit: Int) {
        let deadline = DispatchTime.now() + .milliseconds(limit)
        while DispatchTime.now() < deadline {
            if state.withLock({ $0.lines.isEmpty && !$0.isWriting }) { return }
            usleep(1000)
        }
    }

    // MARK: The writer

    private func write() {
        while true {
            // What was held back is told in time, though no further line comes.
            _ = filled.wait(timeout: .now() + .seconds(1))
            let (lines, dropped) = state.withLock { state in
                state.lines += state.repeats.finish(now: clock())
                defer {
                    state.lines = []
                    state.bytes = 0
                    state.dropped = 0
                    state.isWriting = true
                }
                return (state.lines, state.dropped)
            }
            var lost = 0
            for line in lines where !write(line) { lost += 1 }
            if dropped > 0, !write(.dropped(dropped)) { lost += dropped }
            state.withLock { state in
                state.dropped += lost
                state.isWriting = false
            }
        }
    }

    /// False if the descriptor does not take it: its file system is full, its reader has gone.
    private func write(_ line: LogLine) -> Bool {
        let bytes = Array(line.rendered(as: format).utf8)
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                // Others made it non-blocking.
                var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                guard poll(&entry, 1, -1) >= 0 || errno == EINTR else { return false }
            } else if errno != EINTR {
                return false
            }
        }
        return true
    }
}
