// Clients of a host that this process is: a socket belongs to the network namespace that it was made in, whoever uses it.

internal import CHostHarness
internal import ClusterHarness
internal import Foundation
internal import Glibc
package import LogModel

extension HostNetwork {
    /// A socket of the host, connected. Closing it resets the connection.
    package func connect(from host: String, to address: TCPAddress, timeoutMillis: Int) async throws -> CInt {
        let namespace = namespace(host)
        return try await withCheckedThrowingContinuation { continuation in
            // The thread is in the namespace until it ends, which is at once.
            Thread.detachNewThread {
                continuation.resume(
                    with: Result { try Self.connect(in: namespace, to: address, timeoutMillis: timeoutMillis) })
            }
        }
    }

    private static func connect(in namespace: String, to address: TCPAddress, timeoutMillis: Int) throws -> CInt {
        try enter(namespace)
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw failure("a socket") }
        do {
            try set(descriptor, SOL_SOCKET, SO_LINGER, linger(l_onoff: 1, l_linger: 0))
            try set(
                descriptor, SOL_SOCKET, SO_SNDTIMEO,
                timeval(tv_sec: timeoutMillis / 1000, tv_usec: timeoutMillis % 1000 * 1000))
            try set(descriptor, CInt(IPPROTO_TCP), TCP_NODELAY, CInt(1))
            try connect(descriptor, to: address)
            return descriptor
        } catch {
            close(descriptor)
            throw error
        }
    }

    private static func enter(_ namespace: String) throws {
        let descriptor = open("/run/netns/\(namespace)", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(namespace) }
        defer { close(descriptor) }
        let entered = harness_enter_network(descriptor)
        guard entered == 0 else { throw failure(namespace, -entered) }
    }

    private static func set<Value>(_ descriptor: CInt, _ level: CInt, _ option: CInt, _ value: Value) throws {
        let result = withUnsafeBytes(of: value) {
            setsockopt(descriptor, level, option, $0.baseAddress, socklen_t($0.count))
        }
        guard result == 0 else { throw failure("option \(option) of a socket") }
    }

    private static func connect(_ descriptor: CInt, to address: TCPAddress) throws {
        var place = sockaddr_in()
        place.sin_family = sa_family_t(AF_INET)
        place.sin_port = UInt16(address.port).bigEndian
        place.sin_addr.s_addr = inet_addr(address.host)
        let result = withUnsafePointer(to: &place) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw failure("a connection to \(address)") }
    }

    private static func failure(_ what: String, _ number: CInt = errno) -> HarnessError {
        HarnessError("\(what): \(String(cString: strerror(number)))")
    }
}
