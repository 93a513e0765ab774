// Why a rail does not come about. The number travels in the key field of a REFUSE frame, the text is its payload. Whoever
// reads it has not proved who he is, so neither says anything of this cluster (S27).

internal import LogModel
internal import RemoteMemory

/// The numbers are part of the protocol: a case keeps its own for ever.
public enum RailRefusal: UInt8, CaseIterable, Sendable {
    /// Not a greeting, or one with a field missing.
    case malformed = 1
    /// The peer speaks only versions that this node speaks no more.
    case tooOld = 2
    /// The peer speaks only versions that this node does not speak yet.
    case tooNew = 3
    /// The peer requires a feature that this node does not know.
    case unknownFeature = 4
    case otherCluster = 5
    /// The peer bears this node's own name, or is not the one that was dialled.
    case unexpectedNode = 6
    /// The peer does not hold the cluster's secret.
    case wrongProof = 7
    /// The peer did not greet in time.
    case tooSlow = 8
    /// As many connections as there may be.
    case tooMany = 9
}

/// The end of a handshake that failed.
struct HandshakeFailure: Error, Hashable {
    static let maximumTextBytes = 256

    /// `nil`: the connection ended, or the peer gave a number that this version does not know.
    var refusal: RailRefusal?
    var message: String
    /// The peer refused; it knows why.
    var isByPeer = false

    init(_ refusal: RailRefusal, _ message: String) {
        self.refusal = refusal
        self.message = message
    }

    init(ended message: String) { self.message = message }

    /// What a REFUSE frame says.
    init(refused number: UInt64, _ text: [UInt8]) {
        refusal = UInt8(exactly: number).flatMap(RailRefusal.init(rawValue:))
        message =
            "refused by the peer: " + String(decoding: text.prefix(Self.maximumTextBytes), as: UTF8.self).printable
        isByPeer = true
    }

    var error: RemoteMemoryError {
        let isEnd = !isByPeer && (refusal == nil || refusal == .tooSlow)
        return RemoteMemoryError(isEnd ? .disconnected : .protocolViolation, message)
    }
}
