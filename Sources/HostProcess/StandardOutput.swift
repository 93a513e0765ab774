// What a program prints. A write to standard output that fails is an error of the program.

internal import Glibc
internal import Synchronization

/// Standard output could not be written.
public struct OutputError: Error, Hashable, Sendable, CustomStringConvertible {
    public var number: Int32
    public var isClosedPipe: Bool { number == EPIPE }
    public var description: String { "standard output cannot be written: \(String(cString: strerror(number)))" }
}

public enum StandardOutput {
    /// More than this is written without waiting for ``flush()``.
    private static let bufferBytes = 64 << 10
    private static let pending = Mutex<[UInt8]>([])

    public static let isTerminal = isatty(STDOUT_FILENO) == 1

    /// Of the terminal, which may be made wider or narrower at any time; `nil` if there is none: then no line is cut.
    public static var columns: Int? { Terminal.columns(of: STDOUT_FILENO) }

    /// Printed at the latest with the next ``flush()``; on a terminal at once.
    public static func text(_ text: String) throws(OutputError) {
        let count = pending.withLock { bytes in
            bytes += text.utf8
            return bytes.count
        }
        if isTerminal || count >= bufferBytes { try flush() }
    }

    public static func line(_ text: String = "") throws(OutputError) { try Self.text(text + "\n") }

    /// What could not be written is given up.
    public static func flush() throws(OutputError) {
        let bytes = pending.withLock { bytes in
            defer { bytes.removeAll(keepingCapacity: true) }
            return bytes
        }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                try pause(millis: -1)
            } else if errno != EINTR {
                throw OutputError(number: errno)
            }
        }
    }

    /// Waits until the time is over, or whoever reads the output has gone, which is an error.
    public static func wait(millis: Int32) throws(OutputError) {
        var entry = pollfd(fd: STDOUT_FILENO, events: 0, revents: 0)
        let count = poll(&entry, 1, millis)
        if count < 0, errno != EINTR { throw OutputError(number: errno) }
        if count > 0 { throw OutputError(number: EPIPE) }
    }

    /// A descriptor that others made non-blocking.
    private static func pause(millis: Int32) throws(OutputError) {
        var entry = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
        if poll(&entry, 1, millis) < 0, errno != EINTR { throw OutputError(number: errno) }
    }
}
