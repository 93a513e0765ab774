// The floor of everything that crosses a network: the same bytes over one plain TCP connection, received into memory and
// answered with eight bytes, by blocking calls. No frames, no checksums, no log, no event loop.

import Foundation
import Glibc
import HostProcess
import LogModel

/// A blocking TCP socket; closed when the last reference goes.
final class BlockingSocket: Sendable {
    let descriptor: Int32

    private init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// Listens on a free port of the loopback interface.
    static func listen() throws(PerfError) -> (BlockingSocket, port: UInt16) {
        let listener = try make()
        var address = loopback(port: 0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener.descriptor, $0, length) == 0 && Glibc.listen(listener.descriptor, 16) == 0
                    && getsockname(listener.descriptor, $0, &length) == 0
            }
        }
        guard result else { throw failure("cannot listen") }
        return (listener, UInt16(bigEndian: address.sin_port))
    }

    static func connect(port: UInt16) throws(PerfError) -> BlockingSocket {
        let made = try make()
        var address = loopback(port: port)
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(made.descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw failure("cannot connect to port \(port)") }
        return made
    }

    func accept() throws(PerfError) -> BlockingSocket {
        let accepted = Glibc.accept(descriptor, nil, nil)
        guard accepted >= 0, fcntl(accepted, F_SETFD, FD_CLOEXEC) == 0 else { throw Self.failure("cannot accept") }
        return Self.tuned(accepted)
    }

    private static func make() throws(PerfError) -> BlockingSocket {
        let made = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard made >= 0 else { throw failure("no socket can be made") }
        return tuned(made)
    }

    private static func tuned(_ descriptor: Int32) -> BlockingSocket {
        var on: Int32 = 1
        _ = setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        return BlockingSocket(descriptor: descriptor)
    }

    private static func loopback(port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }

    static func failure(_ what: String) -> PerfError { PerfError("TCP: \(what): \(String(cString: strerror(errno)))") }

    func sendAll(_ bytes: UnsafeRawBufferPointer) throws(PerfError) {
        var done = 0
        while done < bytes.count {
            let count = send(descriptor, bytes.baseAddress! + done, bytes.count - done, Int32(MSG_NOSIGNAL))
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw Self.failure("send") }
            done += count
        }
    }

    /// False at the end of the stream.
    func receiveAll(_ bytes: UnsafeMutableRawBufferPointer) throws(PerfError) -> Bool {
        var done = 0
        while done < bytes.count {
            let count = recv(descriptor, bytes.baseAddress! + done, bytes.count - done, 0)
            if count < 0 && errno == EINTR { continue }
            guard count >= 0 else { throw Self.failure("receive") }
            guard count > 0 else { return false }
            done += count
        }
        return true
    }
}

enum TCPFloor {
    static let answerBytes = 8

    /// Serves one connection until it ends. Its first eight bytes say how long a message is.
    static func serve(_ connection: BlockingSocket) throws(PerfError) {
        var size: UInt64 = 0
        let greeted = try receive(&size, connection)
        guard greeted, (1...CommonOptions.largestSizeBytes).contains(size) else { return }
        let message = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(size), alignment: 64)
        defer { message.deallocate() }
        while try connection.receiveAll(message) {
            try connection.sendAll(
                UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(message)[..<min(Int(size), answerBytes)]))
        }
    }

    private static func receive(_ value: inout UInt64, _ connection: BlockingSocket) throws(PerfError) -> Bool {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 8, alignment: 8)
        defer { bytes.deallocate() }
        guard try connection.receiveAll(bytes) else { return false }
        value = bytes.load(as: UInt64.self)
        return true
    }

    /// Sends messages of `size` bytes with up to `depth` unanswered.
    static func measure(port: UInt16, size: Int, depth: Int, seconds: Double) throws(PerfError) -> (
        Repeat, LatencyHistogram
    ) {
        let connection = try BlockingSocket.connect(port: port)
        let message = UnsafeMutableRawBufferPointer.allocate(byteCount: max(size, 8), alignment: 64)
        defer { message.deallocate() }
        message.initializeMemory(as: UInt8.self, repeating: 7)
        message.storeBytes(of: UInt64(size), as: UInt64.self)
        try connection.sendAll(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(message)[..<8]))
        return try exchange(
            connection, UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(message)[..<size]), depth: depth,
            nanos: UInt64(seconds * 1e9))
    }

    private static func exchange(
        _ connection: BlockingSocket, _ message: UnsafeRawBufferPointer, depth: Int, nanos: UInt64
    ) throws(PerfError) -> (Repeat, LatencyHistogram) {
        let answer = UnsafeMutableRawBufferPointer.allocate(byteCount: min(message.count, answerBytes), alignment: 8)
        defer { answer.deallocate() }
        var histogram = makeHistogram()
        var sentAt = [UInt64](repeating: 0, count: depth)
        var sent = 0
        var answered = 0
        let begin = monotonicNanos()
        var pace = Pace(begin: begin, nanos: nanos)
        var now = begin
        while now - begin < nanos || answered < sent {
            // Both ends would block forever if unanswered messages filled the socket buffers of both directions; answers
            // are eight bytes, so they never do.
            while sent - answered < depth, now - begin < nanos {
                sentAt[sent % depth] = monotonicNanos()
                try connection.sendAll(message)
                sent += 1
            }
            guard try connection.receiveAll(answer) else { throw PerfError("TCP: the partner ended") }
            now = monotonicNanos()
            histogram.note(now - sentAt[answered % depth])
            pace.note(now)
            answered += 1
        }
        return (
            Repeat(
                operations: UInt64(answered), seconds: Double(now - begin) / 1e9, p50: histogram.p50,
                pace: pace),
            histogram
        )
    }
}

/// The answering side, on a thread of this process.
struct FloorServer {
    let port: UInt16

    /// Serves one connection after another, as long as the process lives.
    static func start() throws(PerfError) -> FloorServer {
        let (listener, port) = try BlockingSocket.listen()
        Thread.detachNewThread {
            do throws(PerfError) {
                while true { try TCPFloor.serve(listener.accept()) }
            } catch {
                StandardError.line("twinlog-perf: \(error.message)")
            }
        }
        return FloorServer(port: port)
    }
}
