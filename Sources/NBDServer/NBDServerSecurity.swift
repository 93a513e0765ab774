// TLS for clients that ask for it (NBD_OPT_STARTTLS), or that must.

public import NIOCore

public struct NBDServerSecurity {
    /// Clients without TLS are served nothing.
    public var isRequired: Bool
    /// A fresh end of a TLS connection, as its server. Called on the event loop.
    public var handler: () -> any ChannelHandler

    public init(isRequired: Bool, handler: @escaping () -> any ChannelHandler) {
        self.isRequired = isRequired
        self.handler = handler
    }
}
