// What every scenario takes.

import ArgumentParser
import LogModel

/// What every scenario takes.
struct CommonOptions: ParsableArguments {
    @Option(help: "Bytes of one operation; several, separated by commas, are measured in turn.") var size: String?
    @Option(
        name: [.customLong("threads"), .customLong("connections")],
        help:
            "Threads, each with a connection of its own to a volume; several, separated by commas, are measured in turn."
    )
    var threads: String?
    @Option(
        name: [.customLong("depth"), .customLong("depths")],
        help: "Operations under way at once, of each thread; several, separated by commas, are measured in turn.")
    var givenDepths: String?
    @Option(name: .customLong("seconds"), help: "How long each row is measured, all repeats together (default: 1).")
    var givenSeconds: Double?
    @Option(name: .customLong("repeats"), help: "How often it is measured; the medians count (default: 5).")
    var givenRepeats: Int?
    @Flag(help: "A tenth of a second and one repeat a row: whether it works, not how fast it is.") var quick = false
    @Option(help: "Where to make the pool; it must not exist, and is removed.") var pool: String?
    @Option(help: "Write the results here, as JSON.") var json: String?
    @Option(help: "Write the results here, as a page.") var html: String?

    static let largestSizeBytes: UInt64 = 1 << 20

    var seconds: Double { givenSeconds ?? (quick ? 0.1 : 1) }
    var repeats: Int { givenRepeats ?? (quick ? 1 : 5) }

    func validate() throws {
        guard seconds > 0, seconds <= 3600 else { throw ValidationError("--seconds: more than 0, at most 3600") }
        guard (1...99).contains(repeats) else { throw ValidationError("--repeats: 1 to 99") }
        _ = try sizes()
        _ = try threadCounts()
        _ = try depths()
    }

    /// Called before anything is measured or overwritten.
    func checkOutputs() throws {
        for path in [json, html].compactMap(\.self) { try OutputFile.check(path) }
    }

    func sizes(default standard: String = "4KiB") throws -> [Int] {
        try (size ?? standard).split(separator: ",", omittingEmptySubsequences: false).map { text in
            guard let bytes = Size.parse(String(text)), (1...Self.largestSizeBytes).contains(bytes) else {
                throw ValidationError("--size: '\(text)' is not a size from 1 to \(Size.format(Self.largestSizeBytes))")
            }
            return Int(bytes)
        }
    }

    func threadCounts(default standard: String = "1") throws -> [Int] {
        try (threads ?? standard).split(separator: ",", omittingEmptySubsequences: false).map { text in
            guard let count = Int(text), (1...256).contains(count) else { throw ValidationError("--threads: 1 to 256") }
            return count
        }
    }

    func depths(default standard: String = "1") throws -> [Int] {
        try (givenDepths ?? standard).split(separator: ",", omittingEmptySubsequences: false).map { text in
            guard let count = Int(text), (1...1024).contains(count) else { throw ValidationError("--depth: 1 to 1024") }
            return count
        }
    }

    var secondsPerRepeat: Double { seconds / Double(repeats) }
}

/// How the event loops of owner and mirror wait.
struct PollingOption: ParsableArguments {
    @Option(
        help:
            "Of owner and mirror: off, auto or a time such as 50us, for which an event loop looks for the next arrival before it sleeps."
    ) var poll =
        "off"

    var mode: PollMode { PollMode.parse(poll) ?? .off }

    func validate() throws {
        guard PollMode.parse(poll) != nil else {
            throw ValidationError("--poll: off, auto, or a time from 1us to \(PollMode.maximumMicros)us")
        }
    }
}
