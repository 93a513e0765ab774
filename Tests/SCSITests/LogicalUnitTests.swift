// A unit's blocks: its size, its identity, and bytes that neither begin nor end with a block.

import LogModel
import SCSICommands
import TestSupport
import Synchronization
import Testing

struct LogicalUnitTests {
    let unit = FakeUnit()

    @Test("Bytes anywhere are written and read; what lies beside them in their blocks stays")
    func unaligned() throws {
        let blocks = try LogicalUnit(unit.initiator("a"))
        var generator = SplitMix64(seed: 5)
        var model = [UInt8](repeating: 0, count: Int(blocks.sizeBytes))
        for _ in 0..<200 {
            let offset = Int.random(in: 0..<model.count, using: &generator)
            let length = Int.random(in: 1...min(5000, model.count - offset), using: &generator)
            let bytes = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
            let cut = Int.random(in: 0...length, using: &generator)
            try bytes.withUnsafeBytes { all in
                let parts = [
                    UnsafeRawBufferPointer(rebasing: all[..<cut]), UnsafeRawBufferPointer(rebasing: all[cut...]),
                ]
                try blocks.writeBytes(ByteGather(parts), at: UInt64(offset))
            }
            model.replaceSubrange(offset..<offset + length, with: bytes)
        }
        try blocks.writeBytes(ByteGather(zeros: 1000), at: 700)
        model.replaceSubrange(700..<1700, with: [UInt8](repeating: 0, count: 1000))
        #expect(unit.state.withLock { $0.bytes } == model)
        for (offset, length) in [(0, model.count), (1, 511), (511, 2), (1000, 3000)] {
            var bytes = [UInt8](repeating: 0xEE, count: length)
            try bytes.withUnsafeMutableBytes { try blocks.readBytes(into: $0, at: UInt64(offset)) }
            #expect(bytes == Array(model[offset..<offset + length]))
        }
    }

    @Test("S18: a unit is known by its designator and its place; one without a designator is refused")
    func identity() throws {
        let blocks = try LogicalUnit(unit.initiator("a"))
        let identity = try blocks.identity(at: "target/1")
        #expect(try blocks.identity(at: "target/1") == identity)
        #expect(try blocks.identity(at: "target/2") != identity)
        unit.lie { _, command, _ in
            command[0] == 0x12 ? .answer([0, 0x83, 0, 12, 1, 3, 0, 8, 1, 2, 3, 4, 5, 6, 7, 9]) : nil
        }
        #expect(try blocks.identity(at: "target/1") != identity)
        // Of the port and of the target, not of the unit; and one that is longer than the page.
        for page: [UInt8] in [
            [0, 0x83, 0, 5, 1, 0x13, 0, 1, 9], [0, 0x83, 0, 5, 1, 3, 0, 200, 9], [0, 0x80, 0, 1, 9], [0],
        ] {
            unit.lie { _, command, _ in command[0] == 0x12 ? .answer(page) : nil }
            #expect(throws: SCSIError.self) { try blocks.identity(at: "target/1") }
        }
    }

    @Test(
        "S21: a capacity that is no disk's is refused",
        arguments: [
            [], [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 2, 1], [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 2, 0],
            [127, 255, 255, 255, 255, 255, 255, 255, 0, 0, 2, 0],
        ] as [[UInt8]])
    func capacity(answer: [UInt8]) {
        unit.lie { _, command, _ in command[0] == 0x9E ? .answer(answer) : nil }
        #expect(throws: SCSIError.self) { try LogicalUnit(unit.initiator("a")) }
    }

    @Test("S21: a read that brings fewer bytes than were asked for is no read")
    func shortRead() throws {
        let blocks = try LogicalUnit(unit.initiator("a"))
        unit.lie { _, command, _ in command[0] == 0x88 ? .answer([1, 2, 3]) : nil }
        var bytes = [UInt8](repeating: 0, count: 512)
        #expect(throws: SCSIError.self) { try bytes.withUnsafeMutableBytes { try blocks.readBytes(into: $0, at: 0) } }
    }
}
