// Runs the built twinlog-recover.

import Foundation
import Testing

struct ToolRun {
    var code: Int32
    var output: String
    var errors: String

    func json() throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
    }
}

/// Beside the running test bundle, or where TWINLOG_BIN says.
private func toolPath() throws -> String {
    var folders = ProcessInfo.processInfo.environment["TWINLOG_BIN"].map { [$0] } ?? []
    for path in ["/proc/self/exe"] + CommandLine.arguments {
        folders.append(URL(fileURLWithPath: path).resolvingSymlinksInPath().deletingLastPathComponent().path)
    }
    return try #require(
        folders.map { $0 + "/twinlog-recover" }.first { FileManager.default.isExecutableFile(atPath: $0) },
        "twinlog-recover is not built: run `swift build --build-tests`")
}

func recover(_ arguments: String...) throws -> ToolRun { try recover(arguments: arguments) }

/// Ends the tool if it takes longer than any of its runs may.
func recover(arguments: [String]) throws -> ToolRun {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: try toolPath())
    process.arguments = arguments
    process.environment = ["SWIFT_BACKTRACE": "enable=no"]
    let output = Pipe()
    let errors = Pipe()
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = output
    process.standardError = errors
    let ended = DispatchSemaphore(value: 0)
    let readers = DispatchGroup()
    nonisolated(unsafe) var texts = [Data(), Data()]
    process.terminationHandler = { _ in ended.signal() }
    try process.run()
    let lock = NSLock()
    for (index, pipe) in [output, errors].enumerated() {
        readers.enter()
        Thread.detachNewThread {
            let text = pipe.fileHandleForReading.readDataToEndOfFile()
            // Owned by the lock until both readers are done.
            lock.withLock { texts[index] = text }
            readers.leave()
        }
    }
    let isInTime = ended.wait(timeout: .now() + 60) == .success
    if !isInTime { kill(process.processIdentifier, SIGKILL) }
    readers.wait()
    process.waitUntilExit()
    try #require(isInTime, "twinlog-recover \(arguments) did not end")
    try #require(process.terminationReason == .exit, "twinlog-recover \(arguments) crashed")
    return ToolRun(
        code: process.terminationStatus, output: String(decoding: texts[0], as: UTF8.self),
        errors: String(decoding: texts[1], as: UTF8.self))
}
