// Who yields the event loop lets the sockets have their turn.

import Glibc
import LogModel
import NIOCore
import NIOPosix
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

struct TurnsTests {
    private final class Arrival: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private(set) var hasArrived = false
        func channelRead(context: ChannelHandlerContext, data: NIOAny) { hasArrived = true }
    }

    @Test("O24: a long piece of work that yields is overtaken by what comes in meanwhile")
    func overtaken() async throws {
        var ends: [CInt] = [-1, -1]
        try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let (near, far) = (ends[0], ends[1])
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let channel = try await ClientBootstrap(group: loop).withConnectedSocket(near).get()
        let stepsBefore = loop.makePromise(of: Int.self)
        loop.execute {
            let arrival = Arrival()
            do {
                try channel.pipeline.syncOperations.addHandler(arrival)
            } catch {
                return stepsBefore.fail(error)
            }
            // It is there before the first step.
            #expect(write(far, "x", 1) == 1)
            Self.work(steps: 0, loop.assumeIsolated(), arrival, stepsBefore)
        }
        let steps = try await stepsBefore.futureResult.get()
        #expect(steps < 1000, "the byte that was there all the while was read after \(steps) steps of work")
        try await channel.close()
        close(far)
    }

    @Test("S28, O24: a turn of the pump takes a part of a large request; S7: up to 1 MiB a request is one write")
    func aPartATurn() async throws {
        try await OwnerRig.run(ringBytes: 32 << 20) { rig in
            rig.session().submit(.write(offset: 0, payload: ByteBuffer(repeating: 1, count: 4 << 20))) { _ in }
            for turn in 1...3 as ClosedRange<UInt64> {
                rig.owner.pump()
                let part = WaitingRequest.turnBytes
                #expect(rig.log.tail >= LSN(turn * part) && rig.log.tail < LSN(turn * part + part / 2))
            }
            while rig.log.tail < LSN(4 << 20) { rig.owner.pump() }
            let before = rig.log.tail
            rig.session().submit(.write(offset: 0, payload: ByteBuffer(repeating: 2, count: 1 << 20))) { _ in }
            rig.owner.pump()
            #expect(rig.log.tail >= before + (1 << 20))
        }
    }

    private static func work(
        steps: Int, _ loop: NIOIsolatedEventLoop, _ arrival: Arrival, _ done: EventLoopPromise<Int>
    ) {
        guard !arrival.hasArrived, steps < 1000 else { return done.succeed(steps) }
        loop.executeNextTurn { work(steps: steps + 1, loop, arrival, done) }
    }
}
