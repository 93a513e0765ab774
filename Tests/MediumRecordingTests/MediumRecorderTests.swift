// The recorder under programs that are none of ours.

import ClusterHarness
import MediumRecording
import TestSupport
import Testing

@Suite struct MediumRecorderTests {
    private static let blockBytes: UInt64 = 4096

    /// A medium of four blocks, and a program that has it open as `medium`.
    private func withMedium(
        _ body: (MediumRecording, _ run: (_ program: String, _ isRecorded: Bool) throws -> Void) throws -> Void
    ) throws {
        let folder = try Folder()
        let path = folder.file("medium")
        try put([UInt8](repeating: 0, count: Int(4 * Self.blockBytes)), into: path)
        let recording = try MediumRecording(of: path, bytes: 4 * Self.blockBytes)
        try body(recording) { program, isRecorded in
            let opening = "import fcntl, os, struct; medium = os.open('\(path)', os.O_RDWR)\n"
            let words = (isRecorded ? recording.launcher : []) + ["/usr/bin/python3", "-c", opening + program]
            let ended = try run(words)
            guard ended.code == 0 else { throw HarnessError(ended.output) }
        }
    }

    @Test("S18: writes, zeros and locks are recorded in their order, with the process that made them")
    func recorded() throws {
        try withMedium { recording, run in
            try run(
                """
                lock = lambda kind: fcntl.fcntl(medium, 37, struct.pack('hhqqi4x', kind, 0, 0, 0, 0))
                lock(fcntl.F_WRLCK)
                os.pwrite(medium, b'a' * 4096, 0)
                os.pwritev(medium, [b'b' * 1000, b'c' * 7192], 4096)
                lock(fcntl.F_UNLCK)
                """, true)
            let calls = try recording.recorded().sorted { $0.begin < $1.begin }
            #expect(
                calls.map(\.kind) == [
                    .lock(descriptor: 3), .write, .write, .unlock(descriptor: 3),
                ])
            #expect(Set(calls.map(\.process)).count == 1)
            #expect(calls.allSatisfy { $0.end != nil })
            #expect(try recording.unrecordedBlocks() == [])
            let process = try #require(calls.first?.process)
            let audit = MediumAudit(of: calls, claims: [RecordedClaim(epoch: 1, process: process)])
            #expect(audit.violations == [])
            #expect(audit.writes == 2)
        }
    }

    @Test("S18: a write that goes past the recorder shows in the medium's blocks")
    func pastTheRecorder() throws {
        try withMedium { recording, run in
            try run("os.pwrite(medium, b'a' * 16384, 0)", true)
            #expect(try recording.unrecordedBlocks() == [])
            try run("os.pwrite(medium, b'b', 9000)", false)
            #expect(try recording.unrecordedBlocks() == [2])
        }
    }

    @Test("S18: a block that nobody was recorded to write is expected to hold zeros")
    func untouched() throws {
        try withMedium { recording, run in
            try run("os.pwrite(medium, b'a' * 4096, 12288)", false)
            #expect(try recording.unrecordedBlocks() == [3])
        }
    }
}
