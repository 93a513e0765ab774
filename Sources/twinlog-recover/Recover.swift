// twinlog-recover: looks into pools that no process uses, and brings a surviving log to the medium when both servers
// are gone. Reads only, unless an option says otherwise.

import ArgumentParser
import Foundation
import HostProcess
import LogModel

@main
struct Recover: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlog-recover", abstract: "Look into a pool, and rescue what its logs hold.",
        discussion: """
            Pools are opened read-only unless an option says otherwise. Exit codes: 0 clean, 1 a torn tail only, 2 usage, \
            3 corrupt records, 4 not a pool or unreadable, or output that could not be written, 5 in use, 6 refused or failed for the reason that is told.
            """,
        version: TwinLogVersion.current,
        subcommands: [Inspect.self, Scan.self, Dump.self, ReplayCommand.self, Compare.self, HealCommand.self])

    static func main() { runAsProgram(otherwise: ToolExit.refused.rawValue) }
}

enum ToolExit: Int32 {
    case clean = 0
    case torn = 1
    case usage = 2
    case corrupt = 3
    case unreadable = 4
    case inUse = 5
    case refused = 6
}

/// Why the tool stops: what failed, where, why, and what to do next.
struct Failure: ProgramError {
    var code: ToolExit
    var message: String
    var exitCode: Int32 { code.rawValue }
    init(_ code: ToolExit, _ message: String) {
        self.code = code
        self.message = message
    }
}

func printError(_ text: String) {
    StandardError.line("twinlog-recover: \(text)")
}

/// What every subcommand takes.
struct PoolOptions: ParsableArguments {
    @Argument(help: "The pool's file.") var pool: String
    @Flag(help: "Print JSON.") var json = false
}

struct GroupOption: ParsableArguments {
    @Option(help: "Only this group's log.") var group: String?
}

func printJSON(_ value: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try StandardOutput.line(String(decoding: try encoder.encode(value), as: UTF8.self))
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
