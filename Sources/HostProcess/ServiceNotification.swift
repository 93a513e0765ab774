// What a supervisor such as systemd is told: sd_notify's protocol, one datagram a message to the socket that NOTIFY_SOCKET names. Without
// that nobody is told anything. A supervisor that does not read holds up nothing.

internal import Glibc

public struct ServiceNotification: Sendable {
    /// Of the socket; a first byte of 0 is an abstract name.
    private let name: [UInt8]?
    /// How long the supervisor waits for a sign of life; `nil` if it does not.
    public let watchdogMicros: UInt64?

    public init() {
        func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        let isOurs = variable("WATCHDOG_PID").map { $0 == String(getpid()) } ?? true
        self.init(socket: variable("NOTIFY_SOCKET"), watchdogMicros: isOurs ? variable("WATCHDOG_USEC") : nil)
    }

    init(socket: String?, watchdogMicros: String?) {
        var name = Array((socket ?? "").utf8)
        let isAbstract = name.first == UInt8(ascii: "@")
        if isAbstract { name[0] = 0 }
        let isAddress = isAbstract || name.first == UInt8(ascii: "/")
        self.name = isAddress && name.count < MemoryLayout.size(ofValue: sockaddr_un().sun_path) ? name : nil
        self.watchdogMicros = watchdogMicros.flatMap { UInt64($0) }.flatMap { $0 > 0 ? $0 : nil }
    }

    public func ready(_ status: String) { send(["READY=1", "STATUS=\(status)"]) }

    /// Until ``ready(_:)``.
    public func reloading() {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        send(["RELOADING=1", "MONOTONIC_USEC=\(now.tv_sec * 1_000_000 + now.tv_nsec / 1000)"])
    }

    public func stopping(_ status: String) { send(["STOPPING=1", "STATUS=\(status)"]) }

    public func status(_ text: String) { send(["STATUS=\(text)"]) }

    /// The stop goes on, for at least so long.
    public func extendTimeout(micros: UInt64) { send(["EXTEND_TIMEOUT_USEC=\(micros)"]) }

    public func feedWatchdog() { send(["WATCHDOG=1"]) }

    private func send(_ fields: [String]) {
        guard let name else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let message = Array(fields.joined(separator: "\n").utf8)
        let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count)
        withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                // Whoever does not take it has gone, or will find the process silent.
                _ = sendto(
                    descriptor, message, message.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT),
                    name,
                    length)
            }
        }
    }
}
