// The admin socket: private, and of use to others whatever one client does (S21, S22).

import AdminProtocol
import Glibc
import NIOCore
import NIOPosix
import TestSupport
import Testing

/// A server on an event loop of its own. It answers `status` with a large answer, `drain` when it is told to, and the rest at
/// once; it remembers what it was asked.
final class Fixture: @unchecked Sendable {  // Its mutable parts are touched on the event loop only.
    let path: String
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private var server: AdminServer?
    private var requests: [AdminRequest] = []
    private var drains: [(AdminResponse) -> Void] = []

    init() async throws {
        path = "/tmp/twinlog-admin-\(getpid())-\(UInt64.random(in: 0...UInt64.max)).sock"
        try await group.next().flatSubmit { [self] in
            let server = AdminServer(path: path, eventLoop: group.next()) { [weak self] request, answer in
                self?.requests.append(request)
                switch request {
                case .status: answer(.refused(String(repeating: "x", count: 1 << 20)))
                case .drain: self?.drains.append(answer)
                default: answer(.done)
                }
            }
            self.server = server
            return server.start()
        }.get()
    }

    /// Somebody else is served.
    func serves() async throws -> Bool { try await ask(.handover(group: "g", to: "b")) == .done }

    func wasAsked(_ isAsExpected: ([AdminRequest]) -> Bool) async throws -> Bool { isAsExpected(try await asked) }

    private var asked: [AdminRequest] { get async throws { try await group.next().submit { self.requests }.get() } }

    func answerDrains() async throws {
        try await group.next().submit {
            for answer in self.drains { answer(.done) }
            self.drains = []
        }.get()
    }

    /// `leaving`: something is at the socket's path afterwards.
    func stop(leaving: Bool = false) async throws {
        try await group.next().submit { self.server?.stop() }.get()
        try await group.shutdownGracefully()
        #expect((access(path, F_OK) == 0) == leaving)
    }

    /// The client blocks, so it does so on a thread of its own.
    func ask(_ request: AdminRequest, timeoutMillis: Int = 30_000) async throws -> AdminResponse {
        try await NIOThreadPool.singleton.runIfActive { [path] in
            try AdminClient.ask(request, at: path, timeoutMillis: timeoutMillis)
        }
    }
}

func withServer(_ body: (Fixture) async throws -> Void) async throws {
    let fixture = try await Fixture()
    do {
        try await body(fixture)
    } catch {
        try await fixture.stop()
        throw error
    }
    try await fixture.stop()
}

/// A client that says what it likes.
final class RawClient {
    let descriptor: CInt

    init(_ path: String) throws {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        descriptor = socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        try #require(descriptor >= 0)
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(result == 0)
    }

    deinit { close(descriptor) }

    /// Sends what the socket takes now; how much that was, or -1 if the connection is gone.
    func send(_ bytes: [UInt8]) -> Int {
        let count = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        return count < 0 && errno == EAGAIN ? 0 : count
    }

    /// Sends all of it unless the connection ends before.
    func sendAll(_ bytes: [UInt8]) async throws {
        var sent = 0
        while sent < bytes.count {
            let count = send(Array(bytes[sent...]))
            if count < 0 { return }
            if count == 0 { try await Task.sleep(for: .milliseconds(1)) }
            sent += count
        }
    }

    /// What is there now, and whether the connection has ended.
    func receive() -> (bytes: [UInt8], ended: Bool) {
        var all: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count <= 0 { return (all, count == 0 || errno != EAGAIN) }
            all += chunk.prefix(count)
        }
    }

    func ends() async throws -> Bool { try await eventually { receive().ended } }
}

struct AdminServerTests {
    @Test func theSocketIsPrivate() async throws {  // S22
        try await withServer { fixture in
            var about = stat()
            try #require(stat(fixture.path, &about) == 0)
            #expect(about.st_mode & S_IFMT == S_IFSOCK)
            #expect(about.st_mode & 0o777 == 0o600)
        }
    }

    @Test func everyRequestReachesTheNodeAndIsAnswered() async throws {
        try await withServer { fixture in
            for request in MessageTests.requests where request != .status && request != .drain(group: "g0") {
                let answer = try await fixture.ask(request)
                #expect(answer == .done)
                #expect(try await fixture.wasAsked { $0.last == request })
            }
            // Larger than any socket's buffer.
            let answer = try await fixture.ask(.status)
            #expect(answer == .refused(String(repeating: "x", count: 1 << 20)))
        }
    }

    @Test("O27: a client that closes its half gets the answers that are due, then the end")
    func repliesComeAfterTheEndOfInput() async throws {
        try await withServer { fixture in
            let client = try RawClient(fixture.path)
            let requests = try AdminCodec.line(AdminRequest.drain(group: "g")) + AdminCodec.line(AdminRequest.status)
            try await client.sendAll(requests)
            try #require(shutdown(client.descriptor, Int32(SHUT_WR)) == 0)
            #expect(try await eventually { try await fixture.wasAsked { $0.count == 1 } })
            try await fixture.answerDrains()
            var received: [UInt8] = []
            let ended = try await eventually {
                let (bytes, ended) = client.receive()
                received += bytes
                return ended
            }
            #expect(ended)
            let expected =
                try AdminCodec.line(AdminResponse.done)
                + AdminCodec.line(AdminResponse.refused(String(repeating: "x", count: 1 << 20)))
            #expect(received == expected)
        }
    }

    @Test func aSocketThatSomebodyListensOnIsNotReplaced() async throws {
        try await withServer { first in
            let path = first.path
            let loop = first.group.next()
            await #expect(throws: IOError.self) {
                try await loop.flatSubmit {
                    AdminServer(path: path, eventLoop: loop) { _, answer in answer(.refused("second")) }.start()
                }.get()
            }
            let serves = try await first.serves()
            #expect(serves)
        }
    }

    @Test("O13: at its end a server removes its own socket, and nobody else's")
    func ownSocketOnly() async throws {
        let server = try await Fixture()
        unlink(server.path)
        try leaveSocket(at: server.path)
        try await server.stop(leaving: true)
        #expect(unlink(server.path) == 0)
    }

    @Test func aSocketThatADeadProcessLeftIsReplaced() async throws {
        try await withServer { first in
            let path = first.path + ".stale"
            defer { unlink(path) }
            try leaveSocket(at: path)
            let loop = first.group.next()
            let second = NIOLoopBoundBox.makeBoxSendingValue(nil, as: AdminServer?.self, eventLoop: loop)
            try await loop.flatSubmit {
                let server = AdminServer(path: path, eventLoop: loop) { _, answer in answer(.done) }
                second.value = server
                return server.start()
            }.get()
            let client = try RawClient(path)
            try await client.sendAll(AdminCodec.line(AdminRequest.drain(group: "g")))
            let isAnswered = try await eventually { !client.receive().bytes.isEmpty }
            #expect(isAnswered)
            try await loop.submit { second.value?.stop() }.get()
        }
    }

    private func leaveSocket(at path: String) throws {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(bound == 0)
    }

    @Test(arguments: [
        "\n", "garbage\n", "{\"reboot\":{}}\n", "\u{0}\u{0}\u{0}\n", "[[[[\n", "GET / HTTP/1.1\r\n\r\n",
        String(repeating: "[", count: 60_000) + "\n",
    ]) func garbageCostsItsConnectionAndNothingElse(text: String) async throws {  // S21
        try await withServer { fixture in
            let client = try RawClient(fixture.path)
            // What comes behind garbage is not carried out either.
            let request = try AdminCodec.line(AdminRequest.takeover(group: "g0", on: "beta", force: true))
            try await client.sendAll(Array(text.utf8) + request)
            #expect(try await client.ends())
            #expect(try await fixture.wasAsked(\.isEmpty))
            #expect(try await fixture.serves())
        }
    }

    @Test func aLineWithoutAnEndIsCutOff() async throws {  // S21
        try await withServer { fixture in
            let client = try RawClient(fixture.path)
            try await client.sendAll([UInt8](repeating: UInt8(ascii: "{"), count: AdminRequest.maximumBytes + 1))
            #expect(try await client.ends())
            #expect(try await fixture.serves())
        }
    }

    @Test func halfARequestIsNotCarriedOut() async throws {
        try await withServer { fixture in
            let line = try AdminCodec.line(AdminRequest.takeover(group: "g0", on: "beta", force: true))
            do {
                let client = try RawClient(fixture.path)
                try await client.sendAll(line.dropLast())
                #expect(try await fixture.serves())
                #expect(try await fixture.wasAsked { $0.count == 1 })
            }
            #expect(try await fixture.serves())
            #expect(try await fixture.wasAsked { $0.count == 2 })
            // The same line in single bytes is a request.
            let slow = try RawClient(fixture.path)
            for byte in line { try await slow.sendAll([byte]) }
            #expect(try await eventually { try await fixture.wasAsked { $0.count == 3 } })
            #expect(try await eventually { slow.receive().bytes == Array("{\"done\":{}}\n".utf8) })
        }
    }

    @Test func manyRequestsOnOneConnectionAreAnsweredInOrder() async throws {
        try await withServer { fixture in
            let client = try RawClient(fixture.path)
            var lines: [UInt8] = []
            for index in 0..<200 { lines += try AdminCodec.line(AdminRequest.handover(group: "g\(index)", to: "b")) }
            try await client.sendAll(lines)
            var answer: [UInt8] = []
            let expected = [UInt8](String(repeating: "{\"done\":{}}\n", count: 200).utf8)
            #expect(
                try await eventually {
                    answer += client.receive().bytes
                    return answer.count >= expected.count
                })
            #expect(answer == expected)
            #expect(try await fixture.wasAsked { $0 == (0..<200).map { .handover(group: "g\($0)", to: "b") } })
        }
    }

    /// A megabyte per answer: without a limit, this client makes the node keep a gigabyte.
    @Test func aClientThatNeverReadsIsOwedOneAnswer() async throws {  // S21
        try await withServer { fixture in
            let client = try RawClient(fixture.path)
            let request = try AdminCodec.line(AdminRequest.status)
            var refused = 0
            for _ in 0..<1000 {
                let count = client.send(request)
                if count < 0 { break }
                refused += count == 0 ? 1 : 0
            }
            // The node has read what it will; asking another question proves it.
            for _ in 0..<20 { #expect(try await fixture.serves()) }
            #expect(try await fixture.wasAsked { $0.count { $0 == .status } <= 2 })
        }
    }

    @Test func aRequestThatWaitsHoldsNobodyElseUp() async throws {
        try await withServer { fixture in
            async let waiting = fixture.ask(.drain(group: "slow"))
            #expect(try await eventually { try await fixture.wasAsked { $0 == [.drain(group: "slow")] } })
            #expect(try await fixture.serves())
            try await fixture.answerDrains()
            let answer = try await waiting
            #expect(answer == .done)
        }
    }

    @Test func aClientThatLeftIsAnsweredWithoutHarm() async throws {
        try await withServer { fixture in
            do {
                let client = try RawClient(fixture.path)
                try await client.sendAll(AdminCodec.line(AdminRequest.drain(group: "g")))
                #expect(try await eventually { try await fixture.wasAsked { $0.count == 1 } })
            }
            #expect(try await fixture.serves())
            try await fixture.answerDrains()
            #expect(try await fixture.serves())
        }
    }

    @Test func connectionsAreBoundedAndTheirEndMakesRoom() async throws {  // S21
        try await withServer { fixture in
            var clients: [RawClient] = []
            let request = try AdminCodec.line(AdminRequest.handover(group: "g", to: "b"))
            for _ in 0..<AdminServer.maximumConnections {
                let client = try RawClient(fixture.path)
                try await client.sendAll(request)
                #expect(try await eventually { !client.receive().bytes.isEmpty })
                clients.append(client)
            }
            let surplus = try RawClient(fixture.path)
            #expect(try await surplus.ends())
            // Those that were there first are served still.
            try await clients[0].sendAll(request)
            #expect(try await eventually { !clients[0].receive().bytes.isEmpty })
            clients.removeLast()
            #expect(
                try await eventually {
                    do { return try await fixture.serves() } catch { return false }
                })
        }
    }

    @Test func theClientWaitsNoLongerThanItWasTold() async throws {
        try await withServer { fixture in
            let error = await #expect(throws: AdminClientError.self) {
                try await fixture.ask(.drain(group: "never"), timeoutMillis: 50)
            }
            #expect(error?.message.contains("no answer in time") == true)
            #expect(error?.message.contains(fixture.path) == true)
            try await fixture.answerDrains()
        }
        let nobody = #expect(throws: AdminClientError.self) {
            try AdminClient.ask(.status, at: "/tmp/twinlog-nobody.sock", timeoutMillis: 50)
        }
        #expect(nobody?.message.contains("/tmp/twinlog-nobody.sock") == true)
        #expect(throws: AdminClientError.self) {
            try AdminClient.ask(.status, at: "/" + String(repeating: "x", count: 200), timeoutMillis: 50)
        }
    }
}
