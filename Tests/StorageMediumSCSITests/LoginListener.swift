// The first bytes of each login that reaches a port, and then its end: which initiator port (RFC 7143, 11.12.5) a session says that it has.

import ClusterHarness
import Foundation
import Glibc
import Synchronization

final class LoginListener: Sendable {
    let port: UInt16
    private let listening: CInt
    private let ports = Mutex<[[UInt8]]>([])

    init() throws {
        port = try LocalCluster.freePort()
        listening = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
        let bound = withUnsafeBytes(of: &name) { bytes in
            bind(
                listening, bytes.assumingMemoryBound(to: sockaddr.self).baseAddress!,
                socklen_t(MemoryLayout<sockaddr_in>.size))
        }
        guard bound == 0, listen(listening, 8) == 0 else { throw HarnessError("port \(port) cannot be listened on") }
        Thread.detachNewThread { [self] in serve() }
    }

    /// Ends when the listening socket is shut down.
    private func serve() {
        while true {
            let connection = accept(listening, nil, nil)
            guard connection >= 0 else { return }
            defer { close(connection) }
            var head = [UInt8](repeating: 0, count: 48)
            guard recv(connection, &head, head.count, CInt(MSG_WAITALL)) == head.count else { continue }
            ports.withLock { $0.append(Array(head[8..<14])) }
        }
    }

    /// Of the one session that has tried since the last call.
    func takePort() throws -> [UInt8] {
        let taken = ports.withLock { ports in
            defer { ports = [] }
            return ports
        }
        guard taken.count == 1 else { throw HarnessError("\(taken.count) logins in place of one") }
        return taken[0]
    }

    func stop() {
        shutdown(listening, CInt(SHUT_RDWR))
        close(listening)
    }
}
