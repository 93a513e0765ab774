// S12, S21: keys and ranges are checked when a request is executed, and what fails the check touches nothing.

internal import RemoteMemory

extension VerbsConformance {
    static let access =
        [
            VerbsCase("S12: a revoked key stops what is on the way") { rig in
                try await rig.on { try $0.write([1], at: 0) }
                try await rig.completes(1)
                try await rig.on { ends in
                    try ends.write([2], at: 0)
                    try ends.read(1, at: 0)
                    try ends.write([2], at: 1)
                    ends.registry.revoke(ends.key) { ends.initiatorRegion.bytes[0] = 1 }
                    try expect(
                        ends.initiatorRegion.bytes[0] == 1, "the key is not sealed though nothing is in progress")
                }
                try await rig.fails(.access)
                try await rig.on { ends in
                    try expect(ends.recorder.completed == 1, "\(ends.recorder.completed) is completed without a key")
                    try expect(ends.region.bytes[..<2] == [1, 0], "a WRITE without a key is stored")
                    try expect(ends.recorder.reads.isEmpty, "a READ without a key is answered")
                }
            },
            VerbsCase("S12: a key is sealed only when no persist under it is in progress") { rig in
                try await rig.on { ends in
                    ends.region.holdsPersists = true
                    try ends.write([1], at: 0)
                }
                try await rig.expectEventually("a persist begins") { $0.region.held.count == 1 }
                try await rig.on { ends in
                    ends.registry.revoke(ends.key) { ends.initiatorRegion.bytes[0] = 1 }
                    try expect(ends.initiatorRegion.bytes[0] == 0, "sealed while a persist is in progress")
                    ends.region.finishPersists()
                    try expect(ends.initiatorRegion.bytes[0] == 1, "not sealed when the persist has ended")
                    try expect(ends.region.durable[0] == 1, "the persist did not come to its end")
                }
                // It was executed under a good key.
                try await rig.completes(1)
            },
            VerbsCase("S12: the same memory under a new key, while the old one stays dead") { rig in
                try await rig.on { ends in
                    ends.registry.revoke(ends.key) {}
                    let new = ends.registry.register(ends.region, lengthBytes: UInt64(RailEnds.regionBytes))
                    try expect(new != ends.key, "a key is given twice")
                    try ends.write([1], at: 0, key: new)
                    try ends.write([2], at: 0)
                }
                try await rig.fails(.access)
                try await rig.on { ends in
                    // What came before the refused request is persisted and completed first.
                    try expect(ends.recorder.completed == 1, "\(ends.recorder.completed) is completed, not 1")
                    try expect(ends.region.durable[0] == 1, "the WRITE under the new key is not durable")
                }
            },
            VerbsCase("a key that was revoked before, or never given, is sealed at once") { rig in
                try await rig.on { ends in
                    ends.registry.revoke(ends.key) {}
                    ends.registry.revoke(ends.key) { ends.initiatorRegion.bytes[0] += 1 }
                    ends.registry.revoke(RegionKey(rawValue: ~ends.key.rawValue)) { ends.initiatorRegion.bytes[0] += 1 }
                    try expect(ends.initiatorRegion.bytes[0] == 2, "who revokes it waits for ever")
                }
            },
        ]
        + outside.map { offset, length in
            VerbsCase("S21: \(length) bytes at \(offset) are not in the region: no WRITE, READ or word") { rig in
                try await rig.on { ends in
                    if length == 8 {
                        try ends.atomicWrite(1, at: offset)
                    } else if length % 2 == 0 {
                        try ends.read(length, at: offset)
                    } else {
                        try ends.write([UInt8](repeating: 1, count: length), at: offset)
                    }
                }
                try await rig.fails(.access)
                try await rig.on { ends in
                    try expect(ends.region.bytes.allSatisfy { $0 == 0 }, "it is stored")
                    try expect(ends.recorder.reads.isEmpty && ends.region.readCount == 0, "it is read")
                    try expect(ends.recorder.completed == 0, "it is completed")
                }
            }
        }

    private static let end = RailEnds.regionBytes
    private static let outside: [(offset: Int, length: Int)] = [
        (end, 1), (end - 1, 3), (-1, 1), (-16, 33), (end, 2), (-1, 2), (end - 30, 32), (end, 8),
    ]
}
