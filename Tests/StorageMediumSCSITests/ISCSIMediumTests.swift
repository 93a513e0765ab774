// A logical unit of a real target (tgtd) as a medium: its bytes, its exclusive hold, and what becomes of both when sessions or targets go.

import Foundation
import Glibc
import ISCSISupport
import LogModel
import SCSICommands
import StorageMedium
import TestSupport
import Testing

@testable import StorageMediumSCSI

@Suite(.serialized, .enabled(if: TargetServer.isInstalled, "there is no tgtd: install tgt"), .timeLimit(.minutes(5)))
struct ISCSIMediumTests {
    static let sizeBytes: UInt64 = 8 << 20
    let folder: Folder
    let server: TargetServer

    init() throws {
        folder = try Folder()
        server = try TargetServer(in: folder.path, unitBytes: [Self.sizeBytes, Self.sizeBytes])
    }

    private func opener(_ node: String) -> UnitMedium.Opener {
        UnitMedium.Opener(NodeID(node), of: [NodeID("alpha"), NodeID("beta")], cluster: "test")
    }

    private func take(_ node: String, lun: Int = 1, sizeBytes: UInt64 = sizeBytes) throws -> UnitMedium {
        try UnitMedium.take(.iscsi(server.address(lun)), sizeBytes: sizeBytes, as: opener(node)) { _ in }
    }

    private func onDisk(_ lun: Int = 1) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(fileURLWithPath: server.backing(lun))))
    }

    private func keys(_ lun: Int = 1) throws -> [ReservationKey] {
        try PersistentReservations(opener("alpha").connect(to: .iscsi(server.address(lun)))).keys()
    }

    private func code(_ body: () throws -> Void) throws -> MediumError.Code {
        try #require(throws: MediumError.self) { try body() }.code
    }

    @Test("What is written anywhere is read, and is in the target's file after a flush; zeros are zeros")
    func bytes() throws {
        let medium = try take("alpha")
        var generator = SplitMix64(seed: 11)
        var model = [UInt8](repeating: 0, count: Int(Self.sizeBytes))
        for _ in 0..<40 {
            let offset = Int.random(in: 0..<model.count - 1, using: &generator)
            let length = Int.random(in: 1...min(3 << 20, model.count - offset), using: &generator)
            let bytes = [UInt8](repeating: UInt8.random(in: 1...255, using: &generator), count: length)
            try bytes.withUnsafeBytes { try medium.write([$0], at: UInt64(offset)) }
            model.replaceSubrange(offset..<offset + length, with: bytes)
        }
        try medium.zero(ByteRange(offset: 5000, length: 2 << 20), releasingSpace: true)
        model.replaceSubrange(5000..<5000 + (2 << 20), with: [UInt8](repeating: 0, count: 2 << 20))
        try medium.flush()
        #expect(try onDisk() == model)
        #expect(try medium.bytes(at: 4999, count: (2 << 20) + 9) == Array(model[4999..<5008 + (2 << 20)]))
        #expect(try code { _ = try medium.bytes(at: Self.sizeBytes - 1, count: 2) } == .outOfRange)
        #expect(
            try code { try medium.zero(ByteRange(offset: Self.sizeBytes, length: 1), releasingSpace: true) }
                == .outOfRange)
    }

    @Test("S18: the node from which the medium was taken is refused by the target, and what it writes changes nothing")
    func takenOver() throws {
        let old = try take("alpha")
        try [UInt8](repeating: 1, count: 4096).withUnsafeBytes { try old.write([$0], at: 0) }
        try old.flush()
        let new = try take("beta")
        #expect(try keys().count == 1)
        #expect(
            try code { try [UInt8](repeating: 2, count: 4096).withUnsafeBytes { try old.write([$0], at: 0) } }
                == .fenced)
        #expect(try code { try old.zero(ByteRange(offset: 0, length: 4096), releasingSpace: true) } == .fenced)
        #expect(try code { try old.flush() } == .fenced)
        #expect(try onDisk()[0..<4096].allSatisfy { $0 == 1 })
        #expect(try old.bytes(at: 0, count: 1) == [1], "reads take nothing away")
        try [UInt8](repeating: 3, count: 4096).withUnsafeBytes { try new.write([$0], at: 0) }
        old.release()
        try new.flush()
        #expect(try onDisk()[0..<4096].allSatisfy { $0 == 3 })
    }

    @Test("A released medium is nobody's")
    func released() throws {
        let medium = try take("alpha")
        #expect(try keys().count == 1)
        medium.release()
        #expect(try keys() == [])
        #expect(throws: MediumError.self) { try medium.flush() }
    }

    @Test(
        "S18: a target that restarts forgets its reservations: the owner writes no more until it takes the medium anew")
    func targetRestarts() throws {
        let medium = try take("alpha")
        try [UInt8](repeating: 1, count: 512).withUnsafeBytes { try medium.write([$0], at: 0) }
        try medium.flush()
        server.stop()
        #expect(try code { try medium.flush() } != .fenced)
        #expect(throws: MediumError.self) { try medium.bytes(at: 0, count: 512) }
        try server.start()
        #expect(try medium.bytes(at: 0, count: 1) == [1])
        #expect(
            try code { try [UInt8](repeating: 2, count: 512).withUnsafeBytes { try medium.write([$0], at: 0) } }
                == .fenced)
        #expect(try onDisk()[0] == 1)
        medium.release()
        let again = try take("alpha")
        try [UInt8](repeating: 2, count: 512).withUnsafeBytes { try again.write([$0], at: 0) }
        try again.flush()
        #expect(try onDisk()[0] == 2)
    }

    @Test("S8: a flush over another session than the writes before it fails: they are written anew")
    func lostBeforeFlush() throws {
        let medium = try take("alpha")
        try [UInt8](repeating: 1, count: 512).withUnsafeBytes { try medium.write([$0], at: 0) }
        server.stop()
        try server.start()
        #expect(throws: MediumError.self) { try medium.flush() }
    }

    @Test("S18: another unit in the place of the one that was taken is not written to")
    func unitReplaced() throws {
        let medium = try take("alpha")
        try [UInt8](repeating: 1, count: 512).withUnsafeBytes { try medium.write([$0], at: 0) }
        try medium.flush()
        try server.replaceUnit(1)
        // tgtd tells what changed at a target to the units that were there before: REPORTED LUNS DATA HAS CHANGED.
        try server.replaceUnit(2)
        #expect(
            try code { try [UInt8](repeating: 2, count: 512).withUnsafeBytes { try medium.write([$0], at: 0) } }
                == .fenced)
        #expect(try onDisk()[0] == 1)
    }

    @Test("S8: after a reset of the unit a flush fails: what was written before it is written anew; the hold stays")
    func resetBeforeFlush() throws {
        let medium = try take("alpha")
        try [UInt8](repeating: 1, count: 512).withUnsafeBytes { try medium.write([$0], at: 0) }
        try opener("beta").connect(to: .iscsi(server.address())).resetUnit()
        #expect(try code { try medium.flush() } == .flush)
        try [UInt8](repeating: 2, count: 512).withUnsafeBytes { try medium.write([$0], at: 0) }
        try medium.flush()
        try opener("beta").connect(to: .iscsi(server.address())).resetUnit()
        try medium.flush()
        #expect(try onDisk()[0] == 2)
    }

    @Test("S18: every session of one opening logs in from one initiator port, another opening from another")
    func initiatorPort() throws {
        let listener = try LoginListener()
        defer { listener.stop() }
        let address = ISCSIAddress(
            portal: TCPAddress(host: "127.0.0.1", port: Int(listener.port)), target: TargetServer.target, lun: 1)
        let (device, other) = (
            ISCSIDevice(address, initiator: opener("alpha").initiator),
            ISCSIDevice(address, initiator: opener("alpha").initiator)
        )
        let ports = try [device, device, other].map { device in
            #expect(throws: SCSIError.self, "the listener ends it") { try device.connect() }
            return try listener.takePort()
        }
        #expect(ports[0] == ports[1])
        #expect(ports[0] != ports[2])
    }

    @Test("The sessions' sockets end with this process: no program that it starts inherits them")
    func closeOnExec() throws {
        let medium = try take("alpha")
        _ = try medium.bytes(at: 0, count: 1)
        let sessions = (0..<CInt(1024)).filter { isConnected($0, to: server.port) }
        #expect(sessions.count >= 2)
        for socket in sessions { #expect(fcntl(socket, F_GETFD) & FD_CLOEXEC != 0) }
    }

    private func isConnected(_ socket: CInt, to port: UInt16) -> Bool {
        var name = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutableBytes(of: &name) { bytes in
            getpeername(socket, bytes.assumingMemoryBound(to: sockaddr.self).baseAddress!, &size)
        }
        return result == 0 && name.sin_family == sa_family_t(AF_INET) && UInt16(bigEndian: name.sin_port) == port
    }

    @Test("A target that is not there, or does not answer, is an error in time, by its address")
    func unreachable() throws {
        let medium = try take("alpha")
        server.signal(SIGSTOP)
        let began = Date()
        let failure = try #require(throws: MediumError.self) { try take("beta") }
        #expect(failure.message.contains("\(server.address())"))
        #expect(Date().timeIntervalSince(began) < 10)
        server.signal(SIGCONT)
        try medium.flush()
        server.stop()
        #expect(throws: MediumError.self) { try take("beta") }
    }

    @Test("What is no medium of this size is refused by name; a unit that is missing, too")
    func refused() throws {
        #expect(try code { _ = try take("alpha", sizeBytes: Self.sizeBytes * 2) } == .wrongSize)
        #expect(try code { _ = try take("alpha", sizeBytes: 1000) } == .wrongSize)
        let missing = try #require(throws: MediumError.self) { try take("alpha", lun: 9) }
        #expect(missing.code == .open && missing.message.contains("the unit is not there"), "it may come yet")
        #expect(try keys() == [])
    }

    @Test("S18: units are told from each other, and a look changes nothing")
    func look() throws {
        let identities = try [1, 2].map { lun in
            try UnitMedium.Look(.iscsi(server.address(lun)), as: opener("beta")).check(sizeBytes: Self.sizeBytes)
        }
        #expect(identities[0] != identities[1])
        let medium = try take("alpha")
        #expect(medium.identity == identities[0])
        try [UInt8](repeating: 5, count: 512).withUnsafeBytes { try medium.write([$0], at: 512) }
        let look = UnitMedium.Look(.iscsi(server.address()), as: opener("beta"))
        #expect(try look.read(ByteRange(offset: 510, length: 4)) == [0, 0, 5, 5])
        #expect(try code { _ = try look.read(ByteRange(offset: Self.sizeBytes, length: 1)) } == .outOfRange)
        try [UInt8](repeating: 6, count: 512).withUnsafeBytes { try medium.write([$0], at: 512) }
        #expect(try look.read(ByteRange(offset: 512, length: 1)) == [6])
    }
}

extension Medium {
    func bytes(at offset: UInt64, count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        try bytes.withUnsafeMutableBytes { try read(into: $0, at: offset) }
        return bytes
    }
}
