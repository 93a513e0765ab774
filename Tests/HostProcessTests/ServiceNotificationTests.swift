// What a supervisor's socket gets.

import Foundation
import Glibc
import Synchronization
import Testing

@testable import HostProcess

/// A datagram socket, as a supervisor has it.
private final class NotifySocket {
    let name: String
    private let descriptor: CInt

    init(name: String) throws {
        self.name = name
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var bytes = Array(name.utf8)
        if bytes[0] == UInt8(ascii: "@") { bytes[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count)
        let bound = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) }
        }
        try #require(bound == 0)
    }

    deinit {
        close(descriptor)
        if name.hasPrefix("/") { unlink(name) }
    }

    /// The next message; `nil` if none comes in time.
    func next(withinMillis millis: Int32 = 5000) -> [String]? {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, millis) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self).split(separator: "\n").map(String.init)
    }
}

@Suite struct ServiceNotificationTests {
    private static let names = ["@twinlog-test-\(getpid())", NSTemporaryDirectory() + "twinlog-notify-\(getpid())"]

    @Test("Each message reaches the socket that the supervisor names, abstract or not", arguments: names)
    func messages(_ name: String) throws {
        let socket = try NotifySocket(name: name)
        let notification = ServiceNotification(socket: name, watchdogMicros: nil)
        notification.ready("up")
        #expect(socket.next() == ["READY=1", "STATUS=up"])
        var before = timespec()
        clock_gettime(CLOCK_MONOTONIC, &before)
        notification.reloading()
        let reloading = try #require(socket.next())
        #expect(reloading.first == "RELOADING=1")
        let micros = try #require(reloading.last?.split(separator: "=").last.flatMap { Int($0) })
        #expect(micros >= before.tv_sec * 1_000_000 && micros < (before.tv_sec + 60) * 1_000_000)
        notification.extendTimeout(micros: 7)
        #expect(socket.next() == ["EXTEND_TIMEOUT_USEC=7"])
        notification.stopping("down")
        #expect(socket.next() == ["STOPPING=1", "STATUS=down"])
    }

    @Test("S28: a supervisor that does not read, or that is not there, holds up nothing")
    func unread() throws {
        let socket = try NotifySocket(name: "@twinlog-unread-\(getpid())")
        let begin = Date()
        for name in [
            socket.name, "@twinlog-nobody-\(getpid())", "", "relative", "/" + String(repeating: "x", count: 200),
        ] {
            let notification = ServiceNotification(socket: name, watchdogMicros: nil)
            for _ in 0..<1000 { notification.feedWatchdog() }
        }
        #expect(Date().timeIntervalSince(begin) < 10)
    }

    @Test("The watchdog is fed only as long as what it asks answers")
    func watchdog() throws {
        let socket = try NotifySocket(name: "@twinlog-watchdog-\(getpid())")
        let asked = Atomic(0)
        let late = Mutex<(@Sendable () -> Void)?>(nil)
        ServiceWatchdog.start(ServiceNotification(socket: socket.name, watchdogMicros: "60000")) { answer in
            if asked.add(1, ordering: .relaxed).newValue == 3 { late.withLock { $0 = answer } } else { answer() }
        }
        for _ in 0..<3 { #expect(socket.next() == ["WATCHDOG=1"]) }
        #expect(socket.next(withinMillis: 500) == nil, "the third question has no answer")
        late.withLock { $0 }?()
        #expect(socket.next() == ["WATCHDOG=1"])
    }
}
