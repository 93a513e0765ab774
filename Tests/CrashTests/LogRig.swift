// A log under test: does what a node does with a region, and notes in the ledger what it issued and what was promised.

import CLogCore
import LogModel
import PersistentMemory
import Testing
import WriteLog

final class LogRig {
    let region: Region
    let ledger: Ledger
    /// After ``open(_:medium:)``.
    var log: WriteLog!

    /// How much of a scenario's rounds are run.
    private let percent: Int

    init(region: Region, ledger: Ledger, percent: Int = 100) {
        self.region = region
        self.ledger = ledger
        self.percent = percent
    }

    func times(_ rounds: Int) -> Int { max(1, rounds * percent / 100) }

    /// Begins an incarnation, as a node does when everything of the last one is on the medium.
    func open(_ identity: RegionIdentity, medium: [UInt8]) throws {
        try format(identity, medium: medium)
        log = try WriteLog(region: region)
    }

    func format(_ identity: RegionIdentity, medium: [UInt8]) throws {
        ledger.begin(identity, medium: medium)
        try region.format(
            role: identity.role, logUUID: identity.logUUID, incarnation: identity.incarnation, start: identity.startLSN)
        ledger.promise {
            $0 = Promise(
                incarnation: identity.incarnation, head: identity.startLSN, acknowledged: identity.startLSN)
        }
    }

    /// Destages everything and begins the next incarnation at the end.
    func reopen(trimFirst: Bool = true) throws {
        try log.persist()
        if trimFirst { try trim(to: log.published) }
        let life = ledger.life
        var identity = life.identity
        identity.incarnation = Incarnation(identity.incarnation.rawValue + 1)
        identity.startLSN = log.published
        try open(identity, medium: life.medium(through: log.published))
    }

    // MARK: Appending

    @discardableResult
    func append(_ payload: WriteLog.Payload, at offset: Int, acknowledge: Bool = true) throws -> Bool {
        let acknowledged = ledger.promise.acknowledged
        let outcome = log.append(volume: volume, offset: UInt64(offset), payload, acknowledged: acknowledged)
        guard case .appended(let place) = outcome else { return false }
        let effect: IssuedWrite.Effect =
            switch payload {
            case .data(let bytes): .data(Array(bytes))
            case .discard(let length), .writeZeroes(let length, _): .zeros(length: Int(length))
            }
        note(IssuedWrite(start: place.start, end: place.end, offset: offset, effect: effect), acknowledged)
        try verify(place.start, place.end, payload)
        if acknowledge { try self.acknowledge() }
        return true
    }

    @discardableResult
    func append(bytes: [UInt8], at offset: Int, acknowledge: Bool = true) throws -> Bool {
        try bytes.withUnsafeBytes { try append(.data($0), at: offset, acknowledge: acknowledge) }
    }

    /// A record that says how far it was acknowledged; false if even its own space is used up.
    func appendWatermark() throws -> Bool {
        let start = log.tail, acknowledged = ledger.promise.acknowledged
        guard log.appendWatermark(acknowledged: acknowledged) else { return false }
        note(IssuedWrite(start: start, end: log.tail, offset: 0, effect: .nothing), acknowledged)
        try acknowledge()
        return true
    }

    /// All of it, once it is durable.
    func acknowledge() throws {
        let durable = try log.persist()
        ledger.promise { $0.acknowledged = durable }
    }

    func note(_ write: IssuedWrite, _ acknowledged: LSN) {
        var bytes = [UInt8](repeating: 0, count: Int(write.end - write.start))
        bytes.withUnsafeMutableBytes { region.readRing(from: write.start, into: $0) }
        ledger.life.add(write, bytes: bytes)
        ledger.life.mostAcknowledged = max(ledger.life.mostAcknowledged, acknowledged)
    }

    /// The stored bytes say what was issued; from here on a comparison with them is enough.
    private func verify(_ start: LSN, _ end: LSN, _ payload: WriteLog.Payload) throws {
        var length: UInt64 = 0, bytes: [UInt8] = []
        for case .record(let record) in log.records(from: start, to: end) {
            length += record.range.length
            bytes += record.payload
        }
        guard length == payload.length else { throw Fault("\(length) bytes stored, not \(payload.length)") }
        if case .data(let issued) = payload, !areEqual(bytes, Array(issued)) { throw Fault("other bytes were stored") }
    }

    // MARK: Trimming

    /// The head moves to `head`, which is on the medium; its space is free again.
    func trim(to head: LSN) throws {
        let acknowledged = ledger.promise.acknowledged
        ledger.life.tellHead(head)
        ledger.life.mostAcknowledged = max(ledger.life.mostAcknowledged, acknowledged)
        try log.setHead(head, acknowledged: acknowledged)
        ledger.promise { $0.head = head }
        log.setReclaimLimit(head)
    }

    /// To a write boundary about in the middle of what is there.
    func trimHalf() throws {
        let writes = ledger.life.writes.filter { $0.end > log.head && $0.end <= ledger.promise.acknowledged }
        guard !writes.isEmpty else { return }
        try trim(to: writes[writes.count / 2].end)
    }
}
