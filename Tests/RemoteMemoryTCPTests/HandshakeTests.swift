// Who may have a rail (S27): whoever proves that he holds the cluster's secret, to a listener that has proved it first. On
// real connections, with a peer that says what it likes.

import Glibc
import LogModel
import NIOCore
import NIOPosix
import RemoteMemory
import RemoteMemorySupport
import TestSupport
import Testing

@testable import RemoteMemoryTCP

struct HandshakeTests {
    @Test("a name that does not resolve says so")
    func unresolved() async throws {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let dialed = loop.makePromise(of: String.self)
        loop.execute {
            TCPMirrorDialer.dial(
                TCPAddress("no-such-host.invalid:7101")!, as: Rig.identity("alpha"), expecting: NodeID("beta"),
                registry: TCPRegionRegistry(), timeout: .seconds(60), on: loop
            ) { result in
                switch result {
                case .success: dialed.succeed("it does")
                case .failure(let error): dialed.succeed(error.message)
                }
            }
        }
        let message = try await dialed.futureResult.get()
        #expect(message.contains("no-such-host.invalid does not resolve"), "\(message)")
    }

    // MARK: Refusals

    struct Refused: Sendable, CustomTestStringConvertible {
        var testDescription: String
        var hello: [UInt8]
        var refusal: RailRefusal
    }

    private static let refused: [Refused] = [
        Refused(testDescription: "version 1", hello: versionOneHello(), refusal: .tooOld),
        Refused(testDescription: "a later layout", hello: hello(layout: 3), refusal: .tooNew),
        Refused(
            testDescription: "versions 3 to 4", hello: hello([1: little(UInt16(3)), 2: little(UInt16(4))]),
            refusal: .tooNew),
        Refused(
            testDescription: "only version 1 in a new greeting",
            hello: hello([1: little(UInt16(1)), 2: little(UInt16(1))]), refusal: .tooOld),
        Refused(
            testDescription: "versions from high to low", hello: hello([1: little(UInt16(3)), 2: little(UInt16(2))]),
            refusal: .malformed),
        Refused(testDescription: "version 0", hello: hello([1: little(UInt16(0))]), refusal: .malformed),
        Refused(
            testDescription: "a critical feature that nobody knows", hello: hello([3: little(UInt64(1) << 40)]),
            refusal: .unknownFeature),
        Refused(testDescription: "another cluster", hello: hello([5: Array("other".utf8)]), refusal: .otherCluster),
        Refused(
            testDescription: "the listener's own name", hello: hello([6: Array("beta".utf8)]),
            refusal: .unexpectedNode),
        Refused(testDescription: "no name at all", hello: hello([6: []]), refusal: .malformed),
        Refused(testDescription: "a name with an escape", hello: hello([6: [27, 91, 50, 74]]), refusal: .malformed),
        Refused(testDescription: "a short nonce", hello: hello([7: [1, 2, 3]]), refusal: .malformed),
        Refused(testDescription: "no nonce", hello: hello([7: nil]), refusal: .malformed),
        Refused(testDescription: "no digest", hello: hello([8: nil]), refusal: .malformed),
        Refused(
            testDescription: "a field cut short", hello: frame(Kind.hello, greeting().dropLast()), refusal: .malformed),
        Refused(
            testDescription: "a field longer than the greeting",
            hello: frame(Kind.hello, greeting() + [200, 0xff, 0xff, 1]), refusal: .malformed),
        Refused(
            testDescription: "a field twice", hello: frame(Kind.hello, greeting() + [6, 1, 0, 65]), refusal: .malformed),
        Refused(
            testDescription: "a greeting over the limit",
            hello: hello([200: [UInt8](repeating: 0, count: 4096)]), refusal: .malformed),
        Refused(
            testDescription: "a length over the limit", hello: frame(Kind.hello, claiming: 1 << 20), refusal: .malformed
        ),
        Refused(testDescription: "an empty greeting", hello: frame(Kind.hello), refusal: .malformed),
        Refused(
            testDescription: "a proof first", hello: frame(Kind.proof, [UInt8](repeating: 0, count: 32)),
            refusal: .malformed),
        Refused(testDescription: "a WRITE first", hello: frame(Kind.write, [1], request: 1), refusal: .malformed),
        Refused(
            testDescription: "no frame at all",
            hello: Array("GET / HTTP/1.1\r\n\r\n".utf8) + [UInt8](repeating: 10, count: 60),
            refusal: .malformed),
    ]

    @Test("S21, S27: what cannot be a peer's greeting is refused by number, and told nothing", arguments: refused)
    func refusedByNumber(_ case: Refused) async throws {
        try await withRig { rig in
            let peer = try RawPeer(rig.port)
            try await peer.send(`case`.hello)
            #expect(try await peer.ends())
            #expect(peer.kinds == [Kind.refuse])
            #expect(peer.frames.first?.key == UInt64(`case`.refusal.rawValue))
            let text = String(decoding: peer.received, as: UTF8.self)
            for secret in ["beta", "demo"] { #expect(!text.contains(secret), "\(text)") }
            try await rig.on { #expect($0.accepted.isEmpty) }
            #expect(try await rig.serves())
        }
    }

    @Test("every refusal keeps its number across the wire", arguments: RailRefusal.allCases)
    func numbersRoundTrip(_ refusal: RailRefusal) {
        let frame = HandshakeFrame(HandshakeFailure(refusal, "because"))
        let heard = HandshakeFailure(refused: frame.number, frame.payload)
        #expect(heard.refusal == refusal && heard.isByPeer && heard.message.contains("because"))
        #expect(heard.error.code == .protocolViolation)
    }

    @Test("a refusal of a later version is one all the same, and its text steers no terminal")
    func unknownRefusal() {
        let heard = HandshakeFailure(refused: 1 << 40, Array("\u{1B}[2Jlate".utf8))
        #expect(heard.refusal == nil && heard.error.code == .protocolViolation)
        #expect(heard.message.hasSuffix("?[2Jlate"))
    }

    // MARK: Proofs

    @Test(
        "S27, D1: without the secret there is no rail",
        arguments: ["other secret", "zeros", "short", "reflected", "none"])
    func wrongProofs(_ kind: String) async throws {
        try await withRig { rig in
            let peer = try RawPeer(rig.port)
            try await peer.send(hello())
            try #require(try await peer.eventually { !peer.take() && peer.kinds == [Kind.welcome] })
            let proof: [UInt8] =
                switch kind {
                case "other secret": peer.proofOfDialer(greeting(), secret: .random())
                case "zeros": [UInt8](repeating: 0, count: 32)
                case "short": peer.proofOfDialer(greeting()).dropLast()
                case "reflected": Array(peer.frames[0].payload.suffix(32))
                default: []
                }
            try await peer.send(frame(Kind.proof, proof) + frame(Kind.message, [1]))
            #expect(try await peer.ends())
            #expect(peer.kinds == [Kind.welcome, Kind.refuse])
            #expect(peer.frames.last?.key == UInt64(RailRefusal.wrongProof.rawValue))
            try await rig.on { #expect($0.accepted.isEmpty) }
            #expect(try await rig.serves())
        }
    }

    @Test("S27: a handshake that was recorded opens no second rail")
    func replay() async throws {
        try await withRig { rig in
            let first = try RawPeer(rig.port)
            try await first.send(hello())
            try #require(try await first.eventually { !first.take() && first.kinds == [Kind.welcome] })
            let recorded = frame(Kind.proof, first.proofOfDialer(greeting()))
            try await first.send(recorded)
            try #require(try await first.eventually { !first.take() && first.kinds == [Kind.welcome, Kind.accept] })

            let second = try RawPeer(rig.port)
            try await second.send(hello() + recorded)
            #expect(try await second.ends())
            #expect(second.kinds == [Kind.welcome, Kind.refuse])
            #expect(second.frames.last?.key == UInt64(RailRefusal.wrongProof.rawValue))
            try await rig.on { #expect($0.accepted.count == 1) }
        }
    }

    @Test("S27: whatever is changed in a greeting on its way spoils the rail")
    func changedOnTheWay() throws {
        let (_, first) = Handshake.dialing(NodeID("beta"), as: Rig.identity("alpha"))
        for place in first.payload.indices {
            var (dialer, hello) = Handshake.dialing(NodeID("beta"), as: Rig.identity("alpha"))
            var listener = Handshake.listening(as: Rig.identity("beta"))
            hello.payload[place] ^= 1
            guard let welcome = try? listener.receive(hello).answer else { continue }
            #expect(throws: HandshakeFailure.self, "byte \(place) of HELLO") { try dialer.receive(welcome) }
        }
        var listener = Handshake.listening(as: Rig.identity("beta"))
        let count = try #require(try listener.receive(first).answer).payload.count
        for place in 0..<count {
            var (dialer, hello) = Handshake.dialing(NodeID("beta"), as: Rig.identity("alpha"))
            var listener = Handshake.listening(as: Rig.identity("beta"))
            var welcome = try #require(try listener.receive(hello).answer)
            welcome.payload[place] ^= 1
            #expect(throws: HandshakeFailure.self, "byte \(place) of WELCOME") { try dialer.receive(welcome) }
            hello.payload = []
        }
    }

    @Test(
        "S27, D2: a dialer says nothing but its greeting to a listener that cannot prove itself",
        arguments: ["other secret", "no proof", "accept at once", "reflected greeting"])
    func fakeListener(_ kind: String) async throws {
        try await withRig { rig in
            let listener = try RawListener()
            try await rig.on { [port = listener.port] in $0.dial(port: port) }
            let peer = try await listener.accept()
            try #require(try await peer.eventually { !peer.take() && peer.kinds == [Kind.hello] })
            let said = peer.received
            let hello = peer.frames[0].payload
            let welcome = kind == "reflected greeting" ? hello : greeting([6: Array("beta".utf8)])
            let answer: [UInt8] =
                switch kind {
                case "no proof": frame(Kind.welcome, welcome)
                case "accept at once": frame(Kind.accept)
                default:
                    frame(
                        Kind.welcome,
                        welcome + proof(of: "listener", hello: hello, welcome: welcome, secret: .random()))
                }
            try await peer.send(answer + frame(Kind.accept))
            #expect(try await peer.ends())
            #expect(peer.received == said)
            #expect(try await rig.eventually { $0.dialError?.code == .protocolViolation })
            try await rig.on { #expect($0.rail == nil) }
        }
    }

    @Test("a listener of version 1 refuses in its own form, and the dialer says so")
    func refusedByVersionOne() async throws {
        try await withRig { rig in
            let listener = try RawListener()
            try await rig.on { [port = listener.port] in $0.dial(port: port) }
            let peer = try await listener.accept()
            try #require(try await peer.eventually { !peer.take() && peer.kinds == [Kind.hello] })
            // Where version 1 looks for the version stands one that it names.
            #expect(peer.frames[0].payload.prefix(2) == [2, 0])
            try await peer.send(frame(Kind.refuse, Array("the peer speaks mirror protocol 2".utf8)))
            #expect(try await peer.ends())
            #expect(
                try await rig.eventually {
                    $0.dialError?.message == "refused by the peer: the peer speaks mirror protocol 2"
                })
        }
    }

    @Test("S22: the secret stands in no description")
    func secretIsNotShown() {
        let identity = Rig.identity("alpha")
        var shown = "\(identity) \(String(reflecting: identity))"
        dump(identity, to: &shown)
        #expect(shown.contains("alpha"))
        #expect(!shown.contains(Rig.secret.hexadecimal) && !shown.contains("1, 2, 3") && !shown.contains("- 31"))
    }

    // MARK: Versions and features

    @Test(
        "the highest version that both speak is spoken",
        arguments: [(2...3, 2...2, 2), (2...2, 2...3, 2), (2...3, 2...3, 3), (1...2, 2...3, 2)]
            as [(ClosedRange<UInt16>, ClosedRange<UInt16>, UInt16)])
    func rollingVersions(
        _ dialer: ClosedRange<UInt16>, _ listener: ClosedRange<UInt16>, _ spoken: UInt16
    ) async throws {
        var (alpha, beta) = (Rig.identity("alpha"), Rig.identity("beta"))
        alpha.versions = dialer
        beta.versions = listener
        try await withRig(as: beta) { [alpha] rig in
            try await rig.on { $0.dial(as: alpha) }
            #expect(try await rig.serves())
            let (met, accepted) = try await rig.on { ($0.met, $0.accepted.first?.peer) }
            #expect(met?.version == spoken && met?.node == NodeID("beta"))
            #expect(accepted?.version == spoken && accepted?.node == NodeID("alpha"))
        }
    }

    @Test("features: what both have is used; a critical one that the other lacks is refused, on either side")
    func features() async throws {
        var (alpha, beta) = (Rig.identity("alpha"), Rig.identity("beta"))
        alpha.features = RailFeatures(critical: 1, optional: 6)
        beta.features = RailFeatures(critical: 0, optional: 5)
        try await withRig(as: beta) { [alpha] rig in
            try await rig.on { $0.dial(as: alpha) }
            #expect(try await rig.eventually { $0.met?.features == 5 && $0.accepted.first?.peer.features == 5 })
            try await rig.on { [alpha] rig in
                var demanding = alpha
                demanding.features.critical = 8
                rig.dial(as: demanding)
            }
            #expect(try await rig.eventually { $0.dialError?.message.contains("features 0x8") == true })
        }
        beta.features.critical = 16
        try await withRig(as: beta) { [alpha] rig in
            try await rig.on { $0.dial(as: alpha) }
            #expect(try await rig.eventually { $0.dialError?.message.contains("features 0x10") == true })
            try await rig.on { #expect($0.accepted.isEmpty) }
        }
    }

    @Test("fields that a later version adds are passed over, and bound by the proof")
    func unknownFields() async throws {
        try await withRig { rig in
            let changes: [UInt8: [UInt8]?] = [200: [1, 2, 3], 255: []]
            let peer = try RawPeer(rig.port)
            try await peer.send(hello(changes))
            try #require(try await peer.eventually { !peer.take() && peer.kinds == [Kind.welcome] })
            try await peer.send(frame(Kind.proof, peer.proofOfDialer(greeting(changes))))
            #expect(try await peer.eventually { !peer.take() && peer.kinds == [Kind.welcome, Kind.accept] })
        }
    }

    @Test("S27: both sides learn whether their configurations agree")
    func digests() async throws {
        var other = Rig.identity("alpha")
        other.configurationDigest[31] ^= 1
        try await withRig { [other] rig in
            try await rig.on { $0.dial() }
            #expect(try await rig.eventually { $0.met?.hasSameConfiguration == true })
            try await rig.on { $0.dial(as: other) }
            #expect(try await rig.eventually { $0.met?.hasSameConfiguration == false && $0.accepted.count == 2 })
            try await rig.on { #expect($0.accepted.map(\.peer.hasSameConfiguration) == [true, false]) }
        }
    }

    @Test("a listener of another name or cluster is no rail, whatever it proves")
    func unexpectedListeners() async throws {
        try await withRig { rig in
            try await rig.on { $0.dial(expecting: "gamma") }
            #expect(
                try await rig.eventually { $0.dialError?.message.contains("expected node 'gamma', met 'beta'") == true }
            )
            try await rig.on { rig in
                rig.dialError = nil
                rig.dial(as: Rig.identity("alpha", cluster: "other"))
            }
            #expect(try await rig.eventually { $0.dialError?.message.contains("another cluster") == true })
            try await rig.on { #expect($0.accepted.isEmpty) }
        }
    }

    @Test(
        "S16: a place refuses where nobody listens, and takes the connection where anybody does; that costs the listener nothing"
    )
    func knocking() async throws {
        try await withRig { rig in
            try await rig.on { $0.knock() }
            #expect(try await rig.eventually { $0.isRefused != nil })
            try await rig.on { #expect($0.isRefused == false && $0.accepted.isEmpty) }
            try await rig.connect()
            try await rig.on { $0.stop() }
            try await rig.on { $0.knock() }
            // A child that another test spawns has the listener until it executes its program.
            let isRefused = try await rig.eventually { rig in
                if rig.isRefused == false { rig.knock() }
                return rig.isRefused == true
            }
            #expect(isRefused)
        }
    }

    // MARK: Bounds

    @Test("S28: who says nothing, or half, or greets and proves nothing, is not waited for")
    func slowPeers() async throws {
        try await withRig(greetingLimit: .milliseconds(50)) { rig in
            let silent = try RawPeer(rig.port)
            let half = try RawPeer(rig.port)
            try await half.send(Array(hello().dropLast()))
            let unproved = try RawPeer(rig.port)
            try await unproved.send(hello())
            for peer in [silent, half, unproved] {
                #expect(try await peer.ends())
                #expect(peer.frames.last?.key == UInt64(RailRefusal.tooSlow.rawValue))
            }
            try await rig.on { #expect($0.accepted.isEmpty) }
        }
    }

    @Test("S28: strangers take no place of a peer, however many they are")
    func strangersAreBounded() async throws {
        try await withRig { rig in
            var strangers: [RawPeer] = []
            for _ in 0..<3 * TCPMirrorListener.maximumUnproved {
                let stranger = try RawPeer(rig.port)
                try await stranger.send(hello())
                strangers.append(stranger)
            }
            #expect(try await rig.serves())
            let older = strangers.dropLast(TCPMirrorListener.maximumUnproved)
            for stranger in older { #expect(try await stranger.ends()) }
            #expect(older.allSatisfy { $0.frames.last?.key == UInt64(RailRefusal.tooMany.rawValue) })
        }
    }

    @Test("S28: rails are bounded, and one that ends makes room")
    func railsAreBounded() async throws {
        try await withRig { rig in
            var peers: [RawPeer] = []
            for _ in 0..<TCPMirrorListener.maximumConnections { peers.append(try await RawPeer.greeted(rig.port)) }
            let surplus = try RawPeer(rig.port)
            try await surplus.send(hello())
            try #require(try await surplus.eventually { !surplus.take() && surplus.kinds == [Kind.welcome] })
            try await surplus.send(frame(Kind.proof, surplus.proofOfDialer(greeting())))
            #expect(try await surplus.ends())
            #expect(surplus.frames.last?.key == UInt64(RailRefusal.tooMany.rawValue))
            peers.removeLast(2)
            #expect(try await rig.eventually { $0.accepted.count { $0.recorder.failure != nil } == 2 })
            #expect(try await rig.serves())
        }
    }

    @Test("requests right behind the proof are carried out")
    func requestsBehindTheProof() async throws {
        try await withRig { rig in
            let key = try await rig.on { $0.key.rawValue }
            let peer = try RawPeer(rig.port)
            try await peer.send(hello())
            try #require(try await peer.eventually { !peer.take() && peer.kinds == [Kind.welcome] })
            try await peer.send(
                frame(Kind.proof, peer.proofOfDialer(greeting())) + frame(Kind.write, [5], request: 1, key: key))
            let expected = [Kind.welcome, Kind.accept, Kind.complete]
            #expect(try await peer.eventually { !peer.take() && peer.kinds == expected })
            try await rig.on { #expect($0.region.durable[0] == 5) }
        }
    }

    @Test("S21: garbage of any length holds nobody up")
    func garbage() async throws {
        try await withRig { rig in
            var random = SplitMix64(seed: 11)
            let garbage: [[UInt8]] = [
                [UInt8](repeating: 0, count: 100_000), (0..<5000).map { _ in UInt8(truncatingIfNeeded: random.next()) },
                frame(Kind.hello, [UInt8](repeating: 1, count: 2000)), frame(Kind.hello, [2]),
                frame(Kind.hello, [2, 0]),
                hello().dropLast() + [0], frame(Kind.complete, request: 1), frame(Kind.accept),
                frame(Kind.welcome, greeting()), frame(Kind.refuse),
            ]
            for (index, bytes) in garbage.enumerated() {
                let peer = try RawPeer(rig.port)
                try await peer.send(bytes)
                #expect(try await peer.ends(), "garbage \(index)")
                #expect(!peer.kinds.contains(Kind.welcome))
            }
            try await rig.on { #expect($0.accepted.isEmpty) }
            #expect(try await rig.serves())
        }
    }
}
