// Every variant of copy and checksum against one that shares nothing with them.

import CLogCore
import LogModel
import PersistentMemory
import TestSupport
import Testing

private func bitwise(_ bytes: some Sequence<UInt8>, seed: UInt32 = 0) -> UInt32 {
    var crc = ~seed
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82F6_3B78 : crc >> 1 }
    }
    return ~crc
}

private let variants = [TL_ISA_PORTABLE, TL_ISA_CRC, TL_ISA_FOLD].filter { tl_isa_available($0) }

struct ChecksumTests {
    @Test func theCheckValueOfCRC32CIsKnown() {
        let digits = Array("123456789".utf8)
        #expect(tl_crc32c(0, digits, 9) == 0xE306_9283)
        #expect(tl_crc32c(tl_crc32c(0, digits, 4), Array(digits[4...]), 5) == 0xE306_9283)
    }

    /// UUID and incarnation, each big-end first by word and little-endian within: 24 bytes (S3).
    @Test func theSeedIsOfLogAndIncarnation() throws {
        let fixture = try LogFixture()
        func bytes(_ word: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
        let identity = bytes(logUUID.high) + bytes(logUUID.low) + bytes(5)
        #expect(try #require(fixture.region.ring).seed == bitwise(identity))
    }

    @Test(arguments: variants.map(\.rawValue))
    func allVariantsAgree(_ variant: UInt32) {
        var generator = SplitMix64(seed: 1)
        let source = generator.bytes(9000)
        let counts =
            Array(0...130) + [191, 192, 255, 256, 257, 319, 511, 512, 513, 575, 767, 1023, 1024, 1100, 4096, 8191]
        for count in counts {
            let from = Int.random(in: 0...64, using: &generator),
                seed = UInt32.random(in: 0...UInt32.max, using: &generator)
            let expected = bitwise(source[from..<from + count], seed: seed)
            let got = source.withUnsafeBytes { tl_crc32c_with(tl_isa(variant), seed, $0.baseAddress! + from, count) }
            #expect(got == expected, "\(count) bytes")
        }
    }

    @Test(arguments: variants.map(\.rawValue))
    func streamingCopiesChecksumsAndPads(_ variant: UInt32) {
        var generator = SplitMix64(seed: 2)
        let source = generator.bytes(9000)
        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 64)
        defer { target.deallocate() }
        var persist = tl_persist()
        tl_persist_init(&persist, TL_PERSIST_LINES, target.baseAddress, target.count)
        persist.isa = tl_isa(variant)
        for count in [0, 1, 63, 64, 65, 128, 200, 256, 511, 512, 513, 1000, 4096, 8000] {
            let from = Int.random(in: 0...64, using: &generator)
            target.initializeMemory(as: UInt8.self, repeating: 0xEE)
            let crc = source.withUnsafeBytes {
                tl_stream_crc32c(&persist, target.baseAddress! + 64, $0.baseAddress! + from, count, 77)
            }
            tl_drain(&persist)
            let padded = (count + 63) / 64 * 64
            #expect(crc == bitwise(source[from..<from + count], seed: 77))
            #expect(target[64..<64 + count].elementsEqual(source[from..<from + count]))
            #expect(target[64 + count..<64 + padded].allSatisfy { $0 == 0 })
            #expect(target[..<64].allSatisfy { $0 == 0xEE } && target[(64 + padded)...].allSatisfy { $0 == 0xEE })
        }
    }

    @Test(arguments: variants.map(\.rawValue))
    func plainStreamingTakesAnyAlignment(_ variant: UInt32) {
        var generator = SplitMix64(seed: 3)
        let source = generator.bytes(5000)
        let target = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 64)
        defer { target.deallocate() }
        var persist = tl_persist()
        tl_persist_init(&persist, TL_PERSIST_LINES, target.baseAddress, target.count)
        persist.isa = tl_isa(variant)
        for _ in 0..<200 {
            let count = Int.random(in: 0...4000, using: &generator), to = Int.random(in: 0...200, using: &generator)
            target.initializeMemory(as: UInt8.self, repeating: 0xEE)
            source.withUnsafeBytes { tl_stream(&persist, target.baseAddress! + to, $0.baseAddress!, count) }
            tl_drain(&persist)
            #expect(target[to..<to + count].elementsEqual(source[..<count]))
            #expect(target[..<to].allSatisfy { $0 == 0xEE } && target[(to + count)...].allSatisfy { $0 == 0xEE })
        }
    }
}
