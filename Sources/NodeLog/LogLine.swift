// A line of the log, and how it is written: for people, or as JSON. No byte of a message can end the line or steer a terminal.

internal import Glibc
internal import Logging

/// Where a line comes from, and what it is about.
struct LogCause: Hashable, Sendable {
    var file: String
    var line: UInt
    /// The metadata, for a place in the source that says different things.
    var subject: String
}

public enum LogFormat: String, Sendable, CaseIterable {
    case text, json
}

struct LogLine: Sendable {
    /// Longer messages are cut.
    static let maximumMessageBytes = 4096

    var time: timespec
    var level: Logger.Level
    var label: String
    var message: String
    var metadata: [(key: String, value: String)]
    var cause: LogCause

    init(
        time: timespec = .now, level: Logger.Level, label: String, message: String,
        metadata: [(key: String, value: String)] = [], cause: LogCause
    ) {
        self.time = time
        self.level = level
        self.label = label
        let isLong = message.utf8.count > Self.maximumMessageBytes
        self.message =
            isLong ? String(decoding: message.utf8.prefix(Self.maximumMessageBytes), as: UTF8.self) + "…" : message
        self.metadata = metadata
        self.cause = cause
    }

    static func dropped(_ count: Int) -> LogLine {
        LogLine(
            level: .warning, label: "log", message: "\(count) lines dropped: nobody took them in time",
            cause: LogCause(file: #fileID, line: #line, subject: ""))
    }

    func rendered(as format: LogFormat) -> String {
        switch format {
        case .text:
            // The metadata is for programs: the message says it in words.
            return "\(timestamp) \(level) \(label): \(Self.escaped(message))\n"
        case .json:
            let fields =
                [("time", timestamp), ("level", level.rawValue), ("label", label), ("message", message)]
                + metadata.map { ($0.key, $0.value) }
            return "{\(fields.map { "\(Self.quoted($0.0)):\(Self.quoted($0.1))" }.joined(separator: ","))}\n"
        }
    }

    /// UTC, ISO 8601 with milliseconds.
    private var timestamp: String {
        var seconds = time.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func digits(_ value: Int, _ width: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        let date = [
            digits(Int(parts.tm_year) + 1900, 4), digits(Int(parts.tm_mon) + 1, 2), digits(Int(parts.tm_mday), 2),
        ]
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map { digits(Int($0), 2) }
        return "\(date.joined(separator: "-"))T\(clock.joined(separator: ":")).\(digits(time.tv_nsec / 1_000_000, 3))Z"
    }

    /// C0, DEL and C1.
    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
    }

    private static func escaped(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        return text.unicodeScalars.reduce(into: "") { result, scalar in
            result += isControl(scalar) ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
        }
    }

    private static func quoted(_ text: String) -> String {
        text.unicodeScalars.reduce(into: "\"") { result, scalar in
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case _ where isControl(scalar):
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        } + "\""
    }
}

extension timespec {
    static var now: timespec {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time
    }
}
