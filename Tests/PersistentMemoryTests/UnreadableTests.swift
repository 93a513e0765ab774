// A copy of the superblock that the device does not give any more.

import Glibc
import LogModel
import TestSupport
import Testing

@testable import PersistentMemory

struct UnreadableTests {
    private static let size: UInt64 = 1 << 20

    private func superblock(unreadable: Set<UInt64>, damaged: Set<UInt64> = []) throws(PoolError) -> Superblock {
        try Pool.superblock(fileBytes: Self.size, path: "/a.pool") { offset throws(PoolError) in
            if unreadable.contains(offset) { throw .system("/a.pool", "read", EIO, offset: offset) }
            let sound = Superblock(
                sequence: 1, pool: .zero, sizeBytes: Self.size, cluster: "demo", node: NodeID("alpha"))
            var page = sound.encoded()
            if damaged.contains(offset) { page.put(UInt8(1), at: 100) }
            return page
        }
    }

    @Test("S26: its twin counts", arguments: [0, 4096] as [UInt64])
    func oneOfThem(offset: UInt64) throws {
        #expect(try superblock(unreadable: [offset]).node == NodeID("alpha"))
    }

    @Test("without a twin the pool is refused with the place that could not be read", arguments: [true, false])
    func both(isTwinReadable: Bool) throws {
        let error = try #require(throws: PoolError.self) {
            try isTwinReadable
                ? superblock(unreadable: [4096], damaged: [0]) : superblock(unreadable: [0, 4096])
        }
        #expect(error.code == .system && error.offset == (isTwinReadable ? 4096 : 0))
        #expect(error.description.contains("/a.pool") && error.description.contains("read"), "\(error)")
    }
}
