// A client between two event loops: it has named a volume, and its handshake goes on where that volume is served.

internal import Foundation
internal import LoopChange
internal import NBDProtocol

struct MovingConnection: Sendable {
    var socket: DetachedConnection
    /// As it was when the client named the volume.
    var handshake: NBDServerHandshake
    /// The step that is to be carried out first.
    var step: NBDServerHandshake.Step
    var peer: String
    var connected: Date
    var isInputEnded: Bool
    /// Where TLS is, if it stayed on another loop.
    var outer: OuterConnection?
}
