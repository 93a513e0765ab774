// What every executable does as a process, whatever it is for: how it starts, what its errors become, and its exit codes.

public import ArgumentParser
internal import CHostSupport
internal import Dispatch
internal import Glibc

public enum ProgramStart {
    /// First of all in `main`: the standard descriptors are open, strays among the signals end nothing, and a crash says one line.
    /// `SWIFT_BACKTRACE` in the environment leaves crashes to the Swift runtime, which stops the process for long before it ends.
    public static func prepare(name: String, version: String) {
        let result = tl_process_open_standard()
        guard result >= 0 else {
            StandardError.line("\(name): /dev/null cannot be opened: \(String(cString: strerror(-result)))")
            Glibc.exit(ProgramExit.failed)
        }
        // It fails for numbers that are no signals only.
        precondition(tl_process_ignore_strays(name) >= 0)
        if getenv("SWIFT_BACKTRACE") == nil {
            precondition(tl_process_report_crashes("\(name) \(version)") >= 0)
        }
    }
}

/// How a program ends.
private struct Ending {
    var exitCode: Int32
    /// For people, on standard error; `nil` if everything is said.
    var text: String?
    /// The same for scripts, on standard output; `nil` if it is in what was printed.
    var report: ErrorReport?
}

extension ParsableCommand {
    /// The whole of a tool's `main`. `arrange` may put the arguments in another order; `otherwise` is the exit code of errors that
    /// have none of their own. `json`: the tool's `--json` is a flag, and among the arguments it asks for errors as JSON too.
    public static func runAsProgram(
        otherwise: Int32 = ProgramExit.failed, json: Bool = false, arrange: ([String]) -> [String] = { $0 }
    ) -> Never {
        prepare()
        let arguments = arrange(Array(CommandLine.arguments.dropFirst()))
        do {
            var command = try parse(arguments)
            try command.run()
            try StandardOutput.flush()
        } catch {
            let ending = ending(of: error, arguments, otherwise: otherwise)
            finish(error, ending, asJSON: json && arguments.prefix { $0 != "--" }.contains("--json"))
        }
        Glibc.exit(ProgramExit.done)
    }

    fileprivate static func prepare() {
        ProgramStart.prepare(name: programName, version: configuration.version)
    }

    /// A command that only has subcommands was given none.
    fileprivate static func parse(_ arguments: [String]) throws -> any ParsableCommand {
        let command = try parseAsRoot(arguments)
        guard command is Self, !configuration.subcommands.isEmpty else { return command }
        throw ValidationError("a command is missing")
    }

    private static var programName: String { configuration.commandName ?? "\(Self.self)" }

    fileprivate static func ending(of error: any Error, _ arguments: [String], otherwise: Int32) -> Ending {
        switch error {
        case let error as ExitCode: return Ending(exitCode: error.rawValue)
        case let error as OutputError: return ending(of: error)
        case let error as any ProgramError:
            return Ending(
                exitCode: error.exitCode, text: "\(programName): \(error.message)",
                report: error.isInAnswer ? nil : ErrorReport(error))
        default: break
        }
        switch exitCode(for: error) {
        case .success: return Ending(exitCode: ProgramExit.done)
        case .validationFailure:
            return Ending(
                exitCode: ProgramExit.usage, text: fullMessage(for: error),
                report: ErrorReport(.usage, message(for: error), next: helpCommand(arguments)))
        default:
            return Ending(
                exitCode: otherwise, text: "\(programName): \(error)", report: ErrorReport(.failed, "\(error)"))
        }
    }

    private static func ending(of error: OutputError) -> Ending {
        // As Unix tools do: whoever closed the pipe knows.
        Ending(exitCode: ProgramExit.output, text: error.isClosedPipe ? nil : "\(programName): \(error)")
    }

    private static func helpCommand(_ arguments: [String]) -> String {
        let subcommands = configuration.subcommands.map { $0._commandName }
        let named = arguments.first { subcommands.contains($0) }
        return ([programName] + [named].compactMap(\.self) + ["--help"]).joined(separator: " ")
    }

    /// What was printed before goes out first.
    fileprivate static func finish(_ error: any Error, _ ending: Ending, asJSON: Bool = false) -> Never {
        do throws(OutputError) {
            if exitCode(for: error) == .success, !(error is ExitCode) {
                try StandardOutput.line(fullMessage(for: error))
            }
            if asJSON, let report = ending.report {
                try StandardOutput.line(report.line)
            }
            try StandardOutput.flush()
        } catch {
            let broken = Self.ending(of: error)
            if let text = broken.text { StandardError.line(text) }
            Glibc.exit(broken.exitCode)
        }
        if let text = ending.text { StandardError.line(text) }
        if ending.exitCode == ProgramExit.interrupted { Interruption.end() }
        Glibc.exit(ending.exitCode)
    }
}

extension AsyncParsableCommand {
    /// As ``ParsableCommand/runAsProgram(otherwise:arrange:)``. Not from an asynchronous `main`: that has opened descriptors already.
    public static func runAsAsyncProgram() -> Never {
        prepare()
        Task { await runToEnd(Array(CommandLine.arguments.dropFirst())) }
        dispatchMain()
    }

    private static func runToEnd(_ arguments: [String]) async -> Never {
        do {
            var command = try parse(arguments)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            try StandardOutput.flush()
        } catch {
            finish(error, ending(of: error, arguments, otherwise: ProgramExit.failed))
        }
        Glibc.exit(ProgramExit.done)
    }
}
