// A logical unit as a medium. What a file's exclusive lock is for a file, a persistent reservation is here: who opens
// the medium takes it from everybody else, and whoever it was taken from is refused by the target itself (S18).
//
// Writes are plain WRITE commands, zeros too: a reservation holds WRITE back on every target, and some let WRITE SAME through (tgt 1.0.85).
//
// A session that is lost may have left commands at the unit, and a kernel that gives a command up may have done so. Before anything is written over the next one, the unit is reset, which ends
// them, and the hold is verified: a unit that forgot the reservation, or gave it to another, is written to no more. What was written and
// not flushed before counts as lost then (S8).

public import LogModel
public import SCSICommands
public import StorageMedium
internal import Synchronization

public final class UnitMedium: Medium {
    public let sizeBytes: UInt64
    public let identity: UUID128
    private let address: UnitAddress
    private let reader: UnitReader
    private let writer: Mutex<Writer>

    /// What is known of the medium's one writer.
    private struct Writer {
        let unit: LogicalUnit
        let device: any UnitPath
        /// `nil` once it is released.
        var hold: ExclusiveHold?
        /// The session that the hold was verified for; `nil` if it has to be verified again.
        var session: UInt64?
        var hasUnflushed = false
    }

    /// Who opens media of a cluster.
    public struct Opener: Sendable {
        let me: KeyHolder
        let all: [KeyHolder]

        /// `nodes`: of the cluster, `me` among them.
        public init(_ me: NodeID, of nodes: [NodeID], cluster: String) {
            self.me = KeyHolder(me, of: cluster)
            all = nodes.map { KeyHolder($0, of: cluster) }
        }

        /// The name that targets know this node by.
        public var initiator: String { me.initiatorName }

        /// A way to the unit that is open, for reading and for commands of a fence. Blocks.
        public func connect(to address: UnitAddress) throws(SCSIError) -> any SCSIDevice {
            try path(to: address, for: .reading)
        }

        func path(to address: UnitAddress, for use: UnitUse) throws(SCSIError) -> any UnitPath {
            let path = UnitPaths.path(to: address, for: use, initiator: initiator)
            try path.connect()
            try path.clearAttentions()
            return path
        }
    }

    // MARK: Opening

    /// Opens the unit, checks it with `admit`, which is told its identity, and takes it. Blocks.
    public static func take(
        _ address: UnitAddress, sizeBytes: UInt64, as opener: Opener,
        admit: (UUID128) throws(MediumError) -> Void
    ) throws(MediumError) -> UnitMedium {
        let device = try onUnit(.open) { () throws(SCSIError) in try opener.path(to: address, for: .writing) }
        let (unit, identity) = try open(address, device, sizeBytes: sizeBytes)
        try admit(identity)
        let (hold, session) = try onUnit(.open) { () throws(SCSIError) in
            (try ExclusiveHold.take(device, as: opener.me, of: opener.all), try device.connect())
        }
        return UnitMedium(
            address, sizeBytes, identity,
            Writer(unit: unit, device: device, hold: hold, session: session),
            UnitReader(address, initiator: opener.initiator))
    }

    private init(
        _ address: UnitAddress, _ sizeBytes: UInt64, _ identity: UUID128, _ writer: sending Writer,
        _ reader: UnitReader
    ) {
        self.address = address
        self.sizeBytes = sizeBytes
        self.identity = identity
        self.writer = Mutex(writer)
        self.reader = reader
    }

    private static func open(
        _ address: UnitAddress, _ device: any UnitPath, sizeBytes: UInt64
    ) throws(MediumError) -> (LogicalUnit, UUID128) {
        let (unit, identity) = try onUnit(.open) { () throws(SCSIError) in
            let unit = try LogicalUnit(device)
            return (unit, try unit.identity(of: address))
        }
        try check(unit, address, sizeBytes)
        return (unit, identity)
    }

    static func check(_ unit: LogicalUnit, _ address: UnitAddress, _ sizeBytes: UInt64) throws(MediumError) {
        // Whole blocks at its end: a part of one would be read and written back with what lies behind the volume.
        guard unit.sizeBytes >= sizeBytes, sizeBytes % unit.blockBytes == 0 else {
            throw MediumError(
                .wrongSize,
                "\(address): is \(unit.sizeBytes) bytes in blocks of \(unit.blockBytes), but the configuration says \(sizeBytes)"
            )
        }
    }

    /// Ends the hold: another node need not take it away. A target that cannot be reached leaves it to that node. Nobody may use the medium
    /// any more.
    public func release() {
        writer.withLock { writer in
            defer { writer.device.disconnect() }
            guard let hold = writer.hold else { return }
            writer.hold = nil
            // Whoever takes the medium next removes what stays, with the commands that it left.
            _ = Result { () throws(SCSIError) in try hold.release() }
        }
    }

    // MARK: Reading

    private func check(_ offset: UInt64, _ length: UInt64) throws(MediumError) {
        guard offset <= sizeBytes, length <= sizeBytes - offset else {
            throw MediumError(.outOfRange, "\(address): \(length) bytes at \(offset) are outside of \(sizeBytes) bytes")
        }
    }

    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(MediumError) {
        try check(offset, UInt64(buffer.count))
        try Self.onUnit(.read) { () throws(SCSIError) in
            try reader.reading { unit throws(SCSIError) in try unit.readBytes(into: buffer, at: offset) }
        }
    }

    // MARK: Writing

    public func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(MediumError) {
        let length = buffers.reduce(0) { $0 + UInt64($1.count) }
        try check(offset, length)
        guard length > 0 else { return }
        try writing(.write) { unit throws(SCSIError) in try unit.writeBytes(ByteGather(buffers), at: offset) }
    }

    public func zero(_ range: ByteRange, releasingSpace: Bool) throws(MediumError) {
        try check(range.offset, range.length)
        guard !range.isEmpty else { return }
        try writing(.discard) { unit throws(SCSIError) in
            try unit.writeBytes(ByteGather(zeros: range.length), at: range.offset)
        }
    }

    public func flush() throws(MediumError) {
        try writing(.flush) { unit throws(SCSIError) in try unit.flush() }
    }

    private func writing(
        _ code: MediumError.Code, _ body: (LogicalUnit) throws(SCSIError) -> Void
    ) throws(MediumError) {
        let result = writer.withLock { writer in
            Result { () throws(MediumError) in try Self.write(&writer, code, address, body) }
        }
        try result.get()
    }

    private static func write(
        _ writer: inout Writer, _ code: MediumError.Code, _ address: UnitAddress,
        _ body: (LogicalUnit) throws(SCSIError) -> Void
    ) throws(MediumError) {
        guard let hold = writer.hold else { throw MediumError(code, "\(address): is released") }
        let isClean = !writer.hasUnflushed
        do throws(MediumError) {
            try onUnit(code) { () throws(SCSIError) in
                try resume(&writer, hold)
                writer.hasUnflushed = true
                do throws(SCSIError) {
                    try body(writer.unit)
                } catch {
                    try heed(error, isClean: isClean, &writer, hold)
                    try body(writer.unit)
                }
            }
            writer.hasUnflushed = code != .flush
        } catch {
            // Everything since the last flush is written anew (S8).
            writer.hasUnflushed = false
            throw error
        }
    }

    /// If the session is new since the hold was verified. Nothing is unflushed: the call that lost the one before has failed, or is here.
    private static func resume(_ writer: inout Writer, _ hold: ExclusiveHold) throws(SCSIError) {
        let session = try writer.device.connect()
        guard session != writer.session else { return }
        try writer.device.resetUnit()
        try writer.device.clearAttentions()
        try hold.verify()
        writer.session = session
    }

    /// Returns if what failed so may be tried once more: nothing is unflushed (S8), and the unit did not carry it out, or the session was
    /// idle and is gone. The bytes are the same.
    private static func heed(
        _ error: SCSIError, isClean: Bool, _ writer: inout Writer, _ hold: ExclusiveHold
    ) throws(SCSIError) {
        switch error.code {
        case .unitAttention:
            try verifyAgain(&writer, hold)
            guard isClean else { throw error }
        case .lost:
            guard isClean else { throw error }
            try resume(&writer, hold)
        case .reservationConflict, .illegalRequest, .noUnit, .noReservations, .malformed, .failed: throw error
        }
    }

    /// Whatever a unit attention tells, the registration may have gone with it: by a reset, by another node, or because another unit has
    /// taken the place of this one (S18). Until it is verified nothing is written.
    private static func verifyAgain(_ writer: inout Writer, _ hold: ExclusiveHold) throws(SCSIError) {
        let session = writer.session
        writer.session = nil
        try writer.device.clearAttentions()
        try hold.verify()
        writer.session = session
    }

    /// A conflict says that another node took the medium; a unit without reservations is none; everything else is a medium that fails, and
    /// may be there later.
    static func onUnit<Answer>(
        _ code: MediumError.Code, _ body: () throws(SCSIError) -> Answer
    ) throws(MediumError) -> Answer {
        do throws(SCSIError) {
            return try body()
        } catch {
            switch error.code {
            case .reservationConflict: throw MediumError(.fenced, error.message)
            case .noReservations: throw MediumError(.notAMedium, error.message)
            case .illegalRequest, .noUnit, .unitAttention, .lost, .malformed, .failed:
                throw MediumError(code, error.message)
            }
        }
    }
}
