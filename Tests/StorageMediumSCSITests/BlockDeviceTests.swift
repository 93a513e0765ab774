// Disks of this host's kernel as media. What needs a disk with persistent reservations runs in the guest of `make test-pmem`, which has one
// unit behind two adapters: two hosts, as far as the unit knows.

import Coordination
import FenceReservation
import Foundation
import Glibc
import LogModel
import SCSICommands
import StorageMedium
import TestSupport
import Testing

@testable import StorageMediumSCSI

/// The unit's devices, one for each of two hosts.
private let devices =
    getenv("TWINLOG_SCSI_DEVICES").map { String(cString: $0).split(separator: ":").map(String.init) } ?? []

private func opener(_ node: String) -> UnitMedium.Opener {
    UnitMedium.Opener(NodeID(node), of: [NodeID("alpha"), NodeID("beta")], cluster: "test")
}

struct BlockDeviceKindTests {
    private func refusal(_ path: String) throws -> MediumError {
        try #require(throws: MediumError.self) {
            try UnitMedium.Look(.device(path: path), as: opener("alpha")).check(sizeBytes: 4096)
        }
    }

    @Test("A file is no SCSI disk, which no waiting mends; what is not there may come yet")
    func kinds() throws {
        let folder = try Folder()
        let file = folder.path + "/medium"
        try Data(count: 4096).write(to: URL(fileURLWithPath: file))
        let refused = try refusal(file)
        #expect(refused.code == .notAMedium)
        #expect(
            refused.message
                == "\(file): is a file, no SCSI disk, so it has no reservations, which `fence: {type: reservation}` needs"
        )
        let missing = try refusal(folder.path + "/missing")
        #expect(missing.code == .open)
        #expect(missing.message == "\(folder.path)/missing: cannot be looked at: No such file or directory")
    }

    @Test("A block device of another kind is no SCSI disk, nor is a partition of one")
    func otherDevices() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: "/sys/class/block")
        for name in names where access("/dev/" + name, F_OK) == 0 {
            let entry = "/sys/class/block/" + name
            let isPartition = access(entry + "/partition", F_OK) == 0
            guard isPartition || access(entry + "/device/scsi_device", F_OK) != 0 else { continue }
            #expect(try refusal("/dev/" + name).code == .notAMedium, "\(name)")
        }
    }
}

@Suite(.serialized, .enabled(if: devices.count == 2, "no disk with reservations is named by TWINLOG_SCSI_DEVICES"))
struct OnLogicalUnitTests {
    static let sizeBytes: UInt64 = 8 << 20

    private func address(_ node: String) -> UnitAddress { .device(path: devices[node == "alpha" ? 0 : 1]) }

    private func take(_ node: String) throws -> UnitMedium {
        try UnitMedium.take(address(node), sizeBytes: Self.sizeBytes, as: opener(node)) { _ in }
    }

    private func onDisk(_ offset: UInt64 = 0, count: UInt64 = 1) throws -> [UInt8] {
        try UnitMedium.Look(address("beta"), as: opener("beta")).read(ByteRange(offset: offset, length: count))
    }

    private func keys() throws -> [ReservationKey] {
        try PersistentReservations(opener("beta").connect(to: address("beta"))).keys()
    }

    private func code(_ body: () throws -> Void) throws -> MediumError.Code {
        try #require(throws: MediumError.self) { try body() }.code
    }

    private func write(_ byte: UInt8, to medium: UnitMedium, count: Int = 4096) throws {
        try [UInt8](repeating: byte, count: count).withUnsafeBytes { try medium.write([$0], at: 0) }
    }

    /// Of a program that does not ask for a registration. The error's number, 0 if it was written.
    private func writePlainly(to path: String) -> CInt {
        let descriptor = open(path, O_WRONLY | O_SYNC)
        guard descriptor >= 0 else { return errno }
        defer { close(descriptor) }
        return pwrite(descriptor, [UInt8](repeating: 9, count: 4096), 4096, 0) == 4096 ? 0 : errno
    }

    @Test("What is written anywhere is read, by another host too; zeros are zeros")
    func bytes() throws {
        let medium = try take("alpha")
        defer { medium.release() }
        var generator = SplitMix64(seed: 11)
        var model = [UInt8](repeating: 0, count: Int(Self.sizeBytes))
        try medium.zero(ByteRange(offset: 0, length: Self.sizeBytes), releasingSpace: false)
        for _ in 0..<20 {
            let offset = Int.random(in: 0..<model.count - 1, using: &generator)
            let length = Int.random(in: 1...min(3 << 20, model.count - offset), using: &generator)
            let bytes = [UInt8](repeating: UInt8.random(in: 1...255, using: &generator), count: length)
            try bytes.withUnsafeBytes { try medium.write([$0], at: UInt64(offset)) }
            model.replaceSubrange(offset..<offset + length, with: bytes)
        }
        try medium.zero(ByteRange(offset: 5000, length: 2 << 20), releasingSpace: true)
        model.replaceSubrange(5000..<5000 + (2 << 20), with: [UInt8](repeating: 0, count: 2 << 20))
        try medium.flush()
        #expect(try medium.bytes(at: 4999, count: (2 << 20) + 9) == Array(model[4999..<5008 + (2 << 20)]))
        #expect(try onDisk(count: Self.sizeBytes) == model)
    }

    @Test("Both hosts know the unit by one identity")
    func identity() throws {
        let identities = try ["alpha", "beta"].map {
            try UnitMedium.Look(address($0), as: opener($0)).check(sizeBytes: Self.sizeBytes)
        }
        #expect(identities[0] == identities[1])
    }

    @Test("S18: the host from which the medium was taken is refused by the unit, and what it writes changes nothing")
    func takenOver() throws {
        let old = try take("alpha")
        try write(1, to: old)
        try old.flush()
        let new = try take("beta")
        #expect(try keys().count == 1)
        #expect(try code { try write(2, to: old) } == .fenced)
        #expect(try code { try old.zero(ByteRange(offset: 0, length: 4096), releasingSpace: true) } == .fenced)
        #expect(try code { try old.flush() } == .fenced)
        #expect(writePlainly(to: devices[0]) != 0)
        #expect(try onDisk() == [1])
        #expect(try old.bytes(at: 0, count: 1) == [1], "reads take nothing away")
        try write(3, to: new)
        old.release()
        try new.flush()
        #expect(try onDisk() == [3])
        new.release()
        #expect(try keys() == [])
    }

    @Test("S18: a host that never asked is kept out while somebody has the medium")
    func stranger() throws {
        let medium = try take("beta")
        try write(4, to: medium)
        try medium.flush()
        #expect(writePlainly(to: devices[0]) != 0)
        #expect(try onDisk() == [4])
        medium.release()
    }

    @Test("S18: two nodes of one host, whom the unit does not tell apart: the second does not get the medium")
    func oneHost() throws {
        let medium = try take("alpha")
        let refused = try #require(throws: MediumError.self) {
            try UnitMedium.take(address("alpha"), sizeBytes: Self.sizeBytes, as: opener("beta")) { _ in }
        }
        #expect(refused.message == "\(devices[0]): is in use on this machine, by another node or a file system")
        try write(5, to: medium)
        medium.release()
        let next = try UnitMedium.take(address("alpha"), sizeBytes: Self.sizeBytes, as: opener("beta")) { _ in }
        try write(6, to: next)
        next.release()
    }

    @Test("S8: after a reset of the unit a flush fails: what was written before it is written anew; the hold stays")
    func resetBeforeFlush() throws {
        let medium = try take("alpha")
        try write(1, to: medium, count: 512)
        try opener("beta").connect(to: address("beta")).resetUnit()
        #expect(try code { try medium.flush() } == .flush)
        try write(2, to: medium, count: 512)
        try medium.flush()
        #expect(try onDisk() == [2])
        medium.release()
    }

    /// Of beta against alpha, over the device of either's host.
    private func fence(over host: String) throws -> GroupRecord.Fence.Confirmation {
        let address = address(host)
        let fence = ReservationFence(
            [
                ReservationFence.SharedMedium(nodes: [NodeID("alpha"), NodeID("beta")]) { () throws(SCSIError) in
                    try opener("beta").connect(to: address)
                }
            ], by: NodeID("beta"), of: [NodeID("alpha"), NodeID("beta")], cluster: "test")
        return try fence.confirmDead(
            ProcessIdentity(node: NodeID("alpha"), pid: 1, startTicks: 1, bootID: "another"), by: NodeID("beta"))
    }

    @Test(
        "S18: a writer on the host of who fences, whom the unit does not tell apart from it, is not confirmed to be shut out"
    )
    func fenceOnOneHost() throws {
        let owner = try take("alpha")
        #expect(throws: FenceError.self) { try fence(over: "alpha") }
        try write(7, to: owner)
        try owner.flush()
        #expect(try onDisk() == [7])
        owner.release()
        _ = try fence(over: "alpha")
        try take("alpha").release()
    }

    @Test("S18: the fence shuts the other host out, and is confirmed by what the unit says")
    func fence() throws {
        let owner = try take("alpha")
        try write(1, to: owner)
        let confirmation = try fence(over: "beta")
        #expect(confirmation.method == GroupRecord.Fence.Confirmation.reservation)
        #expect(try code { try write(2, to: owner) } == .fenced)
        #expect(writePlainly(to: devices[0]) != 0)
        owner.release()
        let taker = try take("beta")
        try write(3, to: taker)
        taker.release()
        #expect(try keys() == [])
    }
}
