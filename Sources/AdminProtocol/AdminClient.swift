// The operator's side: one request, one answer, with a deadline, blocking. A stopped process still accepts connections, so
// every wait has a limit.

internal import Glibc

public struct AdminClientError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Kind: Hashable, Sendable {
        /// Nobody is there, or somebody else is.
        case unreachable
        case permissionDenied
        /// Somebody is there, and has not answered when the time was over.
        case timeout
    }
    public var kind: Kind
    public var message: String
    public init(_ kind: Kind = .unreachable, message: String) {
        self.kind = kind
        self.message = message
    }
    public var description: String { message }
}

public enum AdminClient {
    /// Sends `request` to the socket at `path` and waits at most `timeoutMillis` for the answer. Blocks.
    public static func ask(
        _ request: AdminRequest, at path: String, timeoutMillis: Int
    ) throws(AdminClientError) -> AdminResponse {
        let deadline = now() + timeoutMillis
        let descriptor = try connect(path)
        defer { close(descriptor) }
        let line: [UInt8]
        do {
            line = try AdminCodec.line(request)
        } catch {
            throw AdminClientError(message: "the request cannot be encoded: \(error)")
        }
        var sent = 0
        while sent < line.count {
            try wait(descriptor, Int16(POLLOUT), deadline, path)
            let count = line.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count < 0 && (errno == EAGAIN || errno == EINTR) { continue }
            guard count > 0 else { throw failure(path, "cannot be written to") }
            sent += count
        }
        let answer = try readLine(descriptor, deadline, path)
        do {
            return try AdminCodec.decode(AdminResponse.self, from: answer)
        } catch {
            throw AdminClientError(message: "\(path): answered something that is not of this version: \(error)")
        }
    }

    private static func readLine(_ descriptor: CInt, _ deadline: Int, _ path: String) throws(AdminClientError)
        -> [UInt8]
    {
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while answer.last != UInt8(ascii: "\n") {
            try wait(descriptor, Int16(POLLIN), deadline, path)
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count < 0 && (errno == EAGAIN || errno == EINTR) { continue }
            guard count > 0 else {
                throw AdminClientError(message: "\(path): the node ended the connection without an answer")
            }
            answer += chunk.prefix(count)
            guard answer.count <= AdminResponse.maximumBytes else {
                throw AdminClientError(message: "\(path): the answer is over \(AdminResponse.maximumBytes) bytes")
            }
        }
        return answer
    }

    private static func connect(_ path: String) throws(AdminClientError) -> CInt {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let capacity = MemoryLayout.size(ofValue: address.sun_path)
        guard path.utf8.count < capacity else { throw AdminClientError(message: "\(path): is too long for a socket") }
        withUnsafeMutableBytes(of: &address.sun_path) { space in
            for (index, byte) in path.utf8.enumerated() { space[index] = byte }
        }
        let descriptor = socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw failure(path, "no socket can be made") }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else {
            let error = failure(path, "is not answered")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    private static func wait(
        _ descriptor: CInt, _ events: Int16, _ deadline: Int, _ path: String
    ) throws(AdminClientError) {
        while true {
            let left = deadline - now()
            guard left > 0 else { throw AdminClientError(.timeout, message: "\(path): no answer in time") }
            var entry = pollfd(fd: descriptor, events: events, revents: 0)
            let ready = poll(&entry, 1, CInt(clamping: left))
            if ready > 0 { return }
            guard ready == 0 || errno == EINTR else { throw failure(path, "cannot be waited for") }
        }
    }

    private static func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int(time.tv_sec) * 1000 + Int(time.tv_nsec) / 1_000_000
    }

    private static func failure(_ path: String, _ what: String) -> AdminClientError {
        AdminClientError(
            errno == EACCES || errno == EPERM ? .permissionDenied : .unreachable,
            message: "\(path): \(what): \(String(cString: strerror(errno)))")
    }
}
