// Servers of NBD by others, with one copy in a file of a memory file system.

import ClusterHarness
import Foundation
import HostProcess
import LogModel

/// A server of others, with one copy in a file.
final class NBDPeer {
    private let name: String
    /// `nil` if it is not in PATH.
    private let program: String?
    private let arguments: [String]
    private let socket: String
    private let file: String
    private let process = Process()

    private init(_ name: String, _ folder: String, _ arguments: (_ socket: String, _ file: String) -> [String]) {
        self.name = name
        program = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/\(name)" }
            .first(where: FileManager.default.isExecutableFile(atPath:))
        socket = "\(folder)/\(name).sock"
        file = "\(folder)/\(name).img"
        self.arguments = arguments(socket, file)
    }

    /// Those that this machine has; says which it lacks.
    static func installed(_ folder: String) -> [NBDPeer] {
        let all = [
            NBDPeer("nbdkit", folder) { ["--foreground", "--unix", $0, "file", $1] },
            NBDPeer("qemu-nbd", folder) {
                ["--socket", $0, "--format=raw", "--persistent", "--shared=64", "--cache=writeback", $1]
            },
        ]
        return all.filter { peer in
            if peer.program != nil { return true }
            StandardError.line("\(peer.name) is not installed: no peer")
            return false
        }
    }

    func start() throws -> VolumeContender {
        guard FileManager.default.createFile(atPath: file, contents: nil),
            truncate(file, off_t(VolumeContender.volumeBytes)) == 0
        else { throw PerfError("\(file) cannot be made") }
        guard let program else { throw PerfError("\(name) is not installed") }
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        try Remains.undisturbed { try process.runReachable() }
        let began = monotonicNanos()
        while !FileManager.default.fileExists(atPath: socket) {
            guard process.isRunning, monotonicNanos() - began < 30_000_000_000 else {
                throw PerfError("\(program) does not listen on \(socket)")
            }
            usleep(10_000)
        }
        return VolumeContender(
            name: name, exports: [VolumeExport(address: .unix(path: socket), name: "")],
            processes: ["server": process.processIdentifier])
    }

    func stop() {
        guard process.isRunning else { return }
        process.terminate()
        process.waitForEnd()
    }
}
