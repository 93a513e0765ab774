// How a node makes rails and accepts them.

package import LogModel
package import NIOCore
package import RemoteMemory

/// Bound to the node's event loop. Both sides of a rail have proved that they belong to the cluster before anybody hears of it (S27).
package protocol Transport: AnyObject {
    /// The regions that this node offers on its rails.
    var regions: any RegionRegistry { get }
    /// Listens at a place of the configuration. `accepted` is told of each rail, and sets its delegate before it returns.
    func listen(
        at place: String, as identity: RailIdentity, accepted: @escaping (any QueuePair, RailPeer) -> Void
    ) -> EventLoopFuture<Void>
    /// Makes a rail to `peer`, whose place the configuration names. `done` is called once and sets the delegate before it returns.
    func dial(
        _ place: String, as identity: RailIdentity, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void)
}
