import ClusterProtocol
import LogModel
import Testing
import WriteLog

@testable import GroupEngine

/// When what is acknowledged leaves for the medium.
struct DestagePaceTests {
    @Test("S8: writes one after another leave as one batch, when the first has waited for so long")
    func oneBatch() throws {
        let rig = try SteppedOwner()
        try rig.write(1)
        rig.runtime.pass(DestageMachine.paceTime - 1)
        try rig.write(2, at: 4096)
        #expect(rig.batches == 0 && rig.owner.owned.destage.head == .zero)
        rig.runtime.pass(1)
        #expect(rig.batches == 1 && rig.log.head == rig.log.tail)
        #expect(try rig.byteOnMedium() == 1 && rig.byteOnMedium(at: 4096) == 2)
        try rig.write(3)
        rig.runtime.pass(DestageMachine.paceTime)
        #expect(try rig.batches == 2 && rig.byteOnMedium() == 3)
    }

    @Test("S6: nothing waits in a log that is half full")
    func halfFull() throws {
        let rig = try SteppedOwner()
        try rig.write(1, bytes: 15 << 10)
        try rig.write(2, bytes: 15 << 10)
        #expect(rig.batches == 0)
        try rig.write(3, bytes: 4 << 10)
        #expect(rig.batches == 1 && rig.log.head == rig.log.tail)
    }

    @Test("who drains does not wait for others to write", arguments: [true, false])
    func drain(thenStop stop: Bool) throws {
        let rig = try SteppedOwner()
        try rig.write(1)
        var isDrained = false
        rig.owner.drain(thenStop: stop) { isDrained = $0 == nil }
        rig.runtime.settle()
        #expect(try isDrained && rig.byteOnMedium() == 1)
    }

    @Test("S5: the watermark of an idle log is trimmed with its last write")
    func watermark() throws {
        let rig = try SteppedOwner()
        try rig.write(1)
        let written = rig.log.tail
        rig.owner.tick()
        rig.runtime.settle()
        #expect(rig.log.tail > written)
        rig.runtime.pass(DestageMachine.paceTime)
        #expect(rig.batches == 1 && rig.log.head == rig.log.tail)
        rig.owner.tick()
        rig.runtime.pass(DestageMachine.paceTime)
        #expect(rig.batches == 1 && rig.log.head == rig.log.tail)
    }
}
