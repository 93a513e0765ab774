import ClusterProtocol
import Glibc
import LogModel
import NIOCore
import NIOPosix
import PersistentMemory
import RemoteMemory
import Synchronization
import Testing
import WriteLog

@testable import GroupEngine
@testable import StorageNode

/// What a mirror that comes back is sent of a log that has rotted meanwhile.
struct CatchUpTests {
    /// A log of three writes that both copies hold, of which a byte rots.
    struct Rot: CustomTestStringConvertible, Sendable {
        var testDescription: String
        var ringBytes: UInt64 = 64 * 1024
        var writeBytes: Int
        /// The first write is on the medium, so that the records go around the ring's end.
        var isAround = false
        var at: UInt64
    }

    static let rots = [
        Rot(testDescription: "payload", writeBytes: 3000, at: 3072 + 64 + 100),
        Rot(testDescription: "header", writeBytes: 3000, at: 3072 + 12),
        Rot(testDescription: "header, its length", writeBytes: 3000, at: 3072 + 40),
        // The second write has a record up to the ring's end and one behind it.
        Rot(testDescription: "before the ring's end", writeBytes: 24_000, isAround: true, at: 64 * 1024 - 200),
        Rot(testDescription: "behind the ring's end", writeBytes: 24_000, isAround: true, at: 64 * 1024 + 300),
        Rot(testDescription: "a record in two WRITEs", ringBytes: 16 << 20, writeBytes: 3 << 20, at: (1 << 20) + 5),
        Rot(
            testDescription: "a header of many MiB", ringBytes: 64 << 20, writeBytes: 12 << 20,
            at: 20 * ((256 << 10) + 64) + 3),
    ]

    /// Leaves the rig with everything in both copies, acknowledged.
    private static func fill(_ rig: OwnerRig, _ rot: Rot) throws {
        func write(_ byte: UInt8) throws {
            rig.session().submit(.write(offset: 0, payload: ByteBuffer(repeating: byte, count: rot.writeBytes))) { _ in
            }
            // A turn takes 256 KiB.
            for _ in 0...rot.writeBytes >> 18 {
                rig.owner.pump()
                rig.mirror.completeAll(rig)
            }
            try #require(rig.owner.owned.acknowledgedWriteEnd == rig.log.published)
        }
        if rot.isAround {
            for byte in 1...2 as ClosedRange<UInt8> { try write(byte) }
            try rig.beginBatch()
            try rig.finishBatch()
            rig.mirror.completeAll(rig)
        }
        for byte in 5...6 as ClosedRange<UInt8> { try write(byte) }
    }

    private static func ring(_ rig: OwnerRig) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(rig.region.ringBytes))
        bytes.withUnsafeMutableBytes { rig.region.readRing(from: .zero, into: $0) }
        return bytes
    }

    @Test("S5, S14, A3: what rots here while the mirror is away is healed from it, and never shipped", arguments: rots)
    func healedFirst(_ rot: Rot) async throws {
        try await OwnerRig.overTurns(ringBytes: rot.ringBytes) { on in
            let good = try await on { rig in
                try Self.fill(rig, rot)
                let good = Self.ring(rig)
                rig.flip(at: rot.at)
                rig.reattach(isKept: true)
                return good
            }
            try await on.eventually("mirrored again") { rig in
                try rig.serveMirror()
                let isGood = isSame(rig.mirror.bytes, good)
                try #require(isGood, "rot has reached the mirror")
                return rig.owner.shipper.durable == rig.log.published
            }
            try await on { rig in
                let isGood = isSame(Self.ring(rig), good)
                #expect(isGood && rig.kinds == [.recordDamaged, .recordHealed])
                #expect(rig.owner.catchUp.problem == nil && !rig.mirror.written.isEmpty)
            }
        }
    }

    @Test("S5, A3: what rotted in both copies is said once and stored nowhere; what is sound below it is shipped")
    func damagedInBoth() async throws {
        try await OwnerRig.overTurns { on in
            for attempt in 1...2 {
                let before = try await on { rig in
                    if attempt == 1 {
                        try Self.fill(rig, Self.rots[0])
                        rig.flip(at: 3072 + 100)
                        rig.mirror.bytes[3072 + 500] ^= 1
                    }
                    rig.reattach(isKept: true)
                    return rig.mirror.bytes
                }
                try await on.eventually("stopped") { rig in
                    try rig.serveMirror()
                    return !rig.owner.catchUp.mayDialMirror && rig.owner.shipper.durable == LSN(3072)
                }
                try await on { rig in
                    rig.owner.pump()
                    let isUntouched = isSame(rig.mirror.bytes, before)
                    #expect(isUntouched && rig.mirror.written.allSatisfy { $0.upperBound <= 3072 })
                    #expect(rig.kinds == [.recordDamaged, .catchUpStopped])
                    #expect(rig.owner.catchUp.problem?.contains("LSN 3072") == true)
                }
            }
        }
    }

    @Test("S5, A3: a mirror that begins anew has nothing to heal from, and is not given the damage either")
    func damagedAndAlone() async throws {
        try await OwnerRig.overTurns { on in
            try await on { rig in
                try Self.fill(rig, Self.rots[0])
                rig.flip(at: 100)
                rig.mirror.bytes = [UInt8](repeating: 0, count: rig.mirror.bytes.count)
                rig.reattach(isKept: false)
            }
            try await on.eventually("stopped") { $0.owner.catchUp.problem != nil }
            try await on { rig in
                #expect(rig.mirror.written.isEmpty && rig.mirror.reads.isEmpty)
                #expect(rig.kinds == [.recordDamaged, .catchUpStopped])
            }
        }
    }

    @Test("A3: memory that loses again what was healed ends the catch-up")
    func damagedAgain() async throws {
        try await OwnerRig.overTurns { on in
            try await on { rig in
                try Self.fill(rig, Self.rots[0])
                rig.flip(at: 200)
                rig.reattach(isKept: true)
            }
            try await on.eventually("asked") { !$0.mirror.reads.isEmpty }
            try await on { rig in
                try rig.mirror.answerReads(rig)
                try #require(rig.byte(at: 200) == 5)
                rig.flip(at: 200)
            }
            try await on.eventually("stopped") { $0.owner.catchUp.problem?.contains("damaged again") == true }
            try await on { rig in #expect(rig.mirror.written.isEmpty && rig.mirror.reads.isEmpty) }
        }
    }

    @Test("A3: a mirror that lacks the middle of a record is sent it from a record that was checked whole")
    func fromTheMiddleOfARecord() async throws {
        try await OwnerRig.overTurns { on in
            try await on { rig in
                try Self.fill(rig, Self.rots[0])
                rig.flip(at: 3072 + 70)
                rig.owner.detachMirror()
                rig.mirror.written = []
                rig.owner.attach(rig.mirror, key: RegionKey(rawValue: 2), durable: LSN(3072 + 1024), isKept: true)
            }
            try await on.eventually("mirrored again") { rig in
                try rig.serveMirror()
                return rig.owner.shipper.durable == rig.log.published
            }
            try await on { rig in
                #expect(rig.byte(at: 3072 + 70) == 6 && rig.mirror.written.map(\.lowerBound) == [4096])
            }
        }
    }

    @Test("what is appended after the attachment leaves in the same turn, unchecked")
    func appendedLater() async throws {
        try await OwnerRig.run { rig in
            #expect(rig.owner.shipper.mirror?.catchUp == nil)
            try rig.write(5, bytes: 3000)
            rig.owner.detachMirror()
            rig.owner.attach(rig.mirror, key: RegionKey(rawValue: 2), durable: rig.log.published, isKept: true)
            #expect(rig.owner.shipper.mirror?.catchUp == nil)
            try rig.write(6, bytes: 3000)
        }
    }

    @Test("S14: while a part is checked its space is not given back")
    func pinned() async throws {
        let gate = Gate()
        defer { gate.open() }
        let threads = GroupThreads(memory: gate.threads)
        threads.start()
        try await OwnerRig.overTurns(threads: threads) { on in
            let head = try await on { rig in
                try Self.fill(rig, Self.rots[0])
                rig.reattach(isKept: true)
                rig.owner.pump()
                // The check is under way.
                try rig.beginBatch()
                try rig.finishBatch()
                rig.mirror.completeAll(rig)
                rig.owner.pump()
                #expect(rig.owner.owned.destage.head > .zero && rig.log.reclaimLimit == .zero)
                return rig.owner.owned.destage.head
            }
            gate.open()
            try await on.eventually("given back") { rig in
                rig.mirror.completeAll(rig)
                return rig.log.reclaimLimit == head
            }
        }
    }
}

/// Threads that do nothing until it is opened.
final class Gate: Sendable {
    private let isOpen = Mutex(false)
    let threads = NIOThreadPool(numberOfThreads: 1)

    init() {
        threads.start()
        threads.submit { [self] _ in while !isOpen.withLock({ $0 }) { usleep(500) } }
    }

    func open() { isOpen.withLock { $0 = true } }
}

/// What an owner knows of its mirror ends with what it was true of.
struct MirrorKnowledgeTests {
    @Test("S1, A1: what a pool held that is gone acknowledges nothing, when the owner's own log is late")
    func replacedPool() async throws {
        let gate = Gate()
        defer { gate.open() }
        let threads = GroupThreads(memory: gate.threads)
        threads.start()
        try await OwnerRig.overTurns(in: "/tmp", threads: threads) { on in
            guard try await on({ $0.region.persistence == .msync }) else {
                return print("skipped: /tmp is in memory here, not on a disk")
            }
            let end = try await on { rig in
                rig.session().submit(.write(offset: 0, payload: ByteBuffer(repeating: 1, count: 4096))) { _ in }
                rig.owner.pump()
                rig.mirror.completeAll(rig)
                #expect(rig.owner.shipper.durable == rig.log.published && rig.owner.owned.acknowledged == .zero)
                // The mirror comes back with an empty pool, joins, since nothing is durable here, and its rail is lost.
                rig.reattach(isKept: false)
                rig.owner.pump()
                rig.owner.detachMirror()
                return rig.log.published
            }
            gate.open()
            try await on.eventually("durable here") { $0.log.durable == end }
            try await on { rig in
                rig.owner.pump()
                #expect(rig.owner.owned.acknowledged == .zero)
            }
        }
    }

    @Test(
        "S1: what the copy holds that counts is acknowledged while its rail is away; of one that does not, nothing is known"
    )
    func detached() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            rig.owner.detachMirror()
            #expect(rig.owner.shipper.durable == rig.log.published)
            rig.needsMirror = false
            rig.owner.pump()
            rig.needsMirror = true
            rig.owner.pump()
            #expect(rig.owner.shipper.durable == nil)
            rig.session().submit(.write(offset: 0, payload: ByteBuffer(repeating: 6, count: 100))) { _ in }
            rig.owner.pump()
            #expect(rig.owner.owned.acknowledged == LSN(3072))
        }
    }

    @Test("S6: the head of an earlier region gives back no space that the present one has not trimmed")
    func headOfAnEarlierRegion() async throws {
        try await OwnerRig.run { rig in
            try rig.write(5, bytes: 3000)
            try rig.beginBatch()
            try rig.finishBatch()
            rig.owner.detachMirror()
            rig.owner.attach(rig.mirror, key: RegionKey(rawValue: 2), durable: rig.log.published, isKept: true)
            rig.owner.pump()
            #expect(rig.owner.owned.destage.head == LSN(3072) && rig.log.reclaimLimit == .zero)
            rig.mirror.completeAll(rig)
            #expect(rig.log.reclaimLimit == LSN(3072))
        }
    }

    @Test("C10: the window ends between the two WRITEs at the ring's end: neither is posted twice")
    func windowEndsAtTheRingsEnd() async throws {
        try await OwnerRig.run { rig in
            for byte in 1...2 as ClosedRange<UInt8> { try rig.write(byte, bytes: 24_000) }
            try rig.beginBatch()
            try rig.finishBatch()
            rig.mirror.completeAll(rig)
            rig.mirror.written = []
            // Each of them is split in two, for it is more than a quarter of the ring.
            rig.mirror.room = 1
            rig.session().submit(.write(offset: 0, payload: ByteBuffer(repeating: 3, count: 24_000))) { _ in }
            rig.owner.pump()
            #expect(rig.mirror.written.map(\.upperBound) == [ringBytes])
            rig.mirror.room = nil
            rig.mirror.completeAll(rig)
            #expect(rig.mirror.written.map(\.lowerBound) == [2 * 24_128, 0])
            rig.mirror.completeAll(rig)
            #expect(rig.owner.owned.acknowledged == rig.log.published)
        }
    }
}
