// What two nodes say to each other on a group's rail, beside the one-sided verbs. Little-endian, length-checked; one
// message is a type byte and its fields, and nothing may be left over (S21).

internal import ClusterProtocol
internal import LogModel
internal import RemoteMemory

enum PeerMessage: Equatable {
    case attach(AttachRequest)
    case attached(group: GroupID, epoch: Epoch, key: RegionKey, durable: LSN, contents: MirrorContents)
    case refused(group: GroupID, epoch: Epoch, AttachRefusal, String)
    case heartbeat
    case recordChanged
    /// The WRITEs that follow store this part of the mirror log anew, because it is damaged there.
    case repair(Range<LSN>)

    static let maximumTextBytes = 512

    var encoded: [UInt8] {
        var out = MessageWriter()
        switch self {
        case .attach(let request):
            out.put(1 as UInt8)
            out.put(text: request.group.rawValue)
            out.put(text: request.from.rawValue)
            out.put(request.epoch.rawValue)
            out.put(uuid: request.logUUID)
            out.put(request.incarnation.rawValue)
            out.put(request.head.rawValue)
            out.put(request.acknowledged.rawValue)
            out.put(request.ringBytes)
        case .attached(let group, let epoch, let key, let durable, let contents):
            out.put(2 as UInt8)
            out.put(text: group.rawValue)
            out.put(epoch.rawValue)
            out.put(key.rawValue)
            out.put(durable.rawValue)
            out.put(uuid: contents.pool)
            out.put((contents.isKept ? 1 : 0) as UInt8)
        case .refused(let group, let epoch, let refusal, let reason):
            out.put(3 as UInt8)
            out.put(text: group.rawValue)
            out.put(epoch.rawValue)
            out.put(refusal.rawValue)
            out.put(text: reason)
        case .heartbeat: out.put(4 as UInt8)
        case .recordChanged: out.put(5 as UInt8)
        case .repair(let range):
            out.put(6 as UInt8)
            out.put(range.lowerBound.rawValue)
            out.put(range.upperBound.rawValue)
        }
        return out.bytes
    }

    /// `nil` for anything that ``encoded`` does not produce.
    init?(_ bytes: [UInt8]) {
        var input = MessageReader(bytes)
        switch input.byte() {
        case 1: self = .attach(input.attachRequest())
        case 2:
            self = .attached(
                group: GroupID(input.text()), epoch: Epoch(input.word()), key: RegionKey(rawValue: input.word()),
                durable: LSN(input.word()), contents: MirrorContents(pool: input.uuid(), isKept: input.byte() == 1))
        case 3:
            self = .refused(
                group: GroupID(input.text()), epoch: Epoch(input.word()),
                AttachRefusal(rawValue: input.byte()) ?? .notReady, input.text())
        case 4: self = .heartbeat
        case 5: self = .recordChanged
        case 6:
            let from = LSN(input.word()), to = LSN(input.word())
            guard from < to else { return nil }
            self = .repair(from..<to)
        default: return nil
        }
        guard input.isExhausted else { return nil }
    }
}

private struct MessageWriter {
    var bytes: [UInt8] = []

    mutating func put<Number: FixedWidthInteger>(_ value: Number) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func put(uuid: UUID128) {
        put(uuid.high)
        put(uuid.low)
    }

    /// Cut at the limit, which names never reach.
    mutating func put(text: String) {
        let utf8 = Array(text.utf8.prefix(PeerMessage.maximumTextBytes))
        put(UInt16(utf8.count))
        bytes += utf8
    }
}

/// Reads past the end give zeros and are remembered.
private struct MessageReader {
    private var bytes: ArraySlice<UInt8>
    private var failed = false

    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

    var isExhausted: Bool { !failed && bytes.isEmpty }

    mutating func byte() -> UInt8 { number() }
    mutating func word() -> UInt64 { number() }

    mutating func number<Number: FixedWidthInteger>() -> Number {
        let size = MemoryLayout<Number>.size
        guard bytes.count >= size else {
            failed = true
            return 0
        }
        var value: Number = 0
        for byte in bytes.prefix(size).reversed() {
            value = (size == 1 ? 0 : value << 8) | Number(truncatingIfNeeded: byte)
        }
        bytes = bytes.dropFirst(size)
        return value
    }

    mutating func uuid() -> UUID128 { UUID128(high: word(), low: word()) }

    mutating func text() -> String {
        let count: UInt16 = number()
        guard count <= PeerMessage.maximumTextBytes, bytes.count >= Int(count),
            let text = String(validating: bytes.prefix(Int(count)), as: UTF8.self)
        else {
            failed = true
            return ""
        }
        bytes = bytes.dropFirst(Int(count))
        return text
    }

    mutating func attachRequest() -> AttachRequest {
        AttachRequest(
            group: GroupID(text()), from: NodeID(text()), epoch: Epoch(word()), logUUID: uuid(),
            incarnation: Incarnation(word()), head: LSN(word()), acknowledged: LSN(word()), ringBytes: word())
    }
}
