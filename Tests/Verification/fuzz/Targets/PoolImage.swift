// A sound pool's bytes, and the ways in which an input damages them: random bytes alone would never pass a checksum, so an
// input is a list of changes to a sound pool, and says which checksums are made right again afterwards.

import CLogCore
import Foundation
import Glibc
import LogModel
import PersistentMemory
import WriteLog

enum PoolImage {
    static let group = GroupID("g0")
    static let ringBytes: UInt64 = 64 << 10
    static let regionOffset = 16384
    static let ringOffset = regionOffset + 8192

    /// An owner's pool and its mirror's: the log goes around the ring's end and has a tail that is not acknowledged.
    static let owner = image(role: .owner)
    static let mirror = image(role: .mirror)

    /// A file of this process in memory.
    static func path(_ name: String) -> String { "/dev/shm/twinlog-fuzz-\(getpid())-\(name)" }

    private static func image(role: RegionRole) -> [UInt8] {
        let path = path("sound")
        unlink(path)
        defer { unlink(path) }
        do {
            let pool = try Pool.create(
                path: path, sizeBytes: ringBytes + (64 << 10),
                identity: PoolIdentity(
                    uuid: UUID128(high: 7, low: UInt64(role.rawValue)), cluster: "demo", node: NodeID("alpha")),
                persistence: .volatile)
            let region = try pool.allocateRegion(group: group, ringBytes: ringBytes)
            let start = LSN(50 << 10)
            try region.format(
                role: .owner, logUUID: UUID128(high: 1, low: 2), incarnation: Incarnation(5), start: start)
            try fill(WriteLog(region: region))
            if role == .mirror { try turnIntoMirror(region, start) }
            pool.close()
            return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        } catch {
            preconditionFailure("a sound pool cannot be made in /dev/shm: \(error)")
        }
    }

    /// The same bytes under another role.
    private static func turnIntoMirror(_ region: Region, _ start: LSN) throws {
        let (head, acknowledged) = (region.head, region.acknowledged)
        try region.format(role: .mirror, logUUID: UUID128(high: 1, low: 2), incarnation: Incarnation(5), start: start)
        try region.setHead(head, acknowledged: acknowledged)
    }

    private static func fill(_ log: WriteLog) throws {
        let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0 * 37) }
        var acknowledged = log.head
        for index in 0..<24 {
            bytes.withUnsafeBytes { bytes in
                let payload = UnsafeRawBufferPointer(rebasing: bytes[..<(index * 631 % 4000 + 1)])
                let what: WriteLog.Payload =
                    switch index % 6 {
                    case 4: .discard(length: 5 << 30)
                    case 5: .writeZeroes(length: 4096, keepSpace: index % 4 == 1)
                    default: .data(payload)
                    }
                _ = log.append(
                    volume: VolumeID(name: "vol0"), offset: UInt64(index) << 16, what, acknowledged: acknowledged)
            }
            if index % 5 == 4 { acknowledged = log.published }
            if index == 5 || index == 9 {
                try log.setHead(acknowledged, acknowledged: acknowledged)
                log.setReclaimLimit(acknowledged)
            }
        }
        _ = log.appendWatermark(acknowledged: acknowledged)
    }

    // MARK: Damage

    /// Applies an input's changes: its first byte says what is sealed, then come the changes, at most 256.
    static func damaged(_ sound: [UInt8], by input: inout FuzzInput) -> [UInt8] {
        let seals: UInt8 = input.number()
        var image = sound
        var changes = 0
        while !input.isEmpty, changes < 256 {
            change(&image, &input)
            changes += 1
        }
        seal(&image, seals)
        return image
    }

    private static func change(_ image: inout [UInt8], _ input: inout FuzzInput) {
        let what: UInt8 = input.number()
        let areas = [0..<image.count, 0..<ringOffset, regionOffset..<ringOffset, ringOffset..<image.count]
        let area = areas[Int(what >> 2 & 3)]
        func place() -> Int { area.lowerBound + Int(input.number(UInt32.self) & 0xFF_FFFF) % area.count }
        let at = place()
        switch what & 3 {
        case 0:
            let count = min(Int(input.number(UInt8.self)) % 96 + 1, image.count - at)
            for (index, byte) in input.take(count).enumerated() { image[at + index] = byte }
        case 1:
            let count = min(Int(input.number(UInt16.self)) % 8192 + 1, image.count - at)
            image.replaceSubrange(at..<at + count, with: repeatElement(0, count: count))
        case 2:
            let from = place(), count = min(Int(input.number(UInt16.self)) % 4096 + 1, image.count - max(at, from))
            image.replaceSubrange(at..<at + count, with: Array(image[from..<from + count]))
        default: image[at] ^= 1 << (input.number(UInt8.self) & 7)
        }
    }

    /// Bits: superblocks A and B, directories A and B, identity slots, head slots, records' headers, their payloads.
    private static func seal(_ image: inout [UInt8], _ seals: UInt8) {
        for (bit, page) in [0, 4096].enumerated() where seals >> UInt8(bit) & 1 != 0 {
            put(checksum(image, page..<page + 4096, without: page + 12), at: page + 12, &image)
        }
        for (bit, page) in [8192, 12288].enumerated() where seals >> UInt8(bit + 2) & 1 != 0 {
            put(checksum(image, page..<page + 4096, without: page + 8), at: page + 8, &image)
        }
        for slot in [regionOffset, regionOffset + 4096] where seals & 16 != 0 {
            put(checksum(image, slot..<slot + 64, without: slot + 56), at: slot + 56, &image)
        }
        // The seed of the first identity slot's incarnation, right or wrong.
        let seed = image[(regionOffset + 16)..<(regionOffset + 40)].withUnsafeBytes { tl_crc32c(0, $0.baseAddress, 24) }
        for slot in [regionOffset + 512, regionOffset + 4608] where seals & 32 != 0 {
            put(checksum(image, slot..<slot + 60, seed: seed), at: slot + 60, &image)
        }
        if seals & 64 != 0 { sealRecords(&image, seed, withPayloads: seals & 128 != 0) }
    }

    private static func sealRecords(_ image: inout [UInt8], _ seed: UInt32, withPayloads: Bool) {
        let incarnation = Array(image[(regionOffset + 32)..<(regionOffset + 40)])
        for line in stride(from: ringOffset, to: image.count - 63, by: 64)
        where image[line + 24..<line + 32].elementsEqual(incarnation) {
            let payload = image[line + 40..<line + 44].reversed().reduce(0) { $0 << 8 | Int($1) }
            if withPayloads, payload <= image.count - line - 64 {
                put(checksum(image, line + 64..<line + 64 + payload, seed: seed), at: line + 4, &image)
            }
            put(checksum(image, line + 4..<line + 64, seed: seed), at: line, &image)
        }
    }

    private static func checksum(
        _ image: [UInt8], _ range: Range<Int>, without field: Int? = nil, seed: UInt32 = 0
    ) -> UInt32 {
        guard let field else { return image[range].withUnsafeBytes { tl_crc32c(seed, $0.baseAddress, $0.count) } }
        var copy = Array(image[range])
        copy.replaceSubrange(field - range.lowerBound..<field - range.lowerBound + 4, with: [0, 0, 0, 0])
        return tl_crc32c(seed, copy, copy.count)
    }

    private static func put(_ value: UInt32, at offset: Int, _ image: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { image.replaceSubrange(offset..<offset + 4, with: $0) }
    }

    // MARK: Files

    static func write(_ image: [UInt8], to path: String) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        precondition(descriptor >= 0 && Glibc.write(descriptor, image, image.count) == image.count)
        close(descriptor)
    }

    static func read(_ path: String) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        precondition(descriptor >= 0)
        defer { close(descriptor) }
        var image = [UInt8](repeating: 0, count: Int(lseek(descriptor, 0, SEEK_END)))
        precondition(pread(descriptor, &image, image.count, 0) == image.count)
        return image
    }
}
