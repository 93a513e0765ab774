// How a rail is made, without the connection: frames in, steps out. One for each connection.
//
//   dialer                                     listener
//   HELLO greeting            ─────────────▶   checks version, features, cluster, name
//   checks the proof, then    ◀─────────────   WELCOME greeting, proof
//   the same
//   PROOF                     ─────────────▶   checks the proof
//   the rail is up            ◀─────────────   ACCEPT; the rail is up
//
// Instead of its next frame the listener may send REFUSE and close. The dialer sends nothing to a listener that has not
// proved itself; it closes (S27).

internal import LogModel
internal import RemoteMemory

struct HandshakeFrame: Equatable {
    var kind: FrameKind
    var payload: [UInt8]
    /// Only in REFUSE.
    var number: UInt64 = 0

    init(_ kind: FrameKind, _ payload: [UInt8] = [], number: UInt64 = 0) {
        self.kind = kind
        self.payload = payload
        self.number = number
    }

    /// REFUSE, for `failure`.
    init(_ failure: HandshakeFailure) {
        self.init(
            .refuse, Array(failure.message.prefix(utf8Bytes: HandshakeFailure.maximumTextBytes).utf8),
            number: UInt64(failure.refusal?.rawValue ?? 0))
    }

    /// The longest is WELCOME.
    static let maximumPayloadBytes = Greeting.maximumBytes + RailProof.byteCount
}

struct Handshake {
    struct Step: Equatable {
        var answer: HandshakeFrame?
        /// The rail is up once the answer, if there is one, is on its way.
        var peer: RailPeer?
    }

    private enum State {
        /// Listener.
        case awaitsHello
        /// Dialer.
        case awaitsWelcome(hello: [UInt8], expected: NodeID)
        /// Listener.
        case awaitsProof(RailProof, RailPeer)
        /// Dialer.
        case awaitsAccept(RailPeer)
        case over
    }

    private let identity: RailIdentity
    private let nonce: [UInt8]
    private var state: State

    static func listening(as identity: RailIdentity, nonce: [UInt8] = Greeting.freshNonce()) -> Handshake {
        Handshake(identity: identity, nonce: nonce, state: .awaitsHello)
    }

    /// A dialer's handshake and its first frame.
    static func dialing(
        _ expected: NodeID, as identity: RailIdentity, nonce: [UInt8] = Greeting.freshNonce()
    ) -> (Handshake, HandshakeFrame) {
        let hello = Greeting(of: identity, nonce: nonce).encoded
        let handshake = Handshake(
            identity: identity, nonce: nonce, state: .awaitsWelcome(hello: hello, expected: expected))
        return (handshake, HandshakeFrame(.hello, hello))
    }

    /// Whoever failed may not be asked again.
    mutating func receive(_ frame: HandshakeFrame) throws(HandshakeFailure) -> Step {
        let current = state
        state = .over
        switch (current, frame.kind) {
        case (.awaitsHello, .hello): return try welcome(frame.payload)
        case (.awaitsWelcome(let hello, let expected), .welcome):
            return try prove(answering: frame.payload, hello: hello, expected)
        case (.awaitsProof(let proof, let peer), .proof):
            guard proof.isProof(frame.payload, of: .dialer) else {
                throw HandshakeFailure(.wrongProof, "the peer does not hold this cluster's secret")
            }
            return Step(answer: HandshakeFrame(.accept), peer: peer)
        case (.awaitsAccept(let peer), .accept): return Step(answer: nil, peer: peer)
        case (.awaitsWelcome, .refuse), (.awaitsAccept, .refuse):
            throw HandshakeFailure(refused: frame.number, frame.payload)
        default:
            throw HandshakeFailure(.malformed, "a frame of kind \(frame.kind) is no part of a greeting here")
        }
    }

    private mutating func welcome(_ hello: [UInt8]) throws(HandshakeFailure) -> Step {
        let peer = try Greeting(hello).agree(with: identity)
        let welcome = Greeting(of: identity, nonce: nonce).encoded
        let proof = RailProof(secret: identity.secret, hello: hello, welcome: welcome)
        state = .awaitsProof(proof, peer)
        return Step(answer: HandshakeFrame(.welcome, welcome + proof.proof(of: .listener)), peer: nil)
    }

    private mutating func prove(
        answering payload: [UInt8], hello: [UInt8], _ expected: NodeID
    ) throws(HandshakeFailure) -> Step {
        let welcome = Array(payload.dropLast(RailProof.byteCount))
        // What an older or newer version says has another form: it is named before its proof is asked for.
        let greeting = try Greeting(welcome)
        let proof = RailProof(secret: identity.secret, hello: hello, welcome: welcome)
        guard proof.isProof(Array(payload.suffix(RailProof.byteCount)), of: .listener) else {
            throw HandshakeFailure(.wrongProof, "who listens there does not hold this cluster's secret")
        }
        let peer = try greeting.agree(with: identity)
        guard peer.node == expected else {
            throw HandshakeFailure(.unexpectedNode, "expected node '\(expected)', met '\(peer.node)'")
        }
        state = .awaitsAccept(peer)
        return Step(answer: HandshakeFrame(.proof, proof.proof(of: .dialer)), peer: nil)
    }
}
