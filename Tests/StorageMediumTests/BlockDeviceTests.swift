// A block device as a medium: a loop device of a file, where the machine has them.

import Glibc
import LogModel
import StorageMedium
import TestSupport
import Testing

private let hasLoopDevices = geteuid() == 0 && shell("losetup --find") != nil

@Suite(.enabled(if: hasLoopDevices, "no loop device, or not root"))
final class BlockDeviceTests {
    private let folder: Folder
    private let file: String
    private let device: String
    private let deviceBytes: UInt64 = 4 << 20

    init() throws {
        folder = try Folder(in: "/tmp")
        file = folder.file("disk")
        let descriptor = open(file, O_RDWR | O_CREAT, 0o600)
        try #require(descriptor >= 0 && ftruncate(descriptor, off_t(deviceBytes)) == 0)
        close(descriptor)
        device = try #require(shell("losetup --show --find '\(file)'"))
    }

    /// Sparse: the file behind the device becomes larger, and the device with it.
    private func grow(to sizeBytes: UInt64) throws {
        try #require(truncate(file, off_t(sizeBytes)) == 0)
        try #require(shell("losetup --set-capacity \(device)") != nil)
    }

    deinit { _ = shell("losetup --detach \(device)") }

    private func medium(_ sizeBytes: UInt64) throws -> FileMedium {
        try FileMedium.open(path: device, sizeBytes: sizeBytes, createIfMissing: false)
    }

    @Test func whatIsWrittenAndFlushedIsOnTheDevice() throws {
        let medium = try medium(deviceBytes)
        try medium.lock()
        try medium.write([[UInt8](repeating: 7, count: 1 << 20), [UInt8](repeating: 8, count: 1 << 20)], at: 100)
        try medium.zero(ByteRange(offset: 4096, length: 8192), releasingSpace: true)
        try medium.zero(ByteRange(offset: 20_001, length: 333), releasingSpace: false)
        try medium.flush()
        let bytes = try medium.bytes(at: 0, count: Int(deviceBytes))
        let isZero = { (at: Int) in
            at < 100 || at >= 100 + (2 << 20) || (4096..<12_288).contains(at) || (20_001..<20_334).contains(at)
        }
        #expect(
            bytes.indices.allSatisfy { bytes[$0] == (isZero($0) ? 0 : $0 < 100 + (1 << 20) ? 7 : 8) })
        #expect(try contents(of: file) == bytes)
    }

    @Test func aRangeThatIsZeroedInStepsIsZeroedWhole() throws {
        let size: UInt64 = 200 << 20
        try grow(to: size)
        let medium = try medium(size)
        let places = stride(from: 0, through: size - 512, by: 4 << 20) + [size - 512]
        for place in places { try medium.write([[UInt8](repeating: 7, count: 512)], at: place) }
        try medium.zero(ByteRange(offset: 512, length: size - 1024), releasingSpace: true)
        try medium.flush()
        for place in places {
            let isOutside = place == 0 || place == size - 512
            #expect(
                try medium.bytes(at: place, count: 512) == [UInt8](repeating: isOutside ? 7 : 0, count: 512),
                "at \(place)")
        }
    }

    @Test func aSecondWriterIsLockedOut() throws {  // S18
        let first = try medium(deviceBytes), second = try medium(deviceBytes)
        try first.lock()
        let error = #expect(throws: MediumError.self) { try second.lock() }
        #expect(error?.code == .locked)
    }

    @Test func aDeviceMayBeLargerThanItsVolumeAndNotSmaller() throws {
        let smaller = try medium(deviceBytes - 4096)
        #expect(smaller.sizeBytes == deviceBytes - 4096)
        #expect(throws: MediumError.self) { try smaller.write([[1]], at: self.deviceBytes - 4096) }
        let error = #expect(throws: MediumError.self) { try self.medium(self.deviceBytes + 4096) }
        #expect(error?.code == .wrongSize)
    }
}
