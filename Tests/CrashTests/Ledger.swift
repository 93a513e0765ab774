// What was issued to a log and what was promised of it: the side that a recovered log is held against.

import CLogCore
import LogModel
import PersistentMemory
import Synchronization
import Testing
import WriteLog

let group = GroupID("g0")
let volume = VolumeID(name: "vol0")
let logUUID = UUID128(high: 0x1111, low: 0x2222)
let poolIdentity = PoolIdentity(uuid: UUID128(high: 3, low: 4), cluster: "demo", node: NodeID("alpha"))

/// One write: where it is, and what it does to the volume.
struct IssuedWrite {
    enum Effect {
        case data([UInt8])
        case zeros(length: Int)
        case nothing
    }
    var start: LSN
    var end: LSN
    var offset: Int
    var effect: Effect

    func apply(to medium: UnsafeMutableRawBufferPointer) {
        switch effect {
        case .data(let bytes):
            UnsafeMutableRawBufferPointer(rebasing: medium[offset...]).copyBytes(from: bytes)
        case .zeros(let length):
            UnsafeMutableRawBufferPointer(rebasing: medium[offset..<offset + length]).initializeMemory(
                as: UInt8.self, repeating: 0)
        case .nothing: break
        }
    }
}

/// One incarnation of the log.
final class Life {
    let identity: RegionIdentity
    /// What the medium holds when it begins: everything earlier was destaged (S4).
    let medium: [UInt8]
    /// In order of their LSNs, without a gap.
    private(set) var writes: [IssuedWrite] = []
    /// The log's bytes from the start on, as they were stored.
    private(set) var log: [UInt8] = []
    /// The bytes of it that mean something, as ranges of `log`: headers and payloads, not what fills up a line.
    private(set) var records: [Range<Int>] = []
    /// What the head was told to become.
    private(set) var heads: Set<LSN>
    /// The highest acknowledged LSN that anything in the pool may know.
    var mostAcknowledged = LSN.zero

    init(_ identity: RegionIdentity, medium: [UInt8]) {
        self.identity = identity
        self.medium = medium
        heads = [identity.startLSN]
    }

    func add(_ write: IssuedWrite, bytes: [UInt8]) {
        precondition(write.start == end && write.end - write.start == UInt64(bytes.count))
        var at = 0
        while at < bytes.count {
            let field = bytes[at + 40..<at + 44].reversed().reduce(0) { $0 << 8 | UInt64($1) }  // payload bytes
            records.append(log.count + at..<log.count + at + Int(TL_HEADER_BYTES) + Int(field))
            at += Int(tl_record_bytes(field))
        }
        writes.append(write)
        log += bytes
    }

    /// The index of the first write that starts at `lsn` or above.
    func firstWrite(from lsn: LSN) -> Int {
        var low = 0, high = writes.count
        while low < high {
            let middle = (low + high) / 2
            if writes[middle].start < lsn { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The same, of a record and a place in `log`.
    func firstRecord(from place: Int) -> Int {
        var low = 0, high = records.count
        while low < high {
            let middle = (low + high) / 2
            if records[middle].lowerBound < place { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func tellHead(_ head: LSN) { heads.insert(head) }

    var end: LSN { identity.startLSN + UInt64(log.count) }

    /// The medium when everything below `lsn` is on it.
    func medium(through lsn: LSN) -> [UInt8] {
        var result = medium
        result.withUnsafeMutableBytes { bytes in
            for write in writes where write.end <= lsn { write.apply(to: bytes) }
        }
        return result
    }
}

/// What a crash must keep.
struct Promise {
    /// `nil`: the region may be unformatted.
    var incarnation: Incarnation?
    var head = LSN.zero
    /// Everything below it was acknowledged.
    var acknowledged = LSN.zero
    var isReplayed = false
}

/// A promise is noted with a mark in the recording: from there on every crash must keep it.
// @unchecked: changed by one thread at a time, and read only once the recording is over.
final class Ledger: @unchecked Sendable {
    private(set) var lives: [Life] = []
    /// Number n holds after n marks.
    private(set) var promises: [Promise]
    let recording: Recording
    /// Where a recording is put together from another: called before a mark, so that the mark comes in its place.
    var beforeMark: (() -> Void)?

    init(_ recording: Recording, given: Promise = Promise()) {
        self.recording = recording
        promises = [given]
    }

    /// The same, of another recording of the same marks.
    init(_ recording: Recording, as other: Ledger) {
        self.recording = recording
        promises = other.promises
        lives = other.lives
    }

    /// For what happens after a crash: everything that this knows was issued, and the promise of that crash.
    func continued(from promise: Promise, recording: Recording) -> Ledger {
        let result = Ledger(recording, given: promise)
        result.lives = lives
        return result
    }

    var life: Life { lives[lives.count - 1] }
    var promise: Promise { promises[promises.count - 1] }

    func life(of incarnation: Incarnation) -> Life? { lives.last { $0.identity.incarnation == incarnation } }

    /// Before the region is formatted for it.
    func begin(_ identity: RegionIdentity, medium: [UInt8]) { lives.append(Life(identity, medium: medium)) }

    /// From here on a crash must keep what `change` makes of the last promise.
    func promise(_ change: (inout Promise) -> Void) {
        var next = promise
        change(&next)
        promises.append(next)
        beforeMark?()
        recording.mark(promises.count - 1)
    }
}
