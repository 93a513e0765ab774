// The recorder under programs that are none of ours.

import ClusterHarness
import MediumRecording
import TestSupport
import Testing

@Suite struct MediumRecorderTests {
    private static let blockBytes: UInt64 = 4096

    /// A medium of four blocks, and a recording of it.
    private struct Medium {
        let folder: Folder
        let recording: MediumRecording

        init() throws {
            folder = try Folder()
            try put([UInt8](repeating: 0, count: Int(4 * blockBytes)), into: folder.file("medium"))
            recording = try MediumRecording(of: folder.file("medium"), bytes: 4 * blockBytes)
        }

        /// A program's words that have the medium open as `medium`, and a function `lock` that takes or leaves its lock.
        func words(_ launcher: [String], _ program: String) -> [String] {
            let opening = """
                import fcntl, os, struct, subprocess, sys
                medium = os.open('\(folder.file("medium"))', os.O_RDWR)
                lock = lambda kind: fcntl.fcntl(medium, 37, struct.pack('hhqqi4x', kind, 0, 0, 0, 0))

                """
            return launcher + ["/usr/bin/python3", "-c", opening + program]
        }

        func run(_ launcher: [String], _ program: String, _ arguments: [String] = []) throws {
            let ended = try ClusterHarness.run(words(launcher, program) + arguments)
            guard ended.code == 0 else { throw HarnessError(ended.output) }
        }
    }

    @Test("S18: writes and locks are recorded in their order, with the process that made them")
    func recorded() throws {
        let medium = try Medium()
        try medium.run(
            medium.recording.launcher(),
            """
            lock(fcntl.F_WRLCK)
            os.pwrite(medium, b'a' * 4096, 0)
            os.pwritev(medium, [b'b' * 1000, b'c' * 7192], 4096)
            lock(fcntl.F_UNLCK)
            """)
        let calls = try medium.recording.recorded().sorted { $0.begin < $1.begin }
        #expect(calls.map(\.kind) == [.lock(descriptor: 3), .write, .write, .unlock(descriptor: 3)])
        #expect(Set(calls.map(\.process)).count == 1)
        #expect(calls.allSatisfy { $0.end != nil })
        #expect(try medium.recording.unrecordedBlocks() == [])
        let process = try #require(calls.first?.process)
        let audit = MediumAudit(of: calls, claims: [RecordedClaim(epoch: 1, process: process)])
        #expect(audit.violations == [])
        #expect(audit.writes == 2)
    }

    @Test("S18: a write that goes past the recorder shows in the medium's blocks")
    func pastTheRecorder() throws {
        let medium = try Medium()
        try medium.run(medium.recording.launcher(), "os.pwrite(medium, b'a' * 16384, 0)")
        #expect(try medium.recording.unrecordedBlocks() == [])
        try medium.run([], "os.pwrite(medium, b'b', 9000)")
        #expect(try medium.recording.unrecordedBlocks() == [2])
    }

    @Test("S18: a block that nobody was recorded to write is expected to hold zeros")
    func untouched() throws {
        let medium = try Medium()
        try medium.run([], "os.pwrite(medium, b'a' * 4096, 12288)")
        #expect(try medium.recording.unrecordedBlocks() == [3])
    }

    @Test("S18: a lock keeps out programs of its own host, and none of another host")
    func hostsOfTheirOwn() throws {
        let medium = try Medium()
        let first = medium.recording.launcher(host: 1)
        let locking = "lock(fcntl.F_WRLCK); subprocess.check_call(sys.argv[1:])"
        #expect(throws: HarnessError.self) {
            try medium.run(first, locking, medium.words(first, "lock(fcntl.F_WRLCK)"))
        }
        try medium.run(first, locking, medium.words(medium.recording.launcher(host: 2), "lock(fcntl.F_WRLCK)"))
    }
}
