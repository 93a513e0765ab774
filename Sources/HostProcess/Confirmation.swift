// An operator's word for what cannot be undone. Every tool asks for it in the same way: what the command would do is said on
// standard error, then a terminal is asked. Where nobody can be asked, the word has to be among the arguments.

internal import Glibc

/// The operator did not agree, or could not be asked.
public struct Unconfirmed: ProgramError {
    public var message: String
    public var code: ErrorCode { .refused }
    public var exitCode: Int32
}

public struct Confirmation: Sendable {
    /// Who has to agree, and how.
    public enum Rule: Sendable {
        /// A terminal is asked; elsewhere the command, as it was given, is explicit enough.
        case onTerminal
        /// Elsewhere `--yes` is needed.
        case always
    }

    private let program: String
    private let rule: Rule
    private let isGiven: Bool
    private let isQuiet: Bool
    private let refusal: Int32

    /// `isGiven`: `--yes` is among the arguments. `isQuiet`: the answer tells the consequences, only who is asked hears of them before.
    /// `refusal`: the exit code if the operator does not agree.
    public init(
        program: String, _ rule: Rule, isGiven: Bool, isQuiet: Bool = false, refusal: Int32 = ProgramExit.failed
    ) {
        self.program = program
        self.rule = rule
        self.isGiven = isGiven
        self.isQuiet = isQuiet
        self.refusal = refusal
    }

    /// Says what will be done or lost, and returns if the operator agrees.
    public func ask(_ consequences: [String]) throws(Unconfirmed) {
        let isAsking = !isGiven && isatty(STDIN_FILENO) == 1
        if isAsking || !isQuiet {
            for line in consequences { StandardError.line("\(program): \(line)") }
        }
        if isGiven { return }
        guard isAsking else {
            if case .onTerminal = rule { return }
            throw Unconfirmed(
                message: "nothing was changed: this needs an operator's word: run it on a terminal, or add --yes",
                exitCode: refusal)
        }
        StandardError.text("\(program): go on? (yes or no) ")
        guard readLine() == "yes" else { throw Unconfirmed(message: "nothing was changed", exitCode: refusal) }
    }
}
