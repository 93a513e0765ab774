// How a node makes rails and accepts them.

package import LogModel
package import NIOCore
package import RemoteMemory

/// A rail between two event loops of a node. Whoever has it attaches it, once.
package protocol DetachedRail: Sendable {}

/// The listening side. Bound to the node's event loop. Both sides of a rail have proved that they belong to the cluster before anybody hears
/// of it (S27).
package protocol Transport: AnyObject {
    /// Once, before anything else. `accepted` is told of each rail that a peer makes, and sets its delegate before it returns.
    func begin(as identity: RailIdentity, accepted: @escaping (any QueuePair, RailPeer) -> Void)
    /// Listens at a place of the configuration.
    func listen(at place: String) -> EventLoopFuture<Void>
    /// Listens no more. Rails that were made go on until they are closed.
    func close()
    /// Takes a rail that was accepted, and on which nothing but messages has come, away from this loop, for another one to attach
    /// (``GroupRails/attach(_:_:)``); an error says that it has ended. Its delegate hears nothing more.
    func detach(
        _ queuePair: any QueuePair, _ done: @escaping (Result<any DetachedRail, RemoteMemoryError>) -> Void)
}

/// The rails of the groups on one event loop, to which it is bound.
package protocol GroupRails: AnyObject {
    /// The regions that these groups offer on their rails.
    var regions: any RegionRegistry { get }
    /// Once, before anything else.
    func begin(as identity: RailIdentity)
    /// Makes a rail to `peer`, whose place the configuration names. `done` is called once and sets the delegate before it returns.
    func dial(
        _ place: String, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void)
    /// Connects to a place, sends nothing, and tells whether the host there refused it. False if nothing answers in time.
    func isRefused(at place: String, timeout: TimeAmount, _ done: @escaping (Bool) -> Void)
    /// Goes on with a rail of the same node's ``Transport``. `made` is called if that succeeds, and sets the delegate before it returns.
    func attach(_ rail: any DetachedRail, _ made: @escaping (any QueuePair) -> Void)
}
