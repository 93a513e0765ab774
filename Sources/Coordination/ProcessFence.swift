// Processes as the fence sees them (S18): who am I, is that one gone, make it be gone. A process is its pid *and* the
// moment of its start *and* the boot, so a pid that was used again is never taken for it. Another boot of this host has
// ended whatever ran before; of another host nothing can be seen and nothing confirmed from here.

internal import CHostSupport
internal import Foundation
internal import Glibc
public import LogModel

extension ProcessIdentity {
    /// This process. Throws if `/proc` does not tell.
    public static func current(node: NodeID) throws(FenceError) -> ProcessIdentity {
        guard let status = try ProcessFence.status(of: getpid()) else {
            throw FenceError("/proc/self/stat does not tell when this process began")
        }
        return ProcessIdentity(
            node: node, pid: getpid(), startTicks: status.startTicks, bootID: try ProcessFence.bootID(),
            hostID: try ProcessFence.hostID(), pidNamespace: ProcessFence.pidNamespace())
    }
}

public enum ProcessFence {
    public enum Liveness: Hashable, Sendable {
        case alive, gone
        /// It ran on another host, or where pids count otherwise, or `/proc` hides it: it cannot be seen from here and may do anything.
        case elsewhere
    }

    /// Whether the process may still do anything. A zombie has no memory and no descriptors left: gone.
    public static func liveness(of process: ProcessIdentity) throws(FenceError) -> Liveness {
        try liveness(of: process, shownBy: "/proc")
    }

    static func liveness(of process: ProcessIdentity, shownBy folder: String) throws(FenceError) -> Liveness {
        if try isElsewhere(process) { return .elsewhere }
        guard try bootID() == process.bootID else { return .gone }
        guard let status = try status(of: process.pid, in: folder) else {
            return try isTaken(process.pid) ? .elsewhere : .gone
        }
        let hasEnded = status.state == "Z" || status.state == "X"
        return status.startTicks == process.startTicks && !hasEnded ? .alive : .gone
    }

    /// Kills the process and returns once it is gone. Throws if that cannot be confirmed within `timeoutMillis`.
    /// Blocks.
    public static func kill(_ process: ProcessIdentity, timeoutMillis: Int) throws(FenceError) {
        try kill(process, timeoutMillis: timeoutMillis, shownBy: "/proc")
    }

    static func kill(_ process: ProcessIdentity, timeoutMillis: Int, shownBy folder: String) throws(FenceError) {
        guard try !isElsewhere(process) else {
            throw FenceError(
                "process \(process.pid) of \(process.node) runs on another host or in another PID namespace, where `fence: {type: process}` "
                    + "reaches nothing; if it is known to be dead, say so with `twinlog confirm-dead \(process.node)`")
        }
        guard try ProcessIdentity.current(node: process.node) != process else {
            throw FenceError(
                "process \(process.pid) of \(process.node) is this process itself, which does not fence itself")
        }
        guard try bootID() == process.bootID else { return }
        let descriptor = tl_host_pidfd_open(process.pid)
        if descriptor == -ESRCH { return }
        guard descriptor >= 0 else { throw failure(process, "cannot be opened", -descriptor) }
        defer { close(descriptor) }
        // The descriptor names one process for good; only now does the start time tell whether it is the right one.
        guard let status = try status(of: process.pid, in: folder) else {
            if tl_host_pidfd_wait(descriptor, 0) > 0 { return }
            throw FenceError(
                "process \(process.pid) of \(process.node) is hidden from this user (hidepid), if it is that one; show it, or if that node "
                    + "is known to be dead, say so with `twinlog confirm-dead \(process.node)`")
        }
        guard status.startTicks == process.startTicks else { return }
        let killed = tl_host_pidfd_kill(descriptor)
        if killed == -ESRCH { return }
        guard killed >= 0 else { throw failure(process, "cannot be killed", -killed) }
        let ended = tl_host_pidfd_wait(descriptor, CInt(clamping: timeoutMillis))
        guard ended >= 0 else { throw failure(process, "cannot be waited for", -ended) }
        guard ended > 0 else {
            throw FenceError(
                "process \(process.pid) of \(process.node) was killed, but has not ended after \(timeoutMillis) ms")
        }
    }

    private static func failure(_ process: ProcessIdentity, _ what: String, _ number: CInt) -> FenceError {
        guard number != EPERM else { return notPermitted(process, what) }
        return FenceError("process \(process.pid) of \(process.node) \(what): \(String(cString: strerror(number)))")
    }

    /// Two users run the nodes, and this one may not end what the other one started (S18).
    private static func notPermitted(_ process: ProcessIdentity, _ what: String) -> FenceError {
        var about = stat()
        let user = stat("/proc/\(process.pid)", &about) == 0 ? "user \(about.st_uid)" : "another user"
        return FenceError(
            "process \(process.pid) of \(process.node) \(what): it runs as \(user), this node as user \(geteuid()), without the capability "
                + "CAP_KILL: end that process, or give this node CAP_KILL, or run both nodes as one user; if it is known to be dead, say so with "
                + "`twinlog confirm-dead \(process.node)`")
    }

    /// Another boot of this host has ended whatever ran before. In the present one a pid means something only in its own namespace.
    private static func isElsewhere(_ process: ProcessIdentity) throws(FenceError) -> Bool {
        guard try bootID() != process.bootID else {
            guard let namespace = process.pidNamespace, let here = pidNamespace() else { return false }
            return namespace != here
        }
        guard let host = process.hostID else { return false }
        return try hostID() != host
    }

    /// `nil` where the kernel has none.
    static func pidNamespace() -> String? {
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = readlink("/proc/self/ns/pid", &bytes, bytes.count)
        return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
    }

    static func hostID() throws(FenceError) -> String {
        if let text = try smallFile("/etc/machine-id", mayBeEmpty: true), text.count > 1 {
            return String(text.prefix { $0 != "\n" })
        }
        guard let name = try smallFile("/proc/sys/kernel/hostname") else {
            throw FenceError("neither /etc/machine-id nor /proc/sys/kernel/hostname tells which host this is")
        }
        return String(name.prefix { $0 != "\n" })
    }

    static func bootID() throws(FenceError) -> String {
        guard let text = try smallFile("/proc/sys/kernel/random/boot_id") else {
            throw FenceError("/proc/sys/kernel/random/boot_id is missing")
        }
        return String(text.prefix { $0 != "\n" })
    }

    /// Whether a process has the pid, seen or not: `/proc` may hide those of other users.
    private static func isTaken(_ pid: Int32) throws(FenceError) -> Bool {
        let descriptor = tl_host_pidfd_open(pid)
        if descriptor >= 0 {
            close(descriptor)
            return true
        }
        // Of no process, or of a thread of another one.
        if descriptor == -ESRCH || descriptor == -EINVAL || descriptor == -ENOENT { return false }
        throw FenceError("process \(pid) cannot be opened: \(String(cString: strerror(-descriptor)))")
    }

    /// `nil` if there is no such process, or it is hidden. What cannot be read is not taken for that (S18).
    static func status(
        of pid: Int32, in folder: String = "/proc"
    ) throws(FenceError) -> (state: String, startTicks: UInt64)? {
        let path = "\(folder)/\(pid)/stat"
        guard let text = try smallFile(path) else { return nil }
        guard let end = text.lastIndex(of: ")") else { throw FenceError("\(path) is not as expected") }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 19, let ticks = UInt64(fields[19]) else { throw FenceError("\(path) is not as expected") }
        return (String(fields[0]), ticks)
    }

    /// `nil` if there is no such file, or its process is gone.
    private static func smallFile(_ path: String, mayBeEmpty: Bool = false) throws(FenceError) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ESRCH { return nil }
            throw FenceError("\(path) cannot be opened: \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = read(descriptor, &bytes, bytes.count)
        if count < 0 && errno == ESRCH { return nil }
        if count == 0 && mayBeEmpty { return "" }
        guard count > 0 else { throw FenceError("\(path) cannot be read: \(String(cString: strerror(errno)))") }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }
}

/// Kills processes of this host.
public struct KillingFence: Fence {
    /// How long a killed process may take to be gone before that is an error, after which the caller tries again.
    private static let timeoutMillis = 2000

    public init() {}

    public func confirmDead(
        _ process: ProcessIdentity, by node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation {
        try ProcessFence.kill(process, timeoutMillis: Self.timeoutMillis)
        return confirmation("process", node)
    }

    public func isGone(_ process: ProcessIdentity) throws(FenceError) -> Bool {
        try ProcessFence.liveness(of: process) == .gone
    }

    public func confirmEnded(
        predecessor: ProcessIdentity, of node: NodeID
    ) throws(FenceError) -> GroupRecord.Fence.Confirmation? {
        try ProcessFence.liveness(of: predecessor) == .elsewhere ? confirmation("pool", node) : nil
    }

    private func confirmation(_ method: String, _ node: NodeID) -> GroupRecord.Fence.Confirmation {
        GroupRecord.Fence.Confirmation(method: method, by: node.rawValue, at: Date.now.formatted(.iso8601))
    }
}

/// The clock that leases and timeouts run on: nanoseconds since boot, counting suspension (S17).
public enum BootClock {
    public static var now: UInt64 { tl_host_boot_nanos() }
}
