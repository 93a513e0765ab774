import ClusterProtocol
import LogModel
import Testing

/// What goes to the medium next, when the head moves, what may be trimmed.
struct DestageMachineTests {
    private func machine(writes ends: [UInt64], batchBytes: UInt64 = 1000) -> DestageMachine {
        var machine = DestageMachine(start: LSN(100), batchBytes: batchBytes)
        for end in ends { machine.acknowledged(writeTo: LSN(end)) }
        return machine
    }

    private func next(
        _ machine: inout DestageMachine, acknowledged: UInt64, all: Bool = true, isValid: Bool = true,
        isPressed: Bool = true, now: Nanos = 0
    ) -> Range<LSN>? {
        machine.nextBatch(
            acknowledged: LSN(acknowledged), allWritesAcknowledged: all, isValid: isValid, isPressed: isPressed,
            now: now
        )
    }

    private func destage(_ machine: inout DestageMachine, acknowledged: UInt64) throws {
        let batch = next(&machine, acknowledged: acknowledged)
        let head = machine.written(places: 1, isValid: true, now: 0)
        try #require(head != nil && head == batch?.upperBound)
        machine.headMoved()
    }

    @Test("S7: a batch is whole writes, as many as fit it and one at least")
    func batches() {
        var many = machine(writes: [300, 600, 1100, 1101, 5000])
        #expect(next(&many, acknowledged: 5000) == LSN(100)..<LSN(1100))
        #expect(next(&many, acknowledged: 5000) == nil)  // one at a time
        _ = many.written(places: 1, isValid: true, now: 0)
        many.headMoved()
        #expect(next(&many, acknowledged: 5000) == LSN(1100)..<LSN(1101))
        _ = many.written(places: 1, isValid: true, now: 0)
        many.headMoved()
        #expect(next(&many, acknowledged: 5000) == LSN(1101)..<LSN(5000))
        #expect(many.undestagedWrites == 1)
    }

    @Test("a batch has no more writes than a slow disk flushes in time")
    func batchesOfFewWrites() {
        var many = DestageMachine(start: LSN(100), batchBytes: 1000, batchWrites: 2)
        for end in [200, 300, 400] as [UInt64] { many.acknowledged(writeTo: LSN(end)) }
        #expect(next(&many, acknowledged: 400) == LSN(100)..<LSN(300))
    }

    @Test("a medium that takes a full batch quickly gets twice as many writes, until it is slow")
    func learnsWhatTheMediumTakes() throws {
        var many = DestageMachine(start: LSN(0), batchWrites: 2)
        for write in 1...60 as ClosedRange<UInt64> { many.acknowledged(writeTo: LSN(write * 100)) }
        func batch(took time: Nanos, places: Int = 2, fails: Bool = false) throws -> UInt64 {
            let batch = try #require(next(&many, acknowledged: 6000, now: 1000))
            if fails {
                many.giveUp(until: 1000)
            } else {
                _ = many.written(places: places, isValid: true, now: 1000 + time)
                many.headMoved()
            }
            return (batch.upperBound - batch.lowerBound) / 100
        }
        #expect(try batch(took: DestageMachine.quickTime + 1) == 2)
        #expect(try batch(took: DestageMachine.quickTime) == 2)
        #expect(try batch(took: 1) == 4)
        #expect(try batch(took: DestageMachine.slowTime) == 4)
        #expect(try batch(took: DestageMachine.slowTime + 1) == 4)
        #expect(try batch(took: DestageMachine.quickTime) == 2)
        #expect(try batch(took: 1) == 4)
        #expect(try batch(took: 1) == 4)
        // One that fails is tried again with fewer, and what lies side by side shows nothing.
        #expect(try batch(took: 1, fails: true) == 4)
        #expect(try batch(took: 1, places: 0) == 2)
        #expect(try batch(took: 1) == 2)
        #expect(try batch(took: 1) == 4)
    }

    @Test("a write waits for others for so long, and is told when")
    func waitsForCompany() {
        var machine = DestageMachine(start: LSN(100))
        #expect(machine.waitsUntil == nil)
        machine.acknowledged(writeTo: LSN(300))
        #expect(next(&machine, acknowledged: 300, isPressed: false, now: 1000) == nil)
        machine.acknowledged(writeTo: LSN(600))
        let due = 1000 + DestageMachine.paceTime
        #expect(next(&machine, acknowledged: 600, isPressed: false, now: due - 1) == nil)
        #expect(machine.waitsUntil == due)
        #expect(next(&machine, acknowledged: 600, isPressed: false, now: due) == LSN(100)..<LSN(600))
        #expect(machine.waitsUntil == nil)
        _ = machine.written(places: 1, isValid: true, now: due)
        machine.headMoved()
        #expect(machine.waitsUntil == nil)
        machine.acknowledged(writeTo: LSN(900))
        #expect(next(&machine, acknowledged: 900, isPressed: false, now: due) == nil)
        #expect(machine.waitsUntil == due + DestageMachine.paceTime)
    }

    enum Company: CaseIterable { case bytes, writes, batch, space, drain, handover }

    @Test("nothing waits that fills a batch, or that somebody waits for", arguments: Company.allCases)
    func goesAtOnce(_ company: Company) {
        var machine =
            company == .batch
            ? DestageMachine(start: LSN(100), batchBytes: 200) : DestageMachine(start: LSN(100), batchWrites: 2)
        let end = company == .bytes ? 100 + DestageMachine.paceBytes : 300
        machine.acknowledged(writeTo: LSN(company == .bytes ? end - 1 : 299))
        #expect(next(&machine, acknowledged: end - 1, all: false, isPressed: false) == nil)
        switch company {
        case .bytes, .writes, .batch: machine.acknowledged(writeTo: LSN(end))
        case .drain: _ = machine.drain(to: LSN(299), endsWithService: false)
        case .handover: _ = machine.drain(to: LSN(299), endsWithService: true)
        case .space: break
        }
        let batch = next(&machine, acknowledged: end, all: false, isPressed: company == .space)
        #expect(batch?.lowerBound == LSN(100) && machine.isBusy)
    }

    @Test("S10: a batch that was given up does not wait for company again")
    func givenUpGoesAtOnce() {
        var machine = machine(writes: [300])
        #expect(next(&machine, acknowledged: 300, isPressed: false, now: 5) == nil)
        let due = 5 + DestageMachine.paceTime
        #expect(next(&machine, acknowledged: 300, isPressed: false, now: due) != nil)
        machine.giveUp(until: due + 10)
        #expect(next(&machine, acknowledged: 300, isPressed: false, now: due + 9) == nil)
        #expect(next(&machine, acknowledged: 300, isPressed: false, now: due + 10) == LSN(100)..<LSN(300))
    }

    @Test("S5: the watermark behind the last write leaves with it")
    func watermarkLeavesToo() {
        var machine = machine(writes: [300])
        #expect(next(&machine, acknowledged: 364, all: true) == LSN(100)..<LSN(364))
        var unfinished = self.machine(writes: [300])
        #expect(next(&unfinished, acknowledged: 364, all: false) == LSN(100)..<LSN(300))
    }

    @Test("S8: nothing that is not acknowledged, and nothing without a lease")
    func onlyAcknowledged() {
        var idle = machine(writes: [])
        #expect(next(&idle, acknowledged: 100) == nil)
        #expect(next(&idle, acknowledged: 164, all: false) == nil)
        var waiting = machine(writes: [300])
        #expect(next(&waiting, acknowledged: 300, isValid: false) == nil)
        #expect(next(&waiting, acknowledged: 300) == LSN(100)..<LSN(300))
    }

    @Test("control records alone are trimmed once every write is acknowledged")
    func controlRecords() {
        var machine = machine(writes: [])
        #expect(next(&machine, acknowledged: 164) == LSN(100)..<LSN(164))
    }

    @Test("S8: the head moves only if the owner is valid after the flush too")
    func validAfterTheFlush() {
        var machine = machine(writes: [300])
        _ = next(&machine, acknowledged: 300)
        #expect(machine.written(places: 1, isValid: false, now: 0) == nil)
        #expect(machine.head == LSN(100) && !machine.isBusy)
        #expect(next(&machine, acknowledged: 300) == LSN(100)..<LSN(300))
        #expect(machine.written(places: 1, isValid: true, now: 0) == LSN(300))
        #expect(machine.head == LSN(100) && machine.isBusy)
        machine.headMoved()
        #expect(machine.head == LSN(300) && machine.undestagedWrites == 0)
    }

    @Test("S10: a batch that was given up is done anew, not before its time")
    func retry() {
        var machine = machine(writes: [300])
        _ = next(&machine, acknowledged: 300, now: 5)
        machine.giveUp(until: 50)
        #expect(next(&machine, acknowledged: 300, now: 49) == nil)
        #expect(next(&machine, acknowledged: 300, now: 50) == LSN(100)..<LSN(300))
    }

    @Test("S6: space is free below the head, the mirror's head if it counts, and what reads refer to")
    func reclaim() throws {
        var machine = machine(writes: [300, 900], batchBytes: 300)
        let early = machine.beginRead()
        try destage(&machine, acknowledged: 900)
        let late = machine.beginRead()
        #expect(machine.unreferencedBelow == LSN(100))
        try destage(&machine, acknowledged: 900)
        machine.endRead(early)
        #expect(machine.unreferencedBelow == LSN(300))
        #expect(machine.reclaimLimit(mirrorHead: LSN(200), mirrorCounts: true) == LSN(200))
        #expect(machine.reclaimLimit(mirrorHead: LSN(200), mirrorCounts: false) == LSN(300))
        machine.endRead(late)
        #expect(machine.reclaimLimit(mirrorHead: LSN(900), mirrorCounts: true) == LSN(900))
    }

    @Test("a drain is done once, when its end is on the medium; a handover's is forgotten with the handover")
    func drains() throws {
        var machine = machine(writes: [300])
        let kept = machine.drain(to: LSN(300), endsWithService: false)
        _ = machine.drain(to: LSN(300), endsWithService: true)
        #expect(machine.finishedDrains().isEmpty)
        machine.serve()
        try destage(&machine, acknowledged: 300)
        #expect(machine.finishedDrains() == [kept])
        #expect(machine.finishedDrains().isEmpty)
    }
}
