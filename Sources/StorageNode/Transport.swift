// How a node makes rails and accepts them.

package import LogModel
package import NIOCore
package import RemoteMemory

/// Bound to the node's event loop. Both sides of a rail have proved that they belong to the cluster before anybody hears of it (S27).
package protocol Transport: AnyObject {
    /// The regions that this node offers on its rails.
    var regions: any RegionRegistry { get }
    /// Once, before anything else. `accepted` is told of each rail that a peer makes, and sets its delegate before it returns.
    func begin(as identity: RailIdentity, accepted: @escaping (any QueuePair, RailPeer) -> Void)
    /// Listens at a place of the configuration.
    func listen(at place: String) -> EventLoopFuture<Void>
    /// Listens no more. Rails that were made go on until they are closed.
    func close()
    /// Makes a rail to `peer`, whose place the configuration names. `done` is called once and sets the delegate before it returns.
    func dial(
        _ place: String, expecting peer: NodeID, timeout: TimeAmount,
        _ done: @escaping (Result<(any QueuePair, RailPeer), RemoteMemoryError>) -> Void)
    /// Connects to a place, sends nothing, and tells whether the host there refused it. False if nothing answers in time.
    func isRefused(at place: String, timeout: TimeAmount, _ done: @escaping (Bool) -> Void)
}
