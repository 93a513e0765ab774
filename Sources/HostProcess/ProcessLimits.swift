// What the kernel lets this process have.

internal import CHostSupport
internal import Glibc

public enum ProcessLimits {
    /// Open descriptors, once the limit is raised as far as this process may.
    public static var mostDescriptors: UInt64 { tl_process_most_descriptors() }

    /// Raises the limit of open descriptors to ``mostDescriptors``. Shells and supervisors keep it low for programs that use `select`.
    public static func raiseDescriptors() throws(LimitError) {
        let result = tl_process_raise_descriptors()
        guard result >= 0 else {
            throw LimitError(
                message: "the limit of open descriptors cannot be raised: \(String(cString: strerror(-result)))")
        }
    }
}

public struct LimitError: ProgramError, CustomStringConvertible {
    public var message: String
    public var exitCode: Int32 { ProgramExit.failed }
    public var description: String { message }
}
