// What subcommands take, how they end, and how they print.

import ArgumentParser
import Foundation
import HostProcess

enum ToolExit: Int32, CaseIterable {
    case clean = 0
    case torn = 1
    case usage = 2
    case corrupt = 3
    case unreadable = 4
    case inUse = 5
    case refused = 6

    static var table: String { ProgramExit.help(allCases.map { ($0.rawValue, $0.meaning) }) }

    private var meaning: String {
        switch self {
        case .clean: "clean"
        case .torn: "a torn tail only"
        case .usage: "usage"
        case .corrupt: "corrupt records"
        case .unreadable: "not a pool, or unreadable; or output could not be written"
        case .inUse: "in use"
        case .refused: "refused or failed, with the reason"
        }
    }

    /// The same to a script, as far as it ends with an error.
    var errorCode: ErrorCode {
        switch self {
        case .clean, .torn: .failed
        case .usage: .usage
        case .corrupt: .corrupt
        case .unreadable: .unreadable
        case .inUse: .inUse
        case .refused: .refused
        }
    }
}

/// Why the tool stops: what failed, where, why, and what to do next.
struct Failure: ProgramError {
    var exit: ToolExit
    var message: String
    var code: ErrorCode { exit.errorCode }
    var exitCode: Int32 { exit.rawValue }
    init(_ exit: ToolExit, _ message: String) {
        self.exit = exit
        self.message = message
    }
}

/// What every subcommand takes.
struct PoolOptions: ParsableArguments {
    @Argument(help: "The pool's file.") var pool: String
    @Flag(help: "Print JSON.") var json = false
}

/// What every subcommand takes that writes.
struct ConsentOption: ParsableArguments {
    @Flag(help: "Do not ask.") var yes = false

    func confirm(_ rule: Confirmation.Rule, _ consequences: [String], isQuiet: Bool) throws(Unconfirmed) {
        let confirmation = Confirmation(
            program: "twinlog-recover", rule, isGiven: yes, isQuiet: isQuiet, refusal: ToolExit.refused.rawValue)
        try confirmation.ask(consequences)
    }
}

struct GroupOption: ParsableArguments {
    @Option(help: "Only this group's log.") var group: String?
}

/// A value that is `null` in JSON when it is missing, where `Optional` would leave the key out.
struct Nullable<Value: Encodable>: Encodable {
    var value: Value?
    init(_ value: Value?) { self.value = value }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if let value { try container.encode(value) } else { try container.encodeNil() }
    }
}

func printError(_ text: String) {
    StandardError.line("twinlog-recover: \(text)")
}

func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try StandardOutput.line(String(decoding: try encoder.encode(value), as: UTF8.self))
}
