// Servers that are no etcd, or a broken one: whatever they say is refused in bounded time, and what was asked of them is not called done (S21).

import Coordination
@testable import CoordinationEtcd
import ClusterHarness
import Foundation
import LogModel
import NIOCore
import NIOPosix
import Testing

/// Says the same to whoever sends something.
private final class Stranger: Sendable {
    private let listener: any Channel

    init(saying text: String) throws {
        listener = try ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { client in
                client.eventLoop.makeCompletedFuture {
                    try client.pipeline.syncOperations.addHandler(Answering(text))
                }
            }
            .bind(host: "127.0.0.1", port: Int(try LocalCluster.freePort())).wait()
    }

    deinit { listener.close(promise: nil) }

    var endpoint: EtcdSettings.Endpoint {
        EtcdSettings.Endpoint(
            TCPAddress(host: "127.0.0.1", port: listener.localAddress?.port ?? 0), isSecure: false)
    }

    func coordinator(tryMillis: Int64) -> EtcdCoordinator {
        EtcdCoordinator(EtcdSettings(endpoints: [endpoint], prefix: "/twinlog/test", tryMillis: tryMillis))
    }

    private final class Answering: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let text: String

        init(_ text: String) { self.text = text }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            context.channel.writeAndFlush(ByteBuffer(string: text), promise: nil)
        }
    }
}

struct EtcdStrangerTests {
    private static func http(_ body: String, status: String = "200 OK") -> String {
        "HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    static let said = [
        "\0\0\0\0", "220 mail.example.org ESMTP\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        http(""), http("{}"), http("null"), http("<html>"), http(String(repeating: "[", count: 100_000)),
        http(#"{"header": {"cluster_id": "-1", "revision": "1"}}"#),
        http(#"{"header": {"cluster_id": "1", "revision": "99999999999999999999"}}"#),
        http(#"{"header": {"cluster_id": "1", "revision": "-1"}}"#),
        http(#"{"header": {"cluster_id": "1", "revision": "1"}, "kvs": [{"key": "!"}], "responses": [7]}"#),
        http("bad gateway", status: "502 Bad Gateway"), http("", status: "302 Found"),
        http(#"{"code": 14, "message": "later"}"#, status: "503 Service Unavailable"),
    ]

    @Test("S21: what is no answer of etcd is none, and a swap that it was asked for is unknown", arguments: said)
    func refused(_ text: String) throws {
        let stranger = try Stranger(saying: text)
        let coordinator = stranger.coordinator(tryMillis: 10_000)
        let error = #expect(throws: CoordinationError.self) { try coordinator.read(group) }
        #expect(error?.code == .unreachable)
        #expect(throws: CoordinationError.self) { try coordinator.announce(try presence(of: "alpha", counter: 1)) }
        #expect(throws: SecretError.self) { try coordinator.clusterSecret() }
    }

    @Test(
        "S21: an answer without an end, or one of a petabyte, ends with the time of a try",
        arguments: [
            "HTTP/1.1 200 OK\r\nX-Endless: ", "HTTP/1.1 200 OK\r\nContent-Length: 1125899906842624\r\n\r\n{",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        ]) func endless(_ text: String) throws
    {
        let stranger = try Stranger(saying: text)
        #expect(throws: CoordinationError.self) { try stranger.coordinator(tryMillis: 300).read(group) }
    }

    @Test("S21: an answer that nobody asked for is not the answer to the next question")
    func unsolicited() throws {
        let empty = Self.http(#"{"header": {"cluster_id": "1", "revision": "5"}}"#)
        let stranger = try Stranger(saying: empty + Self.http(#"{"header": {"cluster_id": "2", "revision": "9"}}"#))
        let coordinator = stranger.coordinator(tryMillis: 10_000)
        for _ in 0..<20 { #expect(try coordinator.read(group) == nil, "always the first of the two") }
    }

    @Test("S15: a refusal by name was not carried out, whatever else may have been")
    func refusalByName() throws {
        let refusing = try Stranger(
            saying: Self.http(
                #"{"code": 8, "message": "mvcc: database space exceeded"}"#, status: "429 Too Many Requests"))
        let error = #expect(throws: CoordinationError.self) {
            try refusing.coordinator(tryMillis: 10_000).announce(try presence(of: "alpha", counter: 1))
        }
        #expect(error?.message.contains("database space exceeded") == true)
    }

    @Test("A2: what one member left unanswered is unknown, though the next one refuses it by name")
    func refusedAfterNoAnswer() throws {
        let silent = try Stranger(saying: Self.http("bad gateway", status: "502 Bad Gateway"))
        let refusing = try Stranger(
            saying: Self.http(#"{"code": 7, "message": "permission denied"}"#, status: "403 Forbidden"))
        var client = EtcdClient(
            EtcdSettings(endpoints: [silent.endpoint, refusing.endpoint], prefix: "/twinlog/test", tryMillis: 10_000))
        do throws(EtcdError) {
            _ = try client.transact(TransactionRequest(success: []))
            Issue.record("it is answered")
        } catch {
            guard case .unanswered(let problem) = error else {
                Issue.record("the first member may have made it: \(error)")
                return
            }
            #expect(problem.contains("permission denied") && problem.contains("502"))
        }
    }
}
