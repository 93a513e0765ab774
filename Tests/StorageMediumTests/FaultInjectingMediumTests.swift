// The medium that tests of others rely on: its faults hit the calls that they were meant for, and nothing else.

import Glibc
import LogModel
import StorageMedium
import TestSupport
import Testing

struct FaultInjectingMediumTests {
    let folder: Folder
    let path: String
    let file: FileMedium
    let medium: FaultInjectingMedium
    static let sectors = 64
    let ones = [UInt8](repeating: 1, count: sectors * 512)
    let twos = [UInt8](repeating: 2, count: sectors * 512)

    init() throws {
        folder = try Folder(in: "/dev/shm")
        path = folder.file("m")
        file = try FileMedium.open(path: path, sizeBytes: UInt64(Self.sectors * 512), createIfMissing: true)
        medium = FaultInjectingMedium(file, seed: 7)
        try medium.write([ones], at: 0)
        try medium.flush()
    }

    func value(ofSector sector: Int, in bytes: [UInt8]) -> Set<UInt8> { Set(bytes[sector * 512..<(sector + 1) * 512]) }

    @Test func withoutFaultsItIsTheMediumBelow() throws {
        #expect(medium.sizeBytes == file.sizeBytes)
        try medium.write([[5, 6], [7]], at: 511)
        try medium.zero(ByteRange(offset: 1, length: 2), releasingSpace: true)
        try medium.flush()
        let bytes = try contents(of: path)
        #expect(bytes[..<4] == [1, 0, 0, 1])
        #expect(bytes[510..<515] == [1, 5, 6, 7, 1])
        #expect(try medium.bytes(at: 0, count: bytes.count) == bytes)
        let error = #expect(throws: MediumError.self) { try medium.write([[1]], at: medium.sizeBytes) }
        #expect(error?.code == .outOfRange)
    }

    @Test func theChosenCallsFailAndNoOthers() throws {
        medium.inject(.fail(errno: EIO), on: .write, skipping: 1, count: 2)
        medium.inject(.fail(errno: ENOSPC), on: .read)
        try medium.write([[3]], at: 0)
        for _ in 0..<2 {
            let error = #expect(throws: MediumError.self) { try medium.write([[4]], at: 0) }
            #expect(error?.code == .write)
            #expect(error?.errno == EIO)
        }
        #expect(#expect(throws: MediumError.self) { try medium.bytes(at: 0, count: 1) }?.errno == ENOSPC)
        #expect(try medium.bytes(at: 0, count: 1) == [3])
        try medium.write([[5]], at: 0)
        #expect(try medium.bytes(at: 0, count: 1) == [5])
        #expect(medium.calls(of: .write) == 5)
        #expect(medium.calls(of: .read) == 3)
        medium.inject(.fail(errno: EIO), on: .zero)
        medium.removeFaults()
        try medium.zero(ByteRange(offset: 0, length: 1), releasingSpace: false)
    }

    @Test func aTornWriteStoresSomeSectorsWhole() throws {
        medium.inject(.tear(errno: EIO), on: .write)
        #expect(throws: MediumError.self) { try medium.write([twos], at: 0) }
        let values = try (0..<Self.sectors).map { value(ofSector: $0, in: try contents(of: path)) }
        #expect(values.allSatisfy { $0 == [1] || $0 == [2] })
        #expect(values.contains([1]) && values.contains([2]))
    }

    @Test func flushedBytesSurviveALossOfPowerAndOthersMayNot() throws {
        try medium.write([[UInt8](repeating: 2, count: 16 * 512)], at: 0)
        try medium.flush()
        try medium.write([[UInt8](repeating: 3, count: 48 * 512)], at: 16 * 512)
        #expect(try medium.bytes(at: 16 * 512, count: 48 * 512).allSatisfy { $0 == 3 })
        try medium.losePower()
        let bytes = try contents(of: path)
        #expect((0..<16).allSatisfy { value(ofSector: $0, in: bytes) == [2] })
        let rest = (16..<64).map { value(ofSector: $0, in: bytes) }
        #expect(rest.allSatisfy { $0 == [1] || $0 == [3] })
        #expect(rest.contains([1]) && rest.contains([3]))
    }

    /// What S8 is about: the second flush succeeds, and the data is lost all the same.
    @Test func aFlushAfterAFailedFlushMakesNothingDurable() throws {  // S8
        try medium.write([twos], at: 0)
        medium.inject(.fail(errno: EIO), on: .flush)
        #expect(throws: MediumError.self) { try medium.flush() }
        try medium.flush()
        #expect(try medium.bytes(at: 0, count: twos.count) == twos)
        try medium.losePower()
        let values = try (0..<Self.sectors).map { value(ofSector: $0, in: try contents(of: path)) }
        #expect(values.contains([1]) && values.contains([2]))
    }

    @Test func writingAnewAfterAFailedFlushMakesItDurable() throws {  // S8
        try medium.write([twos], at: 0)
        medium.inject(.fail(errno: EIO), on: .flush)
        #expect(throws: MediumError.self) { try medium.flush() }
        try medium.write([twos], at: 0)
        try medium.flush()
        try medium.losePower()
        #expect(try contents(of: path) == twos)
    }

    @Test func theSameSeedLosesTheSameSectors() throws {
        var images: [[UInt8]] = []
        for seed in [1, 1, 2] as [UInt64] {
            let path = folder.file("s\(images.count)")
            let file = try FileMedium.open(path: path, sizeBytes: medium.sizeBytes, createIfMissing: true)
            let medium = FaultInjectingMedium(file, seed: seed)
            try medium.write([ones], at: 0)
            try medium.losePower()
            images.append(try contents(of: path))
        }
        #expect(images[0] == images[1])
        #expect(images[0] != images[2])
    }

    @Test func aHeldCallGoesOnWhenItIsReleased() async throws {
        medium.inject(.hold, on: .flush)
        let isFlushed = Flag()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { [medium] in
                try medium.flush()
                isFlushed.set()
            }
            #expect(try await eventually { medium.heldCalls == 1 })
            // Others are not held up, and release of nobody releases nobody later.
            try medium.write([[9]], at: 0)
            #expect(!isFlushed.isSet)
            medium.releaseHeld()
            try await group.waitForAll()
        }
        #expect(isFlushed.isSet)
        #expect(medium.heldCalls == 0)
        medium.inject(.delay(millis: 1), on: .flush)
        try medium.flush()
    }
}
