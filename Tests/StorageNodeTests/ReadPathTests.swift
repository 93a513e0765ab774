import ClusterProtocol
import LogModel
import NIOCore
import StorageMedium
import TestSupport
import Testing

@testable import GroupEngine

/// Where reads of the medium are made: on the loop if nothing has to wait, else on a thread.
struct ReadPathTests {
    private final class Answer {
        var result: Result<ByteBuffer?, VolumeError>?
        var bytes: ByteBuffer? { try? result?.get() }
    }

    private func read(_ session: any VolumeSession, _ offset: UInt64 = 0, _ length: Int = 4096) -> Answer {
        let answer = Answer()
        session.submit(.read(offset: offset, length: length)) { answer.result = $0 }
        return answer
    }

    /// With `byte` on the medium and nothing in the log.
    private func destaged(_ byte: UInt8, bytes count: Int = 4096) throws -> SteppedOwner {
        let rig = try SteppedOwner()
        try rig.write(byte, bytes: count)
        rig.runtime.pass(DestageMachine.paceTime)
        try #require(try rig.batches == 1 && rig.byteOnMedium() == byte)
        return rig
    }

    @Test("S23: what needs no wait is read on the loop, with what the log has over it")
    func onTheLoop() throws {
        let rig = try destaged(5, bytes: 8192)
        let session = rig.owner.session(SteppedOwner.volume, rig.file)
        try rig.write(6, at: 4096)
        let answer = read(session, 0, 8192)
        #expect(
            answer.bytes == ByteBuffer(bytes: [UInt8](repeating: 5, count: 4096) + [UInt8](repeating: 6, count: 4096)))
        #expect(!rig.runtime.performed.contains(.reads))
    }

    @Test("what would wait is read on a thread")
    func onAThread() throws {
        let rig = try destaged(5)
        rig.medium.inject(.delay(millis: 1), on: .read)
        let answer = read(rig.session)
        #expect(answer.result == nil)
        rig.runtime.settle()
        #expect(answer.bytes == ByteBuffer(repeating: 5, count: 4096) && rig.runtime.performed.last == .reads)
    }

    @Test("an error is the medium's, wherever it is met")
    func fails() throws {
        let rig = try destaged(5)
        rig.medium.inject(.fail(errno: 5), on: .read, count: .max)
        var atOnce = 0
        for _ in 0..<32 {
            let answer = read(rig.session)
            if answer.result != nil { atOnce += 1 }
            rig.runtime.settle()
            guard case .failure(.readFailed(let reason)) = answer.result else {
                Issue.record("it was answered with \(String(describing: answer.result))")
                return
            }
            #expect(reason.contains("Input/output error"))
        }
        #expect((1..<32).contains(atOnce))
    }

    @Test("S17: what was read when the right to serve ends is not answered with")
    func withoutTheRight() throws {
        let rig = try destaged(5)
        let medium = EndingMedium(base: rig.file, owned: rig.owner.owned)
        let answer = read(rig.owner.session(SteppedOwner.volume, medium))
        #expect(answer.result == nil)
        rig.owner.owned.authority.validUntil = .max
        medium.endsRight = false
        rig.owner.pump()
        #expect(answer.bytes == ByteBuffer(repeating: 5, count: 4096))
    }

    @Test("S28: the loop reads so much in so long; the rest is for threads")
    func budget() throws {
        let rig = try destaged(5)
        let session = rig.owner.session(SteppedOwner.volume, rig.file)
        let reads = Int(WaitingRequest.turnBytes) / 4096
        for _ in 0..<reads { #expect(read(session).result != nil) }
        let next = read(session)
        #expect(next.result == nil)
        rig.runtime.settle()
        #expect(next.result != nil && rig.runtime.performed.last == .reads)
        rig.runtime.pass(ReadBudget.window)
        #expect(read(session).result != nil)
    }

    @Test("the end of a read that kept nothing in the log does not run the pump")
    func endsQuietly() throws {
        let rig = try destaged(5)
        var pumps = 0
        let pump = rig.owner.owned.onPump
        rig.owner.owned.onPump = {
            pumps += 1
            pump()
        }
        rig.medium.inject(.delay(millis: 1), on: .read, count: 2)
        let quiet = read(rig.session)
        rig.runtime.settle()
        #expect(quiet.result != nil && pumps == 0)
        // This one began before the batch that it outlasts.
        let late = rig.owner.owned.destage.beginRead()
        try rig.write(6)
        rig.runtime.pass(DestageMachine.paceTime)
        #expect(rig.owner.owned.destage.unreferencedBelow < rig.owner.owned.destage.head)
        pumps = 0
        rig.owner.owned.endRead(late)
        rig.runtime.settle()
        #expect(pumps == 1 && rig.owner.owned.destage.unreferencedBelow == rig.owner.owned.destage.head)
    }
}

/// The right to serve ends while it is read.
private final class EndingMedium: Medium, @unchecked Sendable {
    // Sendable: the rig has one thread.
    private let base: any Medium
    private let owned: OwnedLog
    var endsRight = true
    var sizeBytes: UInt64 { base.sizeBytes }

    init(base: any Medium, owned: OwnedLog) {
        self.base = base
        self.owned = owned
    }

    func readNow(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) -> Bool {
        if endsRight { owned.authority.validUntil = 0 }
        return try base.readNow(into: buffer, at: offset)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        try base.read(into: buffer, at: offset)
    }

    func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        try base.write(buffers, at: offset)
    }

    func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        try base.zero(range, releasingSpace: releasingSpace)
    }

    func flush() throws(MediumError) { try base.flush() }
}
