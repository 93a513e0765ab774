// Memory that is lent to connections on several event loops: what is granted to one that ends or needs less meanwhile goes back.

import Dispatch
@testable import NBDServer
import NIOCore
import NIOPosix
import Testing

struct ClientMemoryTests {
    /// Shares of 1 byte and 100 to be lent.
    private static func memory() -> ClientMemory { ClientMemory(budgetBytes: 200, connections: 33) }

    /// What `body` does on its loop happens while a loan is on its way there from another one.
    private func expectNothingStaysLent(
        _ body: @escaping @Sendable (ClientAccount) -> Void, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let (here, there) = (group.next(), group.next())
        let memory = Self.memory()
        let other = try await there.submit {
            let account = ClientAccount(memory, on: there)
            #expect(account.take(70))
            return NIOLoopBound(account, eventLoop: there)
        }.get()
        try await here.submit {
            let account = ClientAccount(memory, on: here)
            #expect(account.take(20))
            #expect(!account.take(30) && memory.isContended)
            let isGranted = DispatchSemaphore(value: 0)
            there.execute {
                other.value.close()
                isGranted.signal()
            }
            isGranted.wait()
            #expect(!memory.isContended && account.isWaiting)
            body(account)
            // It waits for its turn on this loop until the end of this one.
            here.assumeIsolated().execute { account.close() }
        }.get()
        try await here.submit {}.get()
        #expect(memory.lentBytes == 0, sourceLocation: sourceLocation)
        try await group.shutdownGracefully()
    }

    @Test("O5: a loan that comes when its connection has ended goes back") func tooLate() async throws {
        try await expectNothingStaysLent { $0.close() }
    }

    @Test("O5: what a loan has too much when it comes goes back") func tooMuch() async throws {
        try await expectNothingStaysLent { $0.giveBack(20) }
    }

    @Test("O5: who has borrowed and wants nothing more waits for nobody, and its loans stay as they were")
    func nothingIsWanted() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        try await loop.submit {
            let memory = Self.memory()
            let (one, other, third) = (
                ClientAccount(memory, on: loop), ClientAccount(memory, on: loop), ClientAccount(memory, on: loop)
            )
            #expect(one.take(51) && other.take(41) && !third.take(31))
            // A FLUSH, and then a READ that waits behind the third's.
            #expect(one.take(0) && !one.take(21) && memory.lentBytes == 90)
            other.giveBack(41)
            #expect(third.heldBytes == 31 && one.heldBytes == 51 && memory.lentBytes == 80)
            third.giveBack(31)
            #expect(one.heldBytes == 72 && memory.lentBytes == 71)
            one.giveBack(72)
            #expect(memory.lentBytes == 0)
        }.get()
    }
}
