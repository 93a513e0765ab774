// TLS for clients that ask for it (NBD_OPT_STARTTLS), or that must.

public import NIOCore

public struct NBDServerSecurity: Sendable {
    /// Clients without TLS are served nothing.
    public var isRequired: Bool
    /// A fresh end of a TLS connection, as its server. Called on a connection's event loop.
    public var handler: @Sendable () -> any ChannelHandler

    public init(isRequired: Bool, handler: @escaping @Sendable () -> any ChannelHandler) {
        self.isRequired = isRequired
        self.handler = handler
    }
}
