// How programs fail.

/// An error that ends a program with a sentence and an exit code.
public protocol ProgramError: Error {
    /// What failed, where, and why.
    var message: String { get }
    var code: ErrorCode { get }
    /// A command that helps.
    var next: String? { get }
    /// The JSON document that was printed has it.
    var isInAnswer: Bool { get }
    var exitCode: Int32 { get }
}

extension ProgramError {
    public var code: ErrorCode { .failed }
    public var next: String? { nil }
    public var isInAnswer: Bool { false }
    public var exitCode: Int32 { code.exitCode }
}

extension ErrorReport {
    public init(_ error: any ProgramError) { self.init(error.code, error.message, next: error.next) }
}
