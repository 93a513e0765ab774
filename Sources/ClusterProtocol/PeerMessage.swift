// What two nodes say to each other on a group's rail, beside the one-sided verbs: a type byte, then tagged fields
// (LogModel/TaggedFields.swift). A node passes over fields that it does not know, and ignores messages of a type that it
// does not know, so that it understands what matters of a newer one. A message that lacks a field, or has a value that
// cannot be, costs the connection (S21).
//
// Types and tags are part of the protocol: a number keeps its meaning for ever.

public import LogModel

public enum PeerMessage: Hashable, Sendable {
    case attach(AttachRequest)
    /// `key` opens the mirror region.
    case attached(group: GroupID, epoch: Epoch, key: UInt64, durable: LSN, contents: MirrorContents)
    case refused(group: GroupID, epoch: Epoch, AttachRefusal, String)
    case heartbeat(Heartbeat)
    case recordChanged
    /// The WRITEs that follow store this part of the mirror log anew, because it is damaged there.
    case repair(Range<LSN>)
    /// What does this part of the volume's medium hold where you reach it? (S18)
    case mediumQuestion(id: UInt64, volume: VolumeID, offset: UInt64, lengthBytes: UInt32)
    /// CRC32C of the part, or why it could not be read.
    case mediumAnswer(id: UInt64, checksum: UInt32?, error: String?)
    /// Whether the asked node reaches the owner's medium.
    case mediumProof(volume: VolumeID, isProved: Bool)
    /// Sent after a handshake that found two digests.
    case configuration(ConfigurationEntries)
    /// An owner's, on each of its rails; answered there.
    case railHeartbeat(RailHeartbeat)
    /// Answers the heartbeat that was sent on this rail at `sent`, on the sender's clock.
    case railAnswer(sent: Nanos)

    public static let maximumTextBytes = 512

    private enum Kind: UInt8 {
        case attach = 1, attached = 2, refused = 3, heartbeat = 4, recordChanged = 5, repair = 6
        case mediumQuestion = 7, mediumAnswer = 8, mediumProof = 9, configuration = 10
        case railHeartbeat = 11, railAnswer = 12
    }

    fileprivate enum Tag {
        static let group: UInt8 = 1, from: UInt8 = 2, epoch: UInt8 = 3, logUUID: UInt8 = 4, incarnation: UInt8 = 5
        static let head: UInt8 = 6, acknowledged: UInt8 = 7, ringBytes: UInt8 = 8, pool: UInt8 = 9
        static let generation: UInt8 = 10, end: UInt8 = 11, counts: UInt8 = 12, key: UInt8 = 13, durable: UInt8 = 14
        static let isKept: UInt8 = 15, refusal: UInt8 = 16, reason: UInt8 = 17, isSuspended: UInt8 = 18
        static let lowerBound: UInt8 = 19, upperBound: UInt8 = 20, id: UInt8 = 21, volume: UInt8 = 22
        static let offset: UInt8 = 23, lengthBytes: UInt8 = 24, checksum: UInt8 = 25, isProved: UInt8 = 26
        static let entry: UInt8 = 27, isWhole: UInt8 = 28, start: UInt8 = 29, asks: UInt8 = 30, grants: UInt8 = 31
        static let sent: UInt8 = 32, attempt: UInt8 = 33
    }
}

/// Why bytes are no message.
public enum PeerMessageError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Of a later version: to be ignored.
    case unknownType(UInt8)
    case malformed(type: UInt8, FieldError)
    case empty

    public var description: String {
        switch self {
        case .unknownType(let type): "a message of type \(type), which this version does not know"
        case .malformed(let type, let error): "a malformed message of type \(type): \(error)"
        case .empty: "an empty message"
        }
    }
}

// MARK: Encoding

extension PeerMessage {
    public var encoded: [UInt8] {
        var out = FieldWriter(prefix: [kind.rawValue])
        switch self {
        case .attach(let request): request.put(to: &out)
        case .attached(let group, let epoch, let key, let durable, let contents):
            out.put(Tag.group, name: group.rawValue)
            out.put(Tag.epoch, epoch.rawValue)
            out.put(Tag.key, key)
            out.put(Tag.durable, durable.rawValue)
            contents.put(to: &out)
        case .refused(let group, let epoch, let refusal, let reason):
            out.put(Tag.group, name: group.rawValue)
            out.put(Tag.epoch, epoch.rawValue)
            out.put(Tag.refusal, refusal.rawValue)
            out.put(Tag.reason, text: reason, maximumBytes: Self.maximumTextBytes)
        case .heartbeat(let heartbeat):
            out.put(Tag.isSuspended, heartbeat.isSuspended)
            if let problem = heartbeat.problem {
                out.put(Tag.reason, text: problem, maximumBytes: Self.maximumTextBytes)
            }
            if let asks = heartbeat.asks { out.put(Tag.asks, asks) }
            if let grants = heartbeat.grants { out.put(Tag.grants, grants) }
        case .recordChanged: break
        case .repair(let range):
            out.put(Tag.lowerBound, range.lowerBound.rawValue)
            out.put(Tag.upperBound, range.upperBound.rawValue)
        case .mediumQuestion(let id, let volume, let offset, let lengthBytes):
            out.put(Tag.id, id)
            out.put(Tag.volume, volume.rawValue)
            out.put(Tag.offset, offset)
            out.put(Tag.lengthBytes, lengthBytes)
        case .mediumAnswer(let id, let checksum, let error):
            out.put(Tag.id, id)
            if let checksum { out.put(Tag.checksum, checksum) }
            if let error { out.put(Tag.reason, text: error, maximumBytes: Self.maximumTextBytes) }
        case .mediumProof(let volume, let isProved):
            out.put(Tag.volume, volume.rawValue)
            out.put(Tag.isProved, isProved)
        case .configuration(let entries): entries.put(to: &out)
        case .railHeartbeat(let heartbeat):
            out.put(Tag.group, name: heartbeat.group.rawValue)
            out.put(Tag.incarnation, heartbeat.incarnation.rawValue)
            out.put(Tag.isSuspended, heartbeat.isSuspended)
            out.put(Tag.sent, heartbeat.sent)
        case .railAnswer(let sent): out.put(Tag.sent, sent)
        }
        return out.bytes
    }

    private var kind: Kind {
        switch self {
        case .attach: .attach
        case .attached: .attached
        case .refused: .refused
        case .heartbeat: .heartbeat
        case .recordChanged: .recordChanged
        case .repair: .repair
        case .mediumQuestion: .mediumQuestion
        case .mediumAnswer: .mediumAnswer
        case .mediumProof: .mediumProof
        case .configuration: .configuration
        case .railHeartbeat: .railHeartbeat
        case .railAnswer: .railAnswer
        }
    }
}

extension FieldWriter {
    fileprivate mutating func put(_ tag: UInt8, name: String) { put(tag, bytes: name.utf8) }
}

extension AttachRequest {
    fileprivate func put(to out: inout FieldWriter) {
        typealias Tag = PeerMessage.Tag
        out.put(Tag.group, name: group.rawValue)
        out.put(Tag.from, name: from.rawValue)
        out.put(Tag.epoch, epoch.rawValue)
        out.put(Tag.logUUID, logUUID)
        out.put(Tag.incarnation, incarnation.rawValue)
        out.put(Tag.head, head.rawValue)
        out.put(Tag.acknowledged, acknowledged.rawValue)
        out.put(Tag.ringBytes, ringBytes)
        out.put(Tag.start, start.rawValue)
        out.put(Tag.pool, pool)
        out.put(Tag.generation, generation)
        out.put(Tag.end, end.rawValue)
        out.put(Tag.attempt, attempt)
        out.put(Tag.counts, counts)
    }
}

extension MirrorContents {
    fileprivate func put(to out: inout FieldWriter) {
        typealias Tag = PeerMessage.Tag
        out.put(Tag.pool, pool)
        out.put(Tag.generation, generation)
        out.put(Tag.isKept, isKept)
        out.put(Tag.acknowledged, acknowledged.rawValue)
        out.put(Tag.end, end.rawValue)
    }
}

// MARK: Decoding

extension PeerMessage {
    public init(_ bytes: [UInt8]) throws(PeerMessageError) {
        guard let type = bytes.first else { throw .empty }
        guard let kind = Kind(rawValue: type) else { throw .unknownType(type) }
        do throws(FieldError) {
            self = try Self.read(kind, FieldReader(bytes[1...]))
        } catch {
            throw .malformed(type: type, error)
        }
    }

    private static func read(_ kind: Kind, _ fields: FieldReader) throws(FieldError) -> PeerMessage {
        switch kind {
        case .attach: .attach(try AttachRequest(fields))
        case .attached:
            .attached(
                group: try fields.group(), epoch: try fields.epoch(), key: try fields.number(Tag.key),
                durable: try fields.lsn(Tag.durable), contents: try MirrorContents(fields))
        case .refused:
            .refused(
                group: try fields.group(), epoch: try fields.epoch(),
                // A newer version's refusal is one all the same.
                AttachRefusal(rawValue: try fields.number(Tag.refusal)) ?? .notReady, try fields.reason())
        case .heartbeat:
            .heartbeat(
                Heartbeat(
                    isSuspended: try fields.flag(Tag.isSuspended), problem: try fields.optionalReason(),
                    asks: try fields.optionalNumber(Tag.asks), grants: try fields.optionalNumber(Tag.grants)))
        case .recordChanged: .recordChanged
        case .repair: .repair(try fields.range())
        case .mediumQuestion:
            .mediumQuestion(
                id: try fields.number(Tag.id), volume: try fields.volume(), offset: try fields.number(Tag.offset),
                lengthBytes: try fields.number(Tag.lengthBytes))
        case .mediumAnswer:
            .mediumAnswer(
                id: try fields.number(Tag.id), checksum: try fields.optionalNumber(Tag.checksum),
                error: try fields.optionalReason())
        case .mediumProof: .mediumProof(volume: try fields.volume(), isProved: try fields.flag(Tag.isProved))
        case .configuration: .configuration(try ConfigurationEntries(fields))
        case .railHeartbeat:
            .railHeartbeat(
                RailHeartbeat(
                    group: try fields.group(), incarnation: Incarnation(try fields.number(Tag.incarnation)),
                    isSuspended: try fields.flag(Tag.isSuspended), sent: try fields.number(Tag.sent)))
        case .railAnswer: .railAnswer(sent: try fields.number(Tag.sent))
        }
    }
}

extension FieldReader {
    fileprivate typealias Tag = PeerMessage.Tag

    fileprivate func name(_ tag: UInt8) throws(FieldError) -> String {
        let text = try text(tag, maximumBytes: Name.maximumLength)
        guard Name.isValid(text) else { throw .malformed(tag) }
        return text
    }

    fileprivate func group() throws(FieldError) -> GroupID { GroupID(try name(Tag.group)) }
    fileprivate func epoch() throws(FieldError) -> Epoch { Epoch(try number(Tag.epoch)) }
    /// Small enough for every sum that is made of it.
    fileprivate func lsn(_ tag: UInt8) throws(FieldError) -> LSN {
        let lsn = LSN(try number(tag))
        guard lsn <= .maximum else { throw .malformed(tag) }
        return lsn
    }

    fileprivate func volume() throws(FieldError) -> VolumeID { VolumeID(rawValue: try number(Tag.volume)) }

    fileprivate func reason() throws(FieldError) -> String {
        try text(Tag.reason, maximumBytes: PeerMessage.maximumTextBytes).printable
    }

    fileprivate func optionalReason() throws(FieldError) -> String? {
        try optionalText(Tag.reason, maximumBytes: PeerMessage.maximumTextBytes)?.printable
    }

    fileprivate func range() throws(FieldError) -> Range<LSN> {
        let lower = try lsn(Tag.lowerBound)
        let upper = try lsn(Tag.upperBound)
        guard lower < upper else { throw .malformed(Tag.upperBound) }
        return lower..<upper
    }
}

extension AttachRequest {
    fileprivate init(_ fields: FieldReader) throws(FieldError) {
        typealias Tag = PeerMessage.Tag
        self.init(
            group: try fields.group(), from: NodeID(try fields.name(Tag.from)), epoch: try fields.epoch(),
            logUUID: try fields.uuid(Tag.logUUID), incarnation: Incarnation(try fields.number(Tag.incarnation)),
            // Whether a log can begin there is for the receiver, which answers why not.
            head: LSN(try fields.number(Tag.head)), acknowledged: try fields.lsn(Tag.acknowledged),
            ringBytes: try fields.number(Tag.ringBytes), start: try fields.lsn(Tag.start),
            end: try fields.lsn(Tag.end), pool: try fields.uuid(Tag.pool),
            generation: try fields.number(Tag.generation), counts: try fields.flag(Tag.counts),
            attempt: try fields.optionalNumber(Tag.attempt) ?? 0)
    }
}

extension MirrorContents {
    fileprivate init(_ fields: FieldReader) throws(FieldError) {
        typealias Tag = PeerMessage.Tag
        self.init(
            pool: try fields.uuid(Tag.pool), generation: try fields.number(Tag.generation),
            isKept: try fields.flag(Tag.isKept), acknowledged: try fields.lsn(Tag.acknowledged),
            end: try fields.lsn(Tag.end))
    }
}

// MARK: The configuration

/// What must be equal on all nodes, as one of them has it, in order of key.
public struct ConfigurationEntries: Hashable, Sendable {
    public struct Entry: Hashable, Sendable {
        public var key: String
        public var value: String
        public init(key: String, value: String) {
            self.key = key
            self.value = value
        }
    }

    /// What one message carries of them, far below the largest message (``RemoteMemoryLimits/maximumTransferBytes``).
    static let maximumBytes = 512 << 10
    /// A path has 4096 bytes at most; a key is made of three names.
    static let maximumTextBytes = 4096

    public private(set) var entries: [Entry]
    /// `false`: there are more, with greater keys.
    public private(set) var isWhole: Bool

    /// Takes as many as fit into one message.
    public init(_ all: [Entry]) {
        entries = []
        var bytes = 0
        for entry in all {
            let cut = Entry(key: Self.cut(entry.key), value: Self.cut(entry.value))
            bytes += cut.key.utf8.count + cut.value.utf8.count + 8
            guard bytes <= Self.maximumBytes else { break }
            entries.append(cut)
        }
        isWhole = entries.count == all.count
    }

    private static func cut(_ text: String) -> String { String(text.prefix(utf8Bytes: maximumTextBytes)) }

    /// Those that `other` would also have if the two had the same configuration.
    public func comparable(with other: ConfigurationEntries) -> [Entry] {
        guard !other.isWhole, let last = other.entries.last else { return entries }
        return entries.filter { $0.key <= last.key }
    }

    fileprivate func put(to out: inout FieldWriter) {
        out.put(PeerMessage.Tag.isWhole, isWhole)
        for entry in entries {
            let keyBytes = UInt16(entry.key.utf8.count)
            out.put(
                PeerMessage.Tag.entry,
                bytes: [UInt8(keyBytes & 0xff), UInt8(keyBytes >> 8)] + Array(entry.key.utf8) + Array(entry.value.utf8))
        }
    }

    fileprivate init(_ fields: FieldReader) throws(FieldError) {
        isWhole = try fields.flag(PeerMessage.Tag.isWhole)
        entries = []
        for value in fields.all(PeerMessage.Tag.entry) { entries.append(try Self.entry(value)) }
    }

    private static func entry(_ value: ArraySlice<UInt8>) throws(FieldError) -> Entry {
        let malformed = FieldError.malformed(PeerMessage.Tag.entry)
        guard value.count >= 2 else { throw malformed }
        let keyBytes = Int(value[value.startIndex]) | Int(value[value.startIndex + 1]) << 8
        let texts = value.dropFirst(2)
        guard keyBytes <= min(texts.count, maximumTextBytes), texts.count - keyBytes <= maximumTextBytes,
            let key = String(validating: texts.prefix(keyBytes), as: UTF8.self),
            let text = String(validating: texts.dropFirst(keyBytes), as: UTF8.self)
        else { throw malformed }
        return Entry(key: key.printable, value: text.printable)
    }
}
