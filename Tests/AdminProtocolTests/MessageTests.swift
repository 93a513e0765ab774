// Every message comes back as it was said, on one line; what is no message is refused; the keys that others script against
// are there.

import AdminProtocol
import Foundation
import Testing

func groupStatus(_ name: String, epoch: UInt64 = 3, owner: String? = "alpha", possible: Bool = true) -> GroupStatus {
    var log = GroupStatus.Log(capacityBytes: 1 << 20)
    log.headLSN = 64
    log.tailLSN = .max
    log.acknowledgedLSN = 128
    return GroupStatus(
        name: name, owner: owner, home: "alpha", mirror: "beta", epoch: epoch, state: "mirrored",
        takeoverPossible: possible, reason: possible ? nil : "why \"not\"\n", log: log,
        ifOwnerDiedNow: .init(lostAcknowledgedWrites: possible ? 0 : nil, estimatedTakeoverSeconds: 1.5),
        coordinator: .init(reachable: possible, since: "2026-11-28T03:00:00.000Z"),
        rails: [
            .init(
                address: "10.0.0.12:7101", state: "down", since: "2026-11-28T03:00:00.000Z", bytesInFlight: 0,
                roundTripSeconds: nil, tls: nil, lastError: "cut")
        ],
        stages: [
            .init(
                name: "receive",
                lastMinute: .init(count: 1, p50Nanos: 2, p99Nanos: 3, p999Nanos: 4, maxNanos: 5),
                sinceStart: .init(count: .max, p50Nanos: 0, p99Nanos: 0, p999Nanos: 0, maxNanos: .max))
        ],
        volumes: [.init(name: "vol0", sizeBytes: .max)])
}

func nodeStatus(_ name: String, owns: Bool, epoch: UInt64 = 3) -> NodeStatus {
    NodeStatus(
        name: name, persistence: "volatile",
        groups: [.init(isOwner: owns, status: groupStatus("g0", epoch: epoch, owner: owns ? name : nil))])
}

struct MessageTests {
    static let requests: [AdminRequest] = [
        .status, .clients, .handover(group: "g0", to: "beta"), .takeover(group: "g0", on: "beta", force: true),
        .takeover(group: "", on: "\u{0}\n\"", force: false), .drain(group: "g0"), .forgetCoordinator(group: "g/0"),
        .events(after: .max, wait: true), .events(after: 0, wait: false), .configuration,
    ]
    static let responses: [AdminResponse] = [
        .clients(
            NodeClients(
                name: "alpha",
                totals: ClientTotals(
                    connections: 2, connectionLimit: 256, refused: 1, lentBytes: 7, lendableBytes: 8, shareBytes: 9),
                clients: [
                    ClientStatus(
                        address: "[::1]:1", export: nil, since: "", inFlight: 0, parkedBytes: 0, heldBytes: 0,
                        waitsFor: nil),
                    ClientStatus(
                        address: "unix", name: "vm-7", export: "vol0", since: "s", inFlight: 1, parkedBytes: 2,
                        heldBytes: 3,
                        waitsFor: "the volume"),
                ])),
        .done, .refused("no:\nnot \u{1f600}"), .events([]), .status(nodeStatus("alpha", owns: true)),
        .status(nodeStatus("beta", owns: false)), .configuration([ConfigurationKey(key: "lease", value: "1000ms")]),
        .events([
            NodeEvent(
                sequence: 1, time: "2026-01-01T00:00:00.000Z", node: "alpha", group: nil, kind: "started", message: "m"),
            NodeEvent(sequence: .max, time: "", node: "alpha", group: "g0", kind: "takeover", message: "a\nb"),
        ]),
    ]

    @Test(arguments: requests) func everyRequestComesBackFromOneLine(_ request: AdminRequest) throws {
        let line = try AdminCodec.line(request)
        #expect(line.firstIndex(of: UInt8(ascii: "\n")) == line.count - 1)
        #expect(try AdminCodec.decode(AdminRequest.self, from: line) == request)
    }

    @Test(arguments: responses) func everyResponseComesBackFromOneLine(_ response: AdminResponse) throws {
        let line = try AdminCodec.line(response)
        #expect(line.firstIndex(of: UInt8(ascii: "\n")) == line.count - 1)
        #expect(try AdminCodec.decode(AdminResponse.self, from: line) == response)
    }

    /// Optional fields are all set, so that a key that is missing on either side is missed here.
    @Test("every field crosses the socket under its name")
    func everyFieldHasAKey() throws {
        let totals = ClientTotals(
            connections: 1, connectionLimit: 2, refused: 3, lentBytes: 4, lendableBytes: 5, shareBytes: 6)
        try expectEveryField(
            of: ClientStatus(
                address: "a", name: "n", export: "e", since: "s", inFlight: 1, parkedBytes: 2, heldBytes: 3,
                waitsFor: "w"))
        try expectEveryField(of: totals)
        try expectEveryField(of: NodeClients(name: "n", totals: totals, clients: []))
        var group = groupStatus("g0")
        group.reason = "r"
        group.log.durableLSN = 1
        group.log.mirroredLSN = 2
        group.log.usedBytes = 3
        try expectEveryField(of: group)
        try expectEveryField(of: group.log)
        try expectEveryField(of: GroupStatus.Loss(lostAcknowledgedWrites: 1, estimatedTakeoverSeconds: 2))
        try expectEveryField(of: GroupStatus.Volume(name: "v", sizeBytes: 1))
        let times = GroupStatus.Stage.Times(count: 1, p50Nanos: 2, p99Nanos: 3, p999Nanos: 4, maxNanos: 5)
        try expectEveryField(of: times)
        try expectEveryField(of: GroupStatus.Stage(name: "receive", lastMinute: times, sinceStart: times))
        try expectEveryField(of: NodeStatus.Group(isOwner: true, status: group))
        try expectEveryField(of: NodeStatus(name: "n", persistence: "p", groups: [], clients: totals, problem: "why"))
        try expectEveryField(of: ConfigurationKey(key: "k", value: "v"))
        try expectEveryField(
            of: NodeSummary(
                name: "n", reachable: false, persistence: "p", role: "r", clients: totals, reason: "why"))
        try expectEveryField(of: ClusterStatus(cluster: "c", groups: [group], nodes: []))
        try expectEveryField(
            of: NodeEvent(sequence: 1, time: "t", node: "n", group: "g", kind: "k", message: "m"))
    }

    private func expectEveryField<Value: Codable & Hashable>(
        of value: Value, _ place: SourceLocation = #_sourceLocation
    ) throws {
        let line = try AdminCodec.line(value)
        #expect(try AdminCodec.decode(Value.self, from: line) == value, sourceLocation: place)
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(line)) as? [String: Any], sourceLocation: place)
        let fields = Mirror(reflecting: value).children.compactMap(\.label)
        #expect(Set(object.keys) == Set(fields), sourceLocation: place)
    }

    @Test func whatIsNoRequestIsRefused() throws {  // S21
        let texts = [
            "", "\n", "{}", "[]", "7", "null", "\"status\"", "{\"status\":7,\"drain\":{}}", "{\"reboot\":{}}",
            "{\"events\":{\"after\":-1,\"wait\":true}}", "{\"events\":{\"after\":1e300,\"wait\":true}}",
            "{\"handover\":{\"group\":\"g0\"}}", "\u{0}\u{0}", String(repeating: "[", count: 60_000),
        ]
        for text in texts {
            #expect(throws: (any Error).self, "\(text.prefix(40))") {
                try AdminCodec.decode(AdminRequest.self, from: Array(text.utf8))
            }
        }
        let line = try AdminCodec.line(AdminRequest.takeover(group: "g0", on: "beta", force: true))
        for count in 0..<line.count - 1 {
            #expect(throws: (any Error).self) { try AdminCodec.decode(AdminRequest.self, from: line.prefix(count)) }
        }
    }

    @Test func theStatusHasTheKeysThatScriptsRead() throws {
        let status = ClusterStatus(
            cluster: "demo", groups: [groupStatus("g0", owner: nil, possible: true)],
            nodes: [NodeSummary(name: "alpha", reachable: true, persistence: "pmem", role: "owner")])
        let text = try AdminCodec.pretty(status)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect(Set(object.keys) == ["cluster", "groups", "nodes"])
        let group = try #require((object["groups"] as? [[String: Any]])?.first)
        #expect(
            Set(group.keys) == [
                "name", "owner", "home", "mirror", "epoch", "state", "takeoverPossible", "reason", "log",
                "ifOwnerDiedNow", "coordinator", "rails", "stages", "volumes",
            ])
        let stage = try #require((group["stages"] as? [[String: Any]])?.first)
        #expect(Set(stage.keys) == ["name", "lastMinute", "sinceStart"])
        #expect(
            Set(try #require(stage["lastMinute"] as? [String: Any]).keys) == [
                "count", "p50Nanos", "p99Nanos", "p999Nanos", "maxNanos",
            ])
        let rail = try #require((group["rails"] as? [[String: Any]])?.first)
        #expect(
            Set(rail.keys) == [
                "address", "state", "since", "bytesInFlight", "roundTripSeconds", "tls", "lastError",
            ])
        #expect(rail["tls"] is NSNull)
        #expect(group["owner"] is NSNull && group["reason"] is NSNull)
        let log = try #require(group["log"] as? [String: Any])
        #expect(
            Set(log.keys) == [
                "capacityBytes", "headLSN", "tailLSN", "durableLSN", "mirroredLSN", "acknowledgedLSN", "usedBytes",
            ])
        let node = try #require((object["nodes"] as? [[String: Any]])?.first)
        #expect(Set(node.keys) == ["name", "reachable", "persistence", "role"])
    }

    @Test("O17: what is wrong with a node is told whoever owns its groups") func problemsOfNodes() {
        var beta = nodeStatus("beta", owns: false)
        beta.problem = "the pool has no name any more"
        let merged = ClusterStatus.merge(
            cluster: "demo", nodes: ["alpha", "beta"], configured: [groupStatus("g0")],
            answers: [nodeStatus("alpha", owns: true), beta])
        #expect(merged.nodes.map(\.reason) == [nil, "the pool has no name any more"])
        #expect(merged.nodes.map(\.reachable) == [true, true])
    }

    @Test func theHighestEpochWinsAndAmongEqualsTheOwner() throws {
        let configured = [
            groupStatus("g0", epoch: 0, owner: nil, possible: false),
            groupStatus("g1", epoch: 0, owner: nil, possible: false),
        ]
        let merged = ClusterStatus.merge(
            cluster: "demo", nodes: ["alpha", "beta", "gamma"], configured: configured,
            answers: [nodeStatus("alpha", owns: true, epoch: 3), nodeStatus("beta", owns: false, epoch: 3)])
        #expect(merged.groups[0].owner == "alpha")
        #expect(merged.groups[1] == configured[1])
        #expect(merged.nodes.map(\.role) == ["owner", "mirror", "unknown"])
        #expect(merged.nodes.map(\.reachable) == [true, true, false])
        #expect(!merged.isTakeoverPossibleEverywhere)
        // An old owner that has not heard of its end yet.
        let after = ClusterStatus.merge(
            cluster: "demo", nodes: ["alpha", "beta"], configured: configured,
            answers: [nodeStatus("alpha", owns: true, epoch: 3), nodeStatus("beta", owns: true, epoch: 4)])
        #expect(after.groups[0].owner == "beta")
    }

    @Test("O23: an unknown number is null, and 0 beside its name to a tool that knows none")
    func unknownNumbers() throws {
        var answer = nodeStatus("beta", owns: false)
        answer.groups[0].status.epoch = nil
        answer.groups[0].status.log.tailLSN = nil
        let line = try AdminCodec.line(AdminResponse.status(answer))
        #expect(try AdminCodec.decode(AdminResponse.self, from: line) == .status(answer))
        // What such a tool decodes.
        struct Told: Decodable { var isOwner: Bool; var status: Numbers }
        struct Numbers: Decodable { var epoch: UInt64; var log: Log }
        struct Log: Decodable { var headLSN, tailLSN, durableLSN, mirroredLSN, acknowledgedLSN, usedBytes: UInt64 }
        let told = try AdminCodec.decode(Told.self, from: try AdminCodec.line(answer.groups[0]))
        #expect(told.status.epoch == 0 && told.status.log.tailLSN == 0 && told.status.log.headLSN == 64)
        // What people and scripts get.
        let text = try AdminCodec.pretty(answer.groups[0].status)
        let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        let log = try #require(object["log"] as? [String: Any])
        #expect(object["epoch"] is NSNull && log["tailLSN"] is NSNull && log["usedBytes"] is NSNull)
        #expect(log["headLSN"] as? UInt64 == 64)
    }

    @Test("O23: what only an operator can mend comes first, whichever node it keeps")
    func blockedNode() {
        var alpha = nodeStatus("alpha", owns: false, epoch: 3)
        alpha.groups[0].status.state = "unavailable"
        alpha.groups[0].status.reason = "this node's log is corrupt"
        var beta = nodeStatus("beta", owns: true, epoch: 4)
        beta.groups[0].status.state = "replaying"
        beta.groups[0].status.reason = "taking over in epoch 4"
        let merged = ClusterStatus.merge(
            cluster: "demo", nodes: ["alpha", "beta"], configured: [groupStatus("g0")], answers: [beta, alpha])
        #expect(merged.groups[0].state == "replaying")
        #expect(
            merged.groups[0].reason == "alpha: this node's log is corrupt; beta: taking over in epoch 4")
    }

    // MARK: Following

    private func events(_ range: ClosedRange<UInt64>, of process: String) -> [NodeEvent] {
        range.map {
            NodeEvent(sequence: $0, time: "\(process).\($0)", node: "alpha", group: nil, kind: "role", message: "")
        }
    }

    /// What a node with these events answers.
    private func ask(_ cursor: inout EventCursor, _ events: [NodeEvent]) -> [UInt64] {
        let after = cursor.after
        return cursor.take(events.filter { $0.sequence > after }).map(\.sequence)
    }

    @Test func eventsAreFollowedOnceEach() {
        var cursor = EventCursor()
        #expect(ask(&cursor, []) == [])
        #expect(ask(&cursor, events(1...3, of: "first")) == [1, 2, 3])
        #expect(ask(&cursor, events(1...3, of: "first")) == [])
        #expect(ask(&cursor, events(1...5, of: "first")) == [4, 5])
        // Numbers that are left out are named.
        let late = cursor.take(events(8...9, of: "first"))
        #expect(late.map(\.sequence) == [7, 8, 9] && late.map(\.kind).first == "events-missing")
        #expect(late.first?.message.contains("2 events") == true && late.first?.message.contains("6 to 7") == true)
    }

    @Test("O20: what a node told before it died is not lost with its next answer")
    func diesBetweenAnswers() {
        var cursor = EventCursor()
        var asked = 0
        let (told, failure) = cursor.collect { after throws(AdminClientError) in
            asked += 1
            guard asked == 1 else { throw AdminClientError(message: "gone") }
            return events(1...3, of: "first")
        }
        #expect(told.map(\.sequence) == [1, 2, 3] && failure?.message == "gone")
        let again = cursor.collect { after in events(1...5, of: "first").filter { $0.sequence > after } }
        #expect(again.events.map(\.sequence) == [4, 5] && again.failure == nil)
    }

    @Test("O20: what a node no longer keeps is named to who comes late")
    func forgotten() {
        var cursor = EventCursor()
        #expect(ask(&cursor, events(4...5, of: "first")) == [3, 4, 5])
    }

    @Test(
        "O20: a node that has lost its events is found out, and what it has is told",
        arguments: [0, 1, 4, 5] as [UInt64])
    func lostEvents(count: UInt64) {
        var cursor = EventCursor()
        #expect(ask(&cursor, events(1...5, of: "first")).count == 5)
        let again = count == 0 ? [] : events(1...count, of: "second")
        let after = cursor.after
        #expect(cursor.take(again.filter { $0.sequence > after }).map(\.kind) == ["events-missing"])
        #expect(ask(&cursor, again) == (count == 0 ? [] : Array(1...count)))
        #expect(ask(&cursor, again) == [])
    }

    @Test("O20: the events of one node stay in order of number though its clock steps back")
    func merged() {
        func event(_ sequence: UInt64, _ node: String, _ time: String) -> NodeEvent {
            NodeEvent(sequence: sequence, time: time, node: node, group: nil, kind: "k", message: "")
        }
        let order = EventOrder.merge([
            [event(1, "a", "12:00"), event(2, "a", "11:00"), event(3, "a", "12:02")],
            [event(1, "b", "11:30"), event(2, "b", "12:01")],
        ])
        #expect(order.map { "\($0.node)\($0.sequence)" } == ["b1", "a1", "a2", "b2", "a3"])
    }
}
