// A disk under the pool that does not answer: nobody is acknowledged, or no space is given back. The owner says so as it does of a medium.

import ClusterProtocol
import Testing
import WriteLog

@testable import GroupEngine

struct HungPersistTests {
    private static let limit = MediumWatch.usualCallLimit

    @Test("S6: a head that does not become durable is trouble after a while, until it is durable")
    func hungHead() throws {
        let stepped = try SteppedOwner()
        try stepped.write(1)
        stepped.runtime.hangs = [.memory]
        stepped.runtime.pass(1_000_000_000)
        try #require(stepped.batches == 1, "the batch is on the medium, and its head on the way")
        let runtime = stepped.runtime
        #expect(stepped.owner.mediumTrouble(runtime.now) == nil)

        runtime.pass(Self.limit)
        let trouble = try #require(stepped.owner.mediumTrouble(runtime.now))
        #expect(trouble.since < runtime.now - Self.limit / 2)
        #expect(trouble.reason.contains("does not return") && !trouble.isLogFull && !trouble.isFull)

        runtime.release()
        #expect(stepped.owner.mediumTrouble(runtime.now) == nil)
        #expect(stepped.owner.owned.destage.head == stepped.log.tail)
    }
}
