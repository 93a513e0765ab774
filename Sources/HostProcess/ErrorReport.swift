// What an error is to a script: a stable word, the sentence that people read, and a command that helps. Tools whose `--json` is a
// flag print it as their answer.

internal import Foundation

/// The kind of a failure. The words are an interface that scripts are written against: add to them, never change one.
public enum ErrorCode: String, Encodable, CaseIterable, Sendable {
    /// The arguments, or what they name, are wrong.
    case usage
    case configuration
    /// Standard output cannot be written.
    case output
    /// Who was asked does not answer.
    case noAnswer = "no-answer"
    /// The caller may not ask.
    case permissionDenied = "permission-denied"
    /// It was asked in time, and is not so, or not done, when the time is over.
    case timeout
    /// Said no, or was not told yes.
    case refused
    /// No node that answers owns the group.
    case noOwner = "no-owner"
    /// Somebody works with it now.
    case inUse = "in-use"
    /// Not what it should be, from the beginning.
    case unreadable
    /// Acknowledged bytes are damaged.
    case corrupt
    /// By the one who gave the command.
    case interrupted
    /// Anything else.
    case failed

    /// By the table that all executables share.
    public var exitCode: Int32 {
        switch self {
        case .usage, .configuration: ProgramExit.usage
        case .output: ProgramExit.output
        case .interrupted: ProgramExit.interrupted
        default: ProgramExit.failed
        }
    }
}

/// Prints as `{"code":…,"message":…,"next":…}`; `next` is `null` if no command helps.
public struct ErrorReport: Encodable, Hashable, Sendable {
    public var code: ErrorCode
    public var message: String
    public var next: String?

    public init(_ code: ErrorCode, _ message: String, next: String? = nil) {
        self.code = code
        self.message = message
        self.next = next
    }

    private enum CodingKeys: CodingKey { case code, message, next }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(code, forKey: .code)
        try container.encode(message, forKey: .message)
        try container.encode(next, forKey: .next)
    }

    /// A whole answer, on one line: some tools print a line for each thing that they tell.
    var line: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return String(decoding: try encoder.encode(["error": self]), as: UTF8.self)
        } catch {
            // Text and a word: nothing in them cannot be written as JSON.
            preconditionFailure("an error cannot be encoded: \(error)")
        }
    }
}
