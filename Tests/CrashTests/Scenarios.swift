// Lives of a log, each as a list of what a node does with it. Each runs with the best instructions (streamed stores), with the
// portable ones (cached stores and write-backs) and on an ordinary file (`msync`), over any seed.

import CLogCore
import LogModel
import PersistentMemory
import TestSupport
import Testing
import WriteLog

struct Scenario: Sendable {
    var name: String
    var ringBytes: UInt64 = 64 << 10
    /// How far before the ring's end the first incarnation begins, which each scenario goes around; a multiple of 64.
    var beforeEnd: UInt64 = 384
    /// Each run goes on over what it stored in the lap before (S3, S6).
    var reusesSpace = false
    var volumeBytes = 32 << 10
    var continueEvery = 401
    /// Appends to a log that was just opened.
    var body: @Sendable (LogRig, inout SplitMix64) throws -> Void

    static let firstIncarnation = Incarnation(7)
    private var start: LSN { LSN(4 * ringBytes - beforeEnd) }

    /// A ring full of the records that an earlier incarnation left, of two laps (S4).
    private func staleRing(_ folder: Folder, seed: UInt64) throws -> [UInt8] {
        let pool = try Pool.create(
            path: folder.file("stale"), sizeBytes: ringBytes + (64 << 10), identity: poolIdentity,
            persistence: .volatile)
        defer { pool.close() }
        let region = try pool.allocateRegion(group: group, ringBytes: ringBytes)
        try region.format(
            role: .owner, logUUID: logUUID, incarnation: Incarnation(Self.firstIncarnation.rawValue - 1),
            start: LSN(start.rawValue - ringBytes - ringBytes / 2))
        let log = try WriteLog(region: region)
        var random = SplitMix64(seed: ~seed)
        while log.published < start {
            let bytes = random.bytes(Int(random.below(ringBytes / 50)) + 1)
            _ = bytes.withUnsafeBytes { log.append(volume: volume, offset: 0, .data($0), acknowledged: log.head) }
            try log.setHead(log.published, acknowledged: log.published)
            log.setReclaimLimit(log.head)
        }
        var ring = [UInt8](repeating: 0, count: Int(ringBytes))
        ring.withUnsafeMutableBytes { region.readRing(from: .zero, into: $0) }
        return ring
    }

    /// Runs it, or about so much of it, and hands over what is to be enumerated. `disk`: with `msync`, there.
    func prepare(
        seed: UInt64, percent: Int, isa: tl_isa, folder: Folder, disk: Folder? = nil
    ) throws -> CrashRun {
        let live = (disk ?? folder).file("live")
        let poolBytes = ringBytes + (64 << 10)
        do {
            let pool = try Pool.create(
                path: live, sizeBytes: poolBytes, identity: poolIdentity, persistence: .volatile)
            let region = try pool.allocateRegion(group: group, ringBytes: ringBytes)
            try staleRing(folder, seed: seed).withUnsafeBytes { region.store($0, at: .zero) }
            try region.drain()
        }
        let before = try contents(of: live)
        let ledger = Ledger(try Recording())
        let pool = try Pool.open(
            path: live, expecting: nil, persistence: disk == nil ? .volatile : .msync, readOnly: false,
            recorder: ledger.recording.recorder, isa: isa)
        let rig = LogRig(region: try #require(pool.region(of: group)), ledger: ledger, percent: percent)
        var random = SplitMix64(seed: seed)
        try rig.open(
            RegionIdentity(role: .owner, logUUID: logUUID, incarnation: Self.firstIncarnation, startLSN: start),
            medium: [UInt8](repeating: 0, count: volumeBytes))
        try body(rig, &random)
        let end = ledger.life.writes.last?.end ?? ledger.life.identity.startLSN
        try #require(end > start + (reusesSpace ? ringBytes : beforeEnd), "\(name) goes around the ring's end")
        var plan = CrashPlan(seed: seed)
        plan.continueEvery = continueEvery
        return CrashRun(name: name, plan: plan, ledger: ledger, folder: folder, before: before, isa: isa)
    }

    static let all: [Scenario] = [
        small, wrapAround, full, large, pads, clears, incarnations, trims, writers, mirror, mirrorThatSkips, megabytes,
    ]

    // MARK: One writer

    /// Records of a word or two: every state of every append.
    static let small = Scenario(name: "small") { rig, random in
        for number in 0..<rig.times(45) {
            switch random.below(6) {
            case 0: try #require(try rig.appendWatermark())
            case 1: try rig.append(.discard(length: 1 + random.below(500)), at: Int(random.below(30000)))
            default:
                try rig.append(
                    bytes: random.bytes(Int(random.below(12)) + 1), at: Int(random.below(30000)),
                    acknowledge: random.below(4) > 0)
            }
            if number % 6 == 5 { try rig.trimHalf() }
        }
    }

    /// Laps of the ring, so that places hold records of earlier laps (S3).
    static let wrapAround = Scenario(name: "wrap-around", reusesSpace: true) { rig, random in
        for _ in 0..<rig.times(90) {
            let bytes = random.bytes(Int(random.below(7000)) + 4000)
            let at = Int(random.below(UInt64(32768 - bytes.count)))
            if try !rig.append(bytes: bytes, at: at, acknowledge: random.below(3) > 0) {
                try rig.acknowledge()
                try rig.trimHalf()
            }
        }
    }

    /// Up to the last byte, control records included, again and again (S6).
    static let full = Scenario(name: "full", reusesSpace: true) { rig, random in
        for _ in 0..<rig.times(3) {
            while try rig.append(bytes: random.bytes(7000), at: Int(random.below(20000))) {}
            while try rig.append(bytes: random.bytes(3), at: Int(random.below(20000)), acknowledge: false) {}
            try rig.acknowledge()
            while try rig.appendWatermark() {}
            try #require(rig.log.tail - rig.log.reclaimLimit == rig.log.ringBytes)
            try rig.trim(to: rig.ledger.life.writes[rig.ledger.life.writes.count - 40].end)
            try rig.trimHalf()
            for _ in 0..<3 { try #require(try rig.append(bytes: random.bytes(3000), at: 0)) }
        }
    }

    /// Writes of a quarter of the ring, in pieces across its end (S7).
    static let large = Scenario(name: "large") { rig, random in
        for _ in 0..<rig.times(24) {
            let bytes = random.bytes(rig.log.maximumWriteBytes - Int(random.below(3000)))
            let at = Int(random.below(UInt64(32768 - bytes.count)))
            if try !rig.append(bytes: bytes, at: at, acknowledge: random.below(2) == 0) {
                try rig.acknowledge()
                try rig.trimHalf()
            }
        }
    }

    /// Writes that begin, or whose next piece begins, one unit before the ring's end.
    static let pads = Scenario(name: "pads") { rig, random in
        for lap in 0..<rig.times(12) {
            try rig.acknowledge()
            try rig.trim(to: rig.log.published)
            while true {
                let room = rig.log.ringBytes - rig.log.tail.rawValue % rig.log.ringBytes
                if room <= 16384 { break }
                try #require(try rig.append(bytes: random.bytes(8000), at: 0))
                try rig.trim(to: rig.log.published)
            }
            let room = Int(rig.log.ringBytes - rig.log.tail.rawValue % rig.log.ringBytes)
            try #require(try rig.append(bytes: random.bytes(room - 128), at: 100, acknowledge: false))
            try #require(rig.log.tail.rawValue % rig.log.ringBytes == rig.log.ringBytes - 64)
            // A pad and a record, or a record without payload right there.
            if lap % 2 == 1 { try rig.append(.discard(length: 5), at: 8, acknowledge: false) }
            try #require(try rig.append(bytes: random.bytes(9), at: 300))
        }
    }

    static let clears = Scenario(name: "clears", beforeEnd: 192) { rig, random in
        for _ in 0..<rig.times(40) {
            let length = 1 + random.below(9000), at = Int(random.below(20000))
            switch random.below(4) {
            case 0: try rig.append(.discard(length: length), at: at)
            case 1: try rig.append(.writeZeroes(length: length, keepSpace: false), at: at)
            case 2: try rig.append(.writeZeroes(length: length, keepSpace: true), at: at, acknowledge: false)
            default: try rig.append(bytes: random.bytes(Int(length % 500) + 1), at: at)
            }
        }
    }

    /// Openings, each behind the last one's end (S4).
    static let incarnations = Scenario(name: "incarnations") { rig, random in
        for round in 0..<rig.times(12) {
            for _ in 0..<random.below(5) {
                try rig.append(bytes: random.bytes(Int(random.below(70)) + 1), at: Int(random.below(30000)))
            }
            if round % 3 == 1 { try rig.append(bytes: random.bytes(600), at: 0, acknowledge: false) }
            try rig.acknowledge()
            try rig.reopen(trimFirst: round % 2 == 0)
        }
    }

    static let trims = Scenario(name: "trims") { rig, random in
        for _ in 0..<rig.times(30) {
            try rig.append(bytes: random.bytes(Int(random.below(20)) + 1), at: Int(random.below(30000)))
            if random.below(2) == 0 { try rig.append(bytes: random.bytes(90), at: 0) }
            try rig.trimHalf()
        }
    }

    /// Records of a megabyte, in one write and across the ring's end.
    static let megabytes = Scenario(
        name: "megabytes", ringBytes: 8 << 20, beforeEnd: 600 << 10, volumeBytes: 2 << 20,
        continueEvery: 200
    ) { rig, random in
        let block = random.bytes(32 << 10)
        var bytes: [UInt8] = []
        while bytes.count < (1 << 20) + (500 << 10) { bytes += block }
        try #require(try rig.append(bytes: bytes, at: 0))
        try #require(try rig.append(bytes: [1, 2, 3], at: 0))
    }
}
