// One HTTP/1.1 connection to a member of etcd. One request is out at a time. Whatever goes wrong, a late answer too, ends the connection, so
// that no answer is taken for that of another request.

internal import Foundation
internal import LogModel
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import NIOSSL

struct HTTPAnswer: Sendable {
    var status: Int
    var body: [UInt8]
}

enum ConnectionError: Error, Hashable, CustomStringConvertible {
    case noAnswer(afterMillis: Int64)
    case closed
    case broken(String)

    var description: String {
        switch self {
        case .noAnswer(let millis): "no answer within \(millis) ms"
        case .closed: "the connection was closed"
        case .broken(let reason): reason
        }
    }
}

/// Its calls block, so they are not made on an event loop.
struct EtcdConnection: Sendable {
    /// All records of a cluster come in one answer: 64 KiB each at most, a few KiB really.
    static let maximumAnswerBytes = 64 << 20

    private let channel: any Channel
    private let endpoint: EtcdSettings.Endpoint

    /// Connects within the time of a try. A failed TLS handshake is told by the first request.
    init(to endpoint: EtcdSettings.Endpoint, _ settings: EtcdSettings) throws(ConnectionError) {
        self.endpoint = endpoint
        do {
            let tls = endpoint.isSecure ? try Self.tlsContext(settings) : nil
            channel = try ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connectTimeout(.milliseconds(settings.tryMillis))
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try Self.addHandlers(to: channel.pipeline.syncOperations, endpoint, tls)
                    }
                }
                .connect(host: endpoint.address.host, port: endpoint.address.port).wait()
        } catch {
            throw .broken("cannot be connected to: \(Self.words(error))")
        }
    }

    /// Of the addresses that the name has, the first that failed tells why.
    private static func words(_ error: any Error) -> String {
        guard let failure = error as? NIOConnectionError else { return "\(error)" }
        if let first = failure.connectionErrors.first { return "\(first.error)" }
        let unresolved = failure.dnsAError ?? failure.dnsAAAAError
        return unresolved.map { "\(failure.host) does not resolve: \($0)" } ?? "\(failure)"
    }

    private static func tlsContext(_ settings: EtcdSettings) throws -> NIOSSLContext {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        if let path = settings.caPath { tls.trustRoots = .file(path) }
        if let path = settings.certificatePath {
            tls.certificateChain = try NIOSSLCertificate.fromPEMFile(path).map { .certificate($0) }
        }
        if let path = settings.keyPath { tls.privateKey = .privateKey(try NIOSSLPrivateKey(file: path, format: .pem)) }
        return try NIOSSLContext(configuration: tls)
    }

    private static func addHandlers(
        to pipeline: ChannelPipeline.SynchronousOperations, _ endpoint: EtcdSettings.Endpoint, _ tls: NIOSSLContext?
    ) throws {
        if let tls {
            // A certificate names an IP address in its own way, not by server name.
            let isName = (try? SocketAddress(ipAddress: endpoint.address.host, port: 0)) == nil
            let name = isName ? endpoint.address.host : nil
            try pipeline.addHandler(NIOSSLClientHandler(context: tls, serverHostname: name))
        }
        try pipeline.addHTTPClientHandlers()
        try pipeline.addHandler(NIOHTTPClientResponseAggregator(maxContentLength: maximumAnswerBytes))
        try pipeline.addHandler(ExchangeHandler())
    }

    /// A POST of JSON. Throws if no whole answer came: whether the request was carried out is not known then.
    func post(
        _ body: Data, to path: String, token: String?, withinMillis millis: Int64
    ) throws(ConnectionError) -> HTTPAnswer {
        var head = HTTPRequestHead(version: .http1_1, method: .POST, uri: path)
        head.headers.add(name: "Host", value: "\(endpoint.address)")
        head.headers.add(name: "Content-Type", value: "application/json")
        head.headers.add(name: "Content-Length", value: "\(body.count)")
        if let token { head.headers.add(name: "Authorization", value: token) }
        let promise = channel.eventLoop.makePromise(of: HTTPAnswer.self)
        let timeout = channel.eventLoop.scheduleTask(in: .milliseconds(millis)) { [pipeline = channel.pipeline] in
            pipeline.fireErrorCaught(ConnectionError.noAnswer(afterMillis: millis))
        }
        defer { timeout.cancel() }
        channel.writeAndFlush(Exchange(head: head, body: channel.allocator.buffer(bytes: body), answer: promise))
            .cascadeFailure(to: promise)
        do {
            return try promise.futureResult.wait()
        } catch {
            close()
            throw error as? ConnectionError ?? .broken("\(error)")
        }
    }

    func close() { channel.close(promise: nil) }

    var isOpen: Bool { channel.isActive }
}

private struct Exchange: Sendable {
    var head: HTTPRequestHead
    var body: ByteBuffer
    var answer: EventLoopPromise<HTTPAnswer>
}

private final class ExchangeHandler: ChannelDuplexHandler {
    typealias InboundIn = NIOHTTPClientResponseFull
    typealias OutboundIn = Exchange
    typealias OutboundOut = HTTPClientRequestPart

    private var answer: EventLoopPromise<HTTPAnswer>?

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let exchange = unwrapOutboundIn(data)
        precondition(answer == nil, "one request is out at a time")
        answer = exchange.answer
        context.write(wrapOutboundOut(.head(exchange.head)), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(exchange.body))), promise: nil)
        context.write(wrapOutboundOut(.end(nil)), promise: promise)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let full = unwrapInboundIn(data)
        let body = full.body.map { Array($0.readableBytesView) } ?? []
        finish(.success(HTTPAnswer(status: Int(full.head.status.code), body: body)))
        if !full.head.isKeepAlive { context.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        finish(.failure(error as? ConnectionError ?? .broken("\(error)")))
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        finish(.failure(.closed))
        context.fireChannelInactive()
    }

    private func finish(_ result: Result<HTTPAnswer, ConnectionError>) {
        guard let answer else { return }
        self.answer = nil
        answer.completeWith(result.mapError { $0 })
    }
}
