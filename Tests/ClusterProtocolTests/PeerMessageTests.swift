// The messages of a rail: each comes out as it went in, what is unknown is passed over, and what cannot be is refused (S21).

import LogModel
import Testing

@testable import ClusterProtocol

struct PeerMessageTests {
    private static let group = GroupID("g0")
    private static let request = AttachRequest(
        group: group, from: NodeID("alpha"), epoch: Epoch(7), logUUID: UUID128(high: 1, low: 2),
        incarnation: Incarnation(6), head: LSN(640), acknowledged: LSN(1280), ringBytes: 8 << 20,
        start: LSN(64), end: LSN(1344), pool: UUID128(high: 3, low: .max), generation: 9, counts: true)
    private static let contents = MirrorContents(
        pool: UUID128(high: 5, low: 6), generation: 11, isKept: true, acknowledged: LSN(1280), end: LSN(1344))

    private static let messages: [PeerMessage] =
        [
            .attach(request),
            .attached(group: group, epoch: Epoch(7), key: .max, durable: LSN(704), contents: contents),
            .heartbeat(Heartbeat(isSuspended: false, problem: nil)),
            .heartbeat(Heartbeat(isSuspended: true, problem: "no medium")),
            .heartbeat(Heartbeat(asks: 7)), .heartbeat(Heartbeat(problem: "no medium", grants: .max)),
            .recordChanged, .repair(LSN(64)..<LSN(128)),
            .mediumQuestion(id: 3, volume: VolumeID(name: "vol0"), offset: 1 << 40, lengthBytes: 4096),
            .mediumAnswer(id: 3, checksum: 0xDEAD_BEEF, error: nil), .mediumAnswer(id: 4, checksum: nil, error: "EIO"),
            .mediumProof(volume: VolumeID(name: "vol0"), isProved: true),
            .railHeartbeat(RailHeartbeat(group: group, incarnation: Incarnation(6), isSuspended: true, sent: .max)),
            .railAnswer(sent: 7),
            .configuration(ConfigurationEntries([])),
            .configuration(ConfigurationEntries([.init(key: "lease", value: "1000ms"), .init(key: "z", value: "")])),
        ]
        + AttachRefusal.allCases.map { .refused(group: group, epoch: Epoch(7), $0, "because of \($0)") }

    @Test("C6: every message, and every refusal, comes out as it went in", arguments: messages)
    func roundTrip(_ message: PeerMessage) throws {
        #expect(try PeerMessage(message.encoded) == message)
    }

    @Test("C6: the refusals' numbers are those of the protocol")
    func refusalNumbers() {
        #expect(AttachRefusal.allCases.map(\.rawValue) == [1, 2, 3, 4, 5, 6])
        #expect(AttachRefusal.lostLog.rawValue == 3 && AttachRefusal.differentConfiguration.rawValue == 5)
    }

    @Test("a refusal of a later version means: not now, and keeps its reason")
    func unknownRefusal() throws {
        var out = FieldWriter(prefix: [3])
        out.put(1, bytes: "g0".utf8)
        out.put(3, UInt64(7))
        out.put(16, UInt8(200))
        out.put(17, bytes: "because".utf8)
        #expect(try PeerMessage(out.bytes) == .refused(group: Self.group, epoch: Epoch(7), .notReady, "because"))
    }

    @Test("fields of a later version are passed over", arguments: messages)
    func unknownFields(_ message: PeerMessage) throws {
        var later = FieldWriter(prefix: message.encoded)
        later.put(250, UInt64.max)
        later.put(251, bytes: [])
        #expect(try PeerMessage(later.bytes) == message)
    }

    @Test("a message of a later version is told apart from a malformed one")
    func unknownType() {
        #expect(throws: PeerMessageError.unknownType(99)) { try PeerMessage([99, 1, 0]) }
        #expect(throws: PeerMessageError.empty) { try PeerMessage([]) }
    }

    @Test("S21: no message that is cut short anywhere is one", arguments: messages)
    func truncated(_ message: PeerMessage) {
        let whole = message.encoded
        for count in 1..<whole.count {
            // Cut between two fields, an optional last one is simply not there.
            let cut = try? PeerMessage(Array(whole[..<count]))
            #expect(cut == nil || cut != message && isOptional(cut), "\(count) of \(whole.count) bytes")
        }
    }

    private func isOptional(_ message: PeerMessage?) -> Bool {
        switch message {
        case .heartbeat(let heartbeat): heartbeat.asks == nil && heartbeat.grants == nil
        case .mediumAnswer(_, nil, nil), .configuration: true
        default: false
        }
    }

    @Test(
        "S21: values that cannot be are refused",
        arguments: [
            (1, 1, Array("".utf8)), (1, 1, Array("a b".utf8)), (1, 1, [UInt8](repeating: 65, count: 64)),
            (1, 2, [0xFF]), (1, 3, [1, 2, 3]), (1, 3, [UInt8](repeating: 0, count: 9)),
            (1, 7, [UInt8](repeating: 0xFF, count: 8)), (1, 9, [UInt8](repeating: 1, count: 15)), (1, 12, [2]),
            (2, 14, [UInt8](repeating: 0xFF, count: 8)), (3, 17, [UInt8](repeating: 65, count: 513)), (3, 17, [0xC3]),
            (6, 20, [0, 0, 0, 0, 0, 0, 0, 0]), (10, 27, [1]), (10, 27, [9, 0, 65]),
            (10, 27, [0, 0] + [UInt8](repeating: 65, count: 4097)),
        ] as [(UInt8, UInt8, [UInt8])])
    func impossibleValues(type: UInt8, tag: UInt8, value: [UInt8]) throws {
        let message = try #require(Self.messages.first { $0.encoded[0] == type })
        let changed = replacing(tag, by: value, in: message.encoded)
        #expect(throws: PeerMessageError.malformed(type: type, .malformed(tag))) { try PeerMessage(changed) }
    }

    @Test("S21: a field that stands twice is refused")
    func repeatedField() {
        var out = FieldWriter(prefix: PeerMessage.mediumProof(volume: VolumeID(name: "v"), isProved: true).encoded)
        out.put(26, UInt8(0))
        #expect(throws: PeerMessageError.malformed(type: 9, .repeated(26))) { try PeerMessage(out.bytes) }
    }

    /// The message with one field's value changed, or the field added.
    private func replacing(_ wanted: UInt8, by value: [UInt8], in message: [UInt8]) -> [UInt8] {
        var out = FieldWriter(prefix: [message[0]])
        var rest = message[1...]
        while let tag = rest.popFirst() {
            let count = Int(rest.removeFirst()) | Int(rest.removeFirst()) << 8
            if tag != wanted { out.put(tag, bytes: rest.prefix(count)) }
            rest = rest.dropFirst(count)
        }
        out.put(wanted, bytes: value)
        return out.bytes
    }

    @Test("long texts are cut between characters, so that they still are texts")
    func longTexts() throws {
        let text = String(repeating: "é", count: 300) + "x"
        let message = PeerMessage.refused(group: Self.group, epoch: Epoch(1), .damaged, "x" + text)
        guard case .refused(_, _, _, let heard) = try PeerMessage(message.encoded) else {
            return #expect(Bool(false), "another message")
        }
        #expect(heard.utf8.count <= PeerMessage.maximumTextBytes && ("x" + text).hasPrefix(heard) && heard.count > 250)
    }

    @Test("S22: a peer's text steers no terminal")
    func controlCharacters() throws {
        let message = PeerMessage.heartbeat(Heartbeat(isSuspended: false, problem: "\u{1B}[2J\u{7}\nbad"))
        #expect(try PeerMessage(message.encoded) == .heartbeat(Heartbeat(isSuspended: false, problem: "?[2J??bad")))
    }

    @Test("S21: a configuration of any size is one message, and says whether it is whole")
    func largeConfiguration() throws {
        let all = (0..<40_000).map { number in
            ConfigurationEntries.Entry(
                key: "groups.g.volumes.\(100_000 + number).medium", value: "/a/path/\(number).img")
        }
        let entries = ConfigurationEntries(all)
        #expect(!entries.isWhole && entries.entries.count > 5000)
        let encoded = PeerMessage.configuration(entries).encoded
        #expect(encoded.count < 1 << 20)
        #expect(try PeerMessage(encoded) == .configuration(entries))

        let more = ConfigurationEntries([.init(key: "a", value: "")] + all)
        #expect(entries.comparable(with: more).count <= more.entries.count)
        #expect(more.comparable(with: entries).last?.key ?? "" <= entries.entries.last?.key ?? "")
    }
}
