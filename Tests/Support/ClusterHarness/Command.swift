// Programs that a test runs to their end.

internal import Foundation

package struct Finished: Sendable {
    package var code: Int32
    package var output: String

    package init(code: Int32, output: String) {
        self.code = code
        self.output = output
    }
}

/// Runs a program to its end, with a limit; its standard output and error together.
@discardableResult
package func run(_ command: String..., folder: String? = nil, seconds: Int = 60) throws -> Finished {
    try run(command, folder: folder, seconds: seconds)
}

@discardableResult
package func run(_ command: [String], folder: String? = nil, seconds: Int = 60) throws -> Finished {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["timeout", "-k", "5", "\(seconds)"] + command
    if let folder { process.currentDirectoryURL = URL(fileURLWithPath: folder) }
    let path = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    process.environment = ProcessInfo.processInfo.environment.merging(["LC_ALL": "C", "PATH": path]) { $1 }
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    try process.runReachable()
    let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return Finished(code: process.terminationStatus, output: String(decoding: output, as: UTF8.self))
}

/// The same, and the program must succeed.
@discardableResult
package func succeed(_ command: String..., folder: String? = nil, seconds: Int = 60) throws -> String {
    let shell = command.map { "'" + $0.replacingOccurrences(of: "'", with: "'\\''") + "'" }.joined(separator: " ")
    let result = try run("bash", "-c", shell, folder: folder, seconds: seconds)
    guard result.code == 0 else { throw HarnessError("\(shell) ended with \(result.code):\n\(result.output)") }
    return result.output
}
