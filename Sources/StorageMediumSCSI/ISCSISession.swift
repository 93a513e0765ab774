// One session with a target, over libiscsi. Every call waits for its own answer, and no longer than its time: libiscsi's waits of its own
// have no end. A session that lost an answer is never used again.

internal import CHostSupport
internal import Clibiscsi
internal import Glibc
internal import LogModel
internal import SCSICommands

/// Used by one thread at a time.
final class ISCSISession {
    /// A target that does not answer a login, or a command that says nothing of blocks.
    static let loginMillis: UInt64 = 3000
    /// The flush of a whole batch on a slow disk takes up to ten seconds.
    static let commandMillis: UInt64 = 15_000

    private let address: ISCSIAddress
    private let context: OpaquePointer
    private var isLost = false
    /// libiscsi tells the end of the connection to whoever asked for it, so it lives as long as the context.
    private let connection = Pending()

    /// Connects and logs in as initiator `name`; a target takes two sessions of one `name` and one `port` for the same initiator port, and
    /// ends the older one.
    init(_ address: ISCSIAddress, name: String, port: UInt32) throws(SCSIError) {
        guard let context = iscsi_create_context(name) else { throw SCSIError(.failed, "\(address): no memory") }
        self.address = address
        self.context = context
        iscsi_set_noautoreconnect(context, 1)
        iscsi_set_session_type(context, ISCSI_SESSION_NORMAL)
        iscsi_set_header_digest(context, ISCSI_HEADER_DIGEST_NONE_CRC32C)
        iscsi_set_isid_random(context, port & 0xFF_FFFF, 0)
        guard iscsi_set_targetname(context, address.target) == 0 else { throw failure("cannot be named") }
        let deadline = Self.deadline(after: Self.loginMillis)
        try begin("be connected to") { iscsi_connect_async(context, address.portal.description, Self.done, $0) }
        // A fence agent must not keep the session alive.
        guard fcntl(iscsi_get_fd(context), F_SETFD, FD_CLOEXEC) == 0 else { throw failure("has no socket") }
        try wait(for: connection, until: deadline, "a connection")
        guard connection.status == Self.good else { throw failure("cannot be connected to") }
        let login = Pending()
        guard iscsi_login_async(context, Self.done, login.pointer) == 0 else { throw failure("cannot be logged in to") }
        try wait(for: login, until: deadline, "a login")
        guard login.status == Self.good else { throw failure("refuses the login") }
    }

    deinit { iscsi_destroy_context(context) }

    // MARK: Commands

    /// Answers how many bytes came; they are in the transfer's buffer.
    func execute(_ command: [UInt8], _ transfer: SCSITransfer) throws(SCSIError) -> Int {
        var command = command
        let (direction, count) = Self.direction(transfer)
        guard let task = scsi_create_task(CInt(command.count), &command, direction, CInt(count)) else {
            throw SCSIError(.failed, "\(address): no memory")
        }
        let pending = Pending(task)
        var data = iscsi_data()
        if case .out(let bytes) = transfer {
            data.size = bytes.count
            data.data = UnsafeMutableRawPointer(mutating: bytes.baseAddress)?.assumingMemoryBound(to: UInt8.self)
        }
        // Without bytes the address is none, by which libiscsi knows.
        let isBegun = iscsi_scsi_command_async(
            context, CInt(address.lun), task, Self.done, &data, pending.pointer)
        guard isBegun == 0 else { throw lost("does not take a command") }
        try wait(for: pending, until: Self.deadline(after: Self.commandMillis), "an answer")
        try check(pending, command)
        guard case .into(let buffer) = transfer else { return 0 }
        return pending.copyAnswer(into: buffer)
    }

    private func check(_ pending: Pending, _ command: [UInt8]) throws(SCSIError) {
        guard let status = UInt8(exactly: pending.status) else { throw lost("lost a command") }
        if let error = pending.sense(status).error(of: command, on: address.description) { throw error }
    }

    func resetUnit() throws(SCSIError) {
        let pending = Pending()
        let isBegun = iscsi_task_mgmt_lun_reset_async(context, UInt32(address.lun), Self.responded, pending.pointer)
        guard isBegun == 0 else { throw lost("does not take a reset") }
        try wait(for: pending, until: Self.deadline(after: Self.commandMillis), "the answer to a reset")
        guard pending.status == Self.good, pending.response == ISCSI_TMR_FUNC_COMPLETE.rawValue else {
            throw SCSIError(.failed, "\(address): does not reset the unit (response \(pending.response))")
        }
    }

    private static func direction(_ transfer: SCSITransfer) -> (CInt, Int) {
        switch transfer {
        case .none: (CInt(SCSI_XFER_NONE.rawValue), 0)
        case .out(let bytes): (CInt(SCSI_XFER_WRITE.rawValue), bytes.count)
        case .into(let buffer): (CInt(SCSI_XFER_READ.rawValue), buffer.count)
        }
    }

    // MARK: Waiting

    private static let good = CInt(SCSI_STATUS_GOOD.rawValue)

    private static func deadline(after millis: UInt64) -> UInt64 { tl_host_boot_nanos() + millis * 1_000_000 }

    /// libiscsi calls back from within `iscsi_service` and `iscsi_destroy_context`, on the thread that is in there.
    private static let done: iscsi_command_cb = { _, status, _, pending in Pending.of(pending).end(status) }

    private static let responded: iscsi_command_cb = { _, status, response, pending in
        Pending.of(pending).response = response?.loadUnaligned(as: UInt32.self) ?? .max
        Pending.of(pending).end(status)
    }

    private func begin(_ what: String, _ call: (UnsafeMutableRawPointer) -> CInt) throws(SCSIError) {
        guard call(connection.pointer) == 0 else { throw failure("cannot \(what)") }
    }

    private func wait(for pending: Pending, until deadline: UInt64, _ what: String) throws(SCSIError) {
        while !pending.hasEnded {
            guard !isLost else {
                abandon(pending)
                throw lost("lost the session")
            }
            let now = tl_host_boot_nanos()
            guard now < deadline else {
                abandon(pending)
                throw lost("gave no sign of \(what) in time")
            }
            var descriptor = pollfd(
                fd: iscsi_get_fd(context), events: Int16(truncatingIfNeeded: iscsi_which_events(context)), revents: 0)
            let left = CInt(clamping: min((deadline - now) / 1_000_000 + 1, 1000))
            let count = poll(&descriptor, 1, left)
            guard count >= 0 || errno == EINTR else {
                abandon(pending)
                throw lost("cannot be waited for: \(String(cString: strerror(errno)))")
            }
            if iscsi_service(context, count > 0 ? CInt(descriptor.revents) : 0) < 0 { isLost = true }
            if isLost, !pending.hasEnded { abandon(pending) }
        }
    }

    /// What was begun and has not ended is libiscsi's until the context goes.
    private var abandoned: [Pending] = []

    private func abandon(_ pending: Pending) {
        isLost = true
        if pending !== connection { abandoned.append(pending) }
    }

    private func lost(_ what: String) -> SCSIError {
        isLost = true
        return SCSIError(.lost, "\(address): \(what)\(reason)")
    }

    private func failure(_ what: String) -> SCSIError { SCSIError(.lost, "\(address): \(what)\(reason)") }

    /// In libiscsi's words, on one line.
    private var reason: String {
        let text = iscsi_get_error(context).map { String(cString: $0) } ?? ""
        let words = text.split(whereSeparator: \.isNewline).joined(separator: " ").prefix(200)
        return words.isEmpty ? "" : ": \(words)"
    }
}

/// What waits for one callback. Lives until libiscsi has called back, or its context is gone.
private final class Pending {
    private(set) var status: CInt = 0
    private(set) var hasEnded = false
    var response: UInt32 = .max
    private let task: UnsafeMutablePointer<scsi_task>?

    init(_ task: UnsafeMutablePointer<scsi_task>? = nil) { self.task = task }

    deinit { if let task { scsi_free_scsi_task(task) } }

    var pointer: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

    static func of(_ pointer: UnsafeMutableRawPointer?) -> Pending {
        guard let pointer else { preconditionFailure("every call is given what waits for it") }
        return Unmanaged<Pending>.fromOpaque(pointer).takeUnretainedValue()
    }

    func end(_ status: CInt) {
        // A connection ends twice: when it is up, and when it is lost.
        guard !hasEnded else { return }
        self.status = status
        hasEnded = true
    }

    func sense(_ status: UInt8) -> SCSIStatus {
        guard let sense = task?.pointee.sense else { return SCSIStatus(status: status) }
        return SCSIStatus(
            status: status, senseKey: UInt8(truncatingIfNeeded: sense.key.rawValue),
            additionalSense: UInt8(truncatingIfNeeded: sense.ascq >> 8),
            qualifier: UInt8(truncatingIfNeeded: sense.ascq))
    }

    /// As much as came and there is room for.
    func copyAnswer(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        guard let answer = task?.pointee.datain, let bytes = answer.data else { return 0 }
        let count = min(Int(answer.size), buffer.count)
        guard count > 0 else { return 0 }
        buffer.copyMemory(from: UnsafeRawBufferPointer(start: bytes, count: count))
        return count
    }
}
