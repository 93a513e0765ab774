// What protects the bytes of a rail on a network, beneath the handshake (S27).

public import LogModel
public import NIOCore

/// Thread-safe.
public protocol RailSecurity: Sendable {
    /// Puts its handlers into the pipeline of a connection that was dialled or accepted, before any other. On its loop.
    func protect(_ channel: any Channel, as role: RailRole) throws
    /// Why whoever has proved to be `peer` on this connection is not; `nil` if there is nothing against it. On its loop.
    func objection(to peer: NodeID, on channel: any Channel) -> String?
    /// An error of its own, in words; `nil` for another's.
    func words(for error: any Error) -> String?
}
