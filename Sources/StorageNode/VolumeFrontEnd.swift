// Who serves a node's volumes, as far as the node asks.

public import AdminProtocol

/// What serves a node's volumes to clients, and can tell of them.
public protocol VolumeFrontEnd: AnyObject {
    var clientTotals: ClientTotals { get }
    /// `done` is called on the node's event loop, once.
    func clients(_ done: @escaping ([ClientStatus]) -> Void)
}
