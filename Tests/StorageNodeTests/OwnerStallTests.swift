// An owner's log reports a writer that stopped in the middle of an append, once, and acknowledges nothing above it.

import CLogCore
import ClusterProtocol
import Glibc
import LogModel
import NIOCore
import NIOEmbedded
import NIOPosix
import PersistentMemory
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

struct OwnerStallTests {
    /// An owner's log without mirror, whose writer uses the log's own steps.
    final class Rig {
        let folder = "/dev/shm/twinlog-stall-\(UUID128.random())"
        let loop = EmbeddedEventLoop()
        let log: WriteLog
        let owner: OwnerDataPath
        final class Reports { var all: [Report] = [] }
        let reports = Reports()

        init() throws {
            try #require(mkdir(folder, 0o700) == 0)
            let pool = try Pool.create(
                path: folder + "/pool", sizeBytes: 1 << 20,
                identity: PoolIdentity(uuid: .zero, cluster: "demo", node: NodeID("alpha")), persistence: .volatile)
            let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 64 * 1024)
            try region.format(role: .owner, logUUID: .random(), incarnation: Incarnation(1), start: .zero)
            log = try WriteLog(region: region)
            let reports = reports
            let owned = OwnedLog(
                log: log, start: .zero, media: [:], runtime: LoopRuntime(eventLoop: loop, threads: .singleton),
                authority: .forEver(mirrors: 0),
                listener: OwnedLog.Listener(
                    report: { reports.all.append($0) }))
            owner = OwnerDataPath(owned, start: .zero)
            // Nothing for other threads to do: this event loop is the test's own.
            owner.owned.destage.giveUp(until: .max)
        }

        deinit {
            try? loop.syncShutdownGracefully()
            unlink(folder + "/pool")
            rmdir(folder)
        }

        func tick() {
            owner.tick()
            loop.run()
        }

        func withWrite<Result>(_ body: (inout tl_write) -> Result) -> Result {
            let payload: [UInt8] = [1, 2, 3]
            return payload.withUnsafeBytes { bytes in
                var write = tl_write()
                write.kind = TL_KIND_DATA
                write.payload = bytes.baseAddress
                write.length = UInt64(bytes.count)
                return body(&write)
            }
        }
    }

    @Test func aWriterThatStoppedIsReportedOnceAndHoldsUpOnlyWhatLiesAbove() throws {  // S1
        let rig = try Rig()
        rig.owner.stallWatch = StallWatch(limit: .zero)  // any two looks at the same stall
        var below = tl_reservation(), stopped = tl_reservation(), above = tl_reservation()
        try #require(rig.withWrite { tl_log_append(rig.log.log, &$0, &below) } == TL_LOG_DONE)
        try #require(rig.withWrite { tl_log_reserve(rig.log.log, &$0, &stopped) } == TL_LOG_DONE)
        try #require(rig.withWrite { tl_log_append(rig.log.log, &$0, &above) } == TL_LOG_DONE)
        for _ in 0..<5 { rig.tick() }
        #expect(rig.owner.owned.acknowledged == LSN(below.end))
        #expect(rig.reports.all.map(\.kind) == [.appendStalled])
        let message = try #require(rig.reports.all.first?.message)
        #expect(message.contains("[\(LSN(stopped.start)), \(LSN(stopped.end)))"), "\(message)")

        rig.withWrite { write in
            tl_log_store(rig.log.log, &write, &stopped)
            tl_log_publish(rig.log.log, &stopped)
        }
        for _ in 0..<5 { rig.tick() }
        #expect(rig.owner.owned.acknowledged == LSN(above.end))
        #expect(rig.reports.all.count == 1)
    }

    @Test func aLogThatMovesOrRestsReportsNothing() throws {
        let rig = try Rig()
        for _ in 0..<20 {
            var place = tl_reservation()
            try #require(rig.withWrite { tl_log_append(rig.log.log, &$0, &place) } == TL_LOG_DONE)
            rig.tick()
            rig.tick()
        }
        #expect(rig.owner.stallWatch.limit == .seconds(1))
        #expect(rig.reports.all.isEmpty)
    }
}
