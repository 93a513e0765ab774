// A real iSCSI target for a test: tgtd in user space, on a free port of the loopback interface, with units that are files of the test's
// folder. It is ended, by its process id, when this goes.

internal import ClusterHarness
internal import Foundation
internal import Glibc
package import LogModel
internal import Synchronization

package final class TargetServer: Sendable {
    package static let isInstalled = FileManager.default.isExecutableFile(atPath: program)
    private static let program = "/usr/sbin/tgtd"
    package static let target = "iqn.2026-11.org.twinlog.test:disk"

    private let folder: String
    package let port: UInt16
    private let unitBytes: [UInt64]
    private let process = Mutex<Process?>(nil)

    /// With one unit for each of `unitBytes`, numbered from 1. Serves when this returns.
    package init(in folder: String, unitBytes: [UInt64]) throws {
        self.folder = folder
        self.unitBytes = unitBytes
        port = try LocalCluster.freePort()
        for (index, bytes) in unitBytes.enumerated() {
            guard FileManager.default.createFile(atPath: backing(index + 1), contents: nil),
                truncate(backing(index + 1), off_t(bytes)) == 0
            else { throw HarnessError("\(backing(index + 1)) cannot be made") }
        }
        try start()
    }

    deinit { stop() }

    package func address(_ lun: Int = 1) -> ISCSIAddress {
        ISCSIAddress(portal: TCPAddress(host: "127.0.0.1", port: Int(port)), target: Self.target, lun: UInt16(lun))
    }

    /// The file behind a unit.
    package func backing(_ lun: Int = 1) -> String { "\(folder)/unit\(lun).img" }

    package func start() throws {
        try run([Self.program, "-f", "-C", "\(port)", "--iscsi", "portal=127.0.0.1:\(port)"])
        // tgtd serves its control socket a moment after it has started.
        let deadline = Date().addingTimeInterval(20)
        while !administer("--op", "show", "--mode", "system") {
            guard Date() < deadline else { throw HarnessError("tgtd does not answer: \(log())") }
            usleep(10_000)
        }
        try define("--op", "new", "--mode", "target", "--tid", "1", "-T", Self.target)
        for lun in 1...unitBytes.count {
            try define("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "\(lun)", "-b", backing(lun))
        }
        try define("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
    }

    /// SIGKILL, as of a target's host that dies.
    package func stop() {
        guard let process = process.withLock({ $0.take() }) else { return }
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        process.waitUntilExit()
        unlink("\(socketPath).\(port)")
        unlink("\(socketPath).\(port).lock")
    }

    /// Another unit takes the place of `lun`: over the same file, and with none of its registrations.
    package func replaceUnit(_ lun: Int) throws {
        try define("--op", "delete", "--mode", "logicalunit", "--tid", "1", "--lun", "\(lun)")
        try define("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "\(lun)", "-b", backing(lun))
    }

    package func signal(_ number: Int32) {
        process.withLock { process in process.map { _ = kill($0.processIdentifier, number) } }
    }

    package func log() -> String {
        FileManager.default.contents(atPath: "\(folder)/tgtd.log").map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    private var socketPath: String { "\(folder)/tgtd.sock" }

    private func environment() -> [String: String] {
        ProcessInfo.processInfo.environment.merging(["TGT_IPC_SOCKET": socketPath]) { $1 }
    }

    private func run(_ words: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: words[0])
        process.arguments = Array(words.dropFirst())
        process.environment = environment()
        let path = "\(folder)/tgtd.log"
        if !FileManager.default.fileExists(atPath: path) { try Data().write(to: URL(fileURLWithPath: path)) }
        let output = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try output.seekToEnd()
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.runReachable()
        self.process.withLock { $0 = process }
    }

    private func define(_ words: String...) throws {
        guard administer(words) else { throw HarnessError("tgtadm \(words.joined(separator: " ")) failed: \(log())") }
    }

    private func administer(_ words: String...) -> Bool { administer(words) }

    private func administer(_ words: [String]) -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/sbin/tgtadm")
        process.arguments = ["-C", "\(port)", "--lld", "iscsi"] + words
        process.environment = environment()
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard case .success = Result(catching: { try process.runReachable() }) else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }
}
