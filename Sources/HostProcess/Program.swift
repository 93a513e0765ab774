// What every executable does as a process, whatever it is for: how it starts, what its errors become, and its exit codes.

public import ArgumentParser
internal import CHostSupport
internal import Dispatch
internal import Glibc

/// The exit codes that all executables share; twinlog-recover has more of its own.
public enum ProgramExit {
    public static let done: Int32 = 0
    public static let failed: Int32 = 1
    /// Usage or configuration.
    public static let usage: Int32 = 2
    /// Standard output could not be written.
    public static let output: Int32 = 4
}

/// An error that ends a program with a sentence and an exit code.
public protocol ProgramError: Error {
    var message: String { get }
    var exitCode: Int32 { get }
}

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

extension ParsableCommand {
    /// The whole of a tool's `main`. `arrange` may put the arguments in another order; `otherwise` is the exit code of errors that
    /// have none of their own.
    public static func runAsProgram(
        otherwise: Int32 = ProgramExit.failed, arrange: ([String]) -> [String] = { $0 }
    ) -> Never {
        prepare()
        do {
            var command = try parse(arrange(Array(CommandLine.arguments.dropFirst())))
            try command.run()
            try StandardOutput.flush()
        } catch {
            Glibc.exit(ending(with: error, otherwise: otherwise))
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

    /// Says why, where that has not been said, and answers the exit code. What was printed before goes out first.
    fileprivate static func ending(
        with error: any Error, otherwise: Int32 = ProgramExit.failed
    ) -> Int32 {
        do throws(OutputError) {
            if exitCode(for: error) == .success, !(error is ExitCode) {
                try StandardOutput.line(fullMessage(for: error))
            }
            try StandardOutput.flush()
        } catch {
            return ending(with: error)
        }
        return say(error, otherwise)
    }

    private static func ending(with error: OutputError) -> Int32 {
        // As Unix tools do: whoever closed the pipe knows.
        if !error.isClosedPipe { StandardError.line("\(programName): \(error)") }
        return ProgramExit.output
    }

    private static func say(_ error: any Error, _ otherwise: Int32) -> Int32 {
        switch error {
        case let error as OutputError: return ending(with: error)
        case let error as ExitCode: return error.rawValue
        case let error as any ProgramError:
            StandardError.line("\(programName): \(error.message)")
            return error.exitCode
        default: break
        }
        switch exitCode(for: error) {
        case .success: return ProgramExit.done
        case .validationFailure:
            StandardError.line(fullMessage(for: error))
            return ProgramExit.usage
        default:
            StandardError.line("\(programName): \(error)")
            return otherwise
        }
    }
}

extension AsyncParsableCommand {
    /// As ``ParsableCommand/runAsProgram(otherwise:arrange:)``. Not from an asynchronous `main`: that has opened descriptors already.
    public static func runAsAsyncProgram() -> Never {
        prepare()
        Task { Glibc.exit(await outcome()) }
        dispatchMain()
    }

    private static func outcome() async -> Int32 {
        do {
            var command = try parse(Array(CommandLine.arguments.dropFirst()))
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            try StandardOutput.flush()
            return ProgramExit.done
        } catch {
            return ending(with: error)
        }
    }
}
