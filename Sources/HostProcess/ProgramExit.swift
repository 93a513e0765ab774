// How programs end: the numbers that shells and supervisors see.

/// The exit codes that all executables share; twinlog-recover has its own.
public enum ProgramExit {
    public static let done: Int32 = 0
    public static let failed: Int32 = 1
    /// Usage or configuration.
    public static let usage: Int32 = 2
    /// Standard output could not be written.
    public static let output: Int32 = 4
    /// What a shell makes of SIGINT.
    public static let interrupted: Int32 = 130

    private static let shared: [(code: Int32, meaning: String)] = [
        (done, "done"), (failed, "refused or failed, with the reason"), (usage, "usage or configuration"),
        (output, "output could not be written"),
    ]

    /// The shared ones and `own`, as `--help` shows them.
    public static func table(with own: [(code: Int32, meaning: String)] = []) -> String {
        help((shared + own).sorted { $0.code < $1.code })
    }

    public static func help(_ codes: [(code: Int32, meaning: String)]) -> String {
        (["Exit codes:"] + codes.map { "  \($0.code)  \($0.meaning)" }).joined(separator: "\n")
    }
}
