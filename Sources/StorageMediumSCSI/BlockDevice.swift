// A SCSI disk of this host's kernel, by commands that pass the kernel's cache by (SG_IO).
//
// The nexus that a reservation knows is the host's, not the process': what keeps two nodes of one host apart is that the writer opens the
// device exclusively. That keeps a file system out as well.
//
// Only a whole disk will do. A partition and a device of the device mapper let SG_IO through to the disk beneath, where block 0 is another
// one.

internal import CHostSupport
internal import Glibc
internal import SCSICommands
internal import Synchronization

final class BlockDevice: UnitPath {
    private let path: String
    private let use: UnitUse
    private let state = Mutex(State())

    private struct State {
        var opened: Opened?
        var number: UInt64 = 0
    }

    private struct Opened {
        var descriptor: CInt
        var transferLimit: UInt64
    }

    /// After which the kernel ends a command itself.
    private static let commandMillis: UInt32 = 15_000
    /// What any adapter takes at once, however its memory is scattered: 64 pages and one.
    private static let mostTransferBytes: UInt64 = 256 << 10

    init(path: String, for use: UnitUse) {
        self.path = path
        self.use = use
    }

    deinit { disconnect() }

    var name: String { path }

    var transferLimit: UInt64 { state.withLock { $0.opened?.transferLimit ?? Self.mostTransferBytes } }

    // MARK: Opening

    @discardableResult
    func connect() throws(SCSIError) -> UInt64 {
        let result: Result<UInt64, SCSIError> = state.withLock { state in
            guard state.opened == nil else { return .success(state.number) }
            do throws(SCSIError) {
                state.opened = try open()
                state.number += 1
                return .success(state.number)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func open() throws(SCSIError) -> Opened {
        try checkKind()
        let descriptor = try openDescriptor(use == .writing ? O_RDWR | O_EXCL : O_RDONLY)
        var bytes: UInt64 = 0
        let result = tl_host_block_transfer(descriptor, &bytes)
        guard result == 0 else {
            close(descriptor)
            throw failure("does not tell how much it transfers", -result, .lost)
        }
        return Opened(descriptor: descriptor, transferLimit: min(Self.mostTransferBytes, max(bytes, 512)))
    }

    private func openDescriptor(_ flags: CInt) throws(SCSIError) -> CInt {
        let descriptor = Glibc.open(path, flags | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            guard errno == EBUSY else { throw failure("cannot be opened", errno, .lost) }
            throw SCSIError(.lost, "\(path): is in use on this machine, by another node or a file system")
        }
        return descriptor
    }

    /// A writer on this host has the device exclusively.
    func checkInitiatorIsFree() throws(SCSIError) { close(try openDescriptor(O_RDONLY | O_EXCL)) }

    /// By what the kernel says of it, before anything is sent there.
    private func checkKind() throws(SCSIError) {
        var status = stat()
        guard stat(path, &status) == 0 else { throw failure("cannot be looked at", errno, .lost) }
        guard status.st_mode & S_IFMT == S_IFBLK else { throw notADisk("a file, no SCSI disk") }
        let entry = "/sys/dev/block/\(tl_host_device_major(status.st_rdev)):\(tl_host_device_minor(status.st_rdev))"
        guard access(entry + "/partition", F_OK) != 0 else { throw notADisk("a partition, no whole SCSI disk") }
        guard access(entry + "/device/scsi_device", F_OK) == 0 else {
            throw notADisk("a block device, but no SCSI disk")
        }
    }

    private func notADisk(_ what: String) -> SCSIError {
        SCSIError(
            .noReservations, "\(path): is \(what), so it has no reservations, which `fence: {type: reservation}` needs")
    }

    func disconnect() {
        state.withLock { state in
            if let opened = state.opened { close(opened.descriptor) }
            state.opened = nil
        }
    }

    // MARK: Commands

    func execute(_ command: [UInt8], _ transfer: SCSITransfer) throws(SCSIError) -> Int {
        let (direction, bytes, count) = Self.parts(transfer)
        var answer = tl_host_scsi_answer()
        try during("carry out a command") { descriptor in
            tl_host_scsi_command(
                descriptor, command, UInt8(command.count), direction, bytes, UInt32(count), Self.commandMillis, &answer)
        }
        let status = SCSIStatus(
            status: answer.status, senseKey: answer.sense_key, additionalSense: answer.additional_sense,
            qualifier: answer.qualifier)
        if let error = status.error(of: command, on: path) { throw error }
        guard answer.host_status == 0 else {
            drop()
            throw SCSIError(.lost, "\(path): the kernel gave a command up (host status \(answer.host_status))")
        }
        guard case .into = transfer else { return 0 }
        return count - min(count, Int(answer.residual))
    }

    private static func parts(_ transfer: SCSITransfer) -> (CInt, UnsafeMutableRawPointer?, Int) {
        switch transfer {
        case .none: (CInt(TL_HOST_SCSI_NONE), nil, 0)
        case .out(let bytes):
            (CInt(TL_HOST_SCSI_OUT), UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
        case .into(let buffer): (CInt(TL_HOST_SCSI_INTO), buffer.baseAddress, buffer.count)
        }
    }

    func resetUnit() throws(SCSIError) { try during("reset the unit", tl_host_scsi_reset) }

    /// With the descriptor, which stays open meanwhile.
    private func during(_ what: String, _ body: (CInt) -> CInt) throws(SCSIError) {
        let result: CInt? = state.withLock { state in state.opened.map { body($0.descriptor) } }
        guard let result else { throw SCSIError(.lost, "\(path): is not open") }
        guard result < 0 else { return }
        switch -result {
        case EPERM, EACCES:
            throw SCSIError(
                .failed,
                "\(path): may not be sent commands: this needs the capabilities CAP_SYS_RAWIO and CAP_SYS_ADMIN")
        case ENOTTY, EOPNOTSUPP, EINVAL: throw failure("cannot \(what)", -result, .failed)
        default:
            drop()
            throw failure("cannot \(what)", -result, .lost)
        }
    }

    /// The next way has another number.
    private func drop() { disconnect() }

    private func failure(_ what: String, _ number: CInt, _ code: SCSIError.Code) -> SCSIError {
        SCSIError(code, "\(path): \(what): \(String(cString: strerror(number)))")
    }
}
