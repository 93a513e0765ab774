// Requests are executed in order, messages in order with them, and do what their verb says.

internal import RemoteMemory

extension VerbsConformance {
    static let execution = [
        VerbsCase("requests are numbered and executed in posting order") { rig in
            try await rig.on { ends in
                let posted = [
                    try ends.write([1, 2, 3, 4], at: 100), try ends.write([9, 9], at: 101),
                    try ends.atomicWrite(0x0807_0605_0403_0201, at: 4096),
                    try ends.write([7], at: 4098), try ends.write([5], at: RailEnds.regionBytes - 1), try ends.flush(),
                ]
                try expect(posted == [1, 2, 3, 4, 5, 6], "the requests are numbered \(posted)")
            }
            try await rig.completes(6)
            try await rig.on { ends in
                try expect(ends.region.durable[99..<105] == [0, 1, 9, 9, 4, 0], "WRITEs overlap in another order")
                try expect(
                    ends.region.durable[4096..<4104] == [1, 2, 7, 4, 5, 6, 7, 8],
                    "the word and the WRITE over it are \(ends.region.durable[4096..<4104])")
                try expect(ends.region.durable.last == 5, "the last byte of the region is not stored")
                try expect(ends.recorder.hasHeard && ends.targetRecorder.hasHeard, "no proof of life")
            }
        },
        VerbsCase("a payload is the caller's again when its post returns") { rig in
            try await rig.on { ends in
                let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 70_000, alignment: 64)
                defer { memory.deallocate() }
                for (index, size) in [16, 5000, 70_000].enumerated() {
                    let part = UnsafeMutableRawBufferPointer(rebasing: memory[..<size])
                    part.initializeMemory(as: UInt8.self, repeating: UInt8(index + 1))
                    try ends.initiator.postWrite(
                        UnsafeRawBufferPointer(part), key: ends.key, offset: UInt64(index) * 100_000)
                    part.initializeMemory(as: UInt8.self, repeating: 0xEE)
                }
            }
            try await rig.completes(3)
            try await rig.on { ends in
                for (index, size) in [16, 5000, 70_000].enumerated() {
                    let stored = ends.region.durable[index * 100_000..<index * 100_000 + size]
                    try expect(stored.allSatisfy { $0 == index + 1 }, "a payload of \(size) bytes is not what it was")
                }
            }
        },
        VerbsCase("a READ returns what was posted before it, and nothing posted after it") { rig in
            try await rig.on { ends in
                try ends.read(3, at: 50)
                try ends.write([1, 2, 3], at: 50)
                try ends.read(5, at: 49)
                try ends.atomicWrite(.max, at: 48)
                try ends.read(0, at: 0)
                try ends.write([4], at: 51)
            }
            try await rig.completes(6)
            try await rig.on { ends in
                let reads = ends.recorder.reads
                try expect(reads.map(\.id) == [1, 3, 5], "READs \(reads.map(\.id)) were answered")
                try expect(reads[0].bytes == [0, 0, 0], "the first READ returns \(reads[0].bytes)")
                try expect(reads[1].bytes == [0, 1, 2, 3, 0], "the second READ returns \(reads[1].bytes)")
                try expect(reads[2].bytes == [], "a READ of nothing returns \(reads[2].bytes)")
                try expect(ends.region.durable[51] == 4, "the WRITE behind the READs is not stored")
            }
        },
        VerbsCase("a message arrives behind the requests before it and before those after it") { rig in
            try await rig.on { ends in
                ends.targetRecorder.onMessage = { [unowned ends] message in
                    // Posted in turn with the WRITEs: message n behind n of them.
                    let stored = ends.region.bytes[..<8].prefix { $0 == 1 }.count
                    ends.initiatorRegion.bytes[message.count] = stored == message.count ? 1 : 2
                }
                for index in 0..<8 {
                    try ends.send([UInt8](repeating: 0, count: index))
                    try ends.write([1], at: index)
                }
                try ends.send([UInt8](repeating: 0, count: 8))
            }
            try await rig.expectEventually("got nine messages") { $0.targetRecorder.messages.count == 9 }
            try await rig.on { ends in
                let places = Array(ends.initiatorRegion.bytes[..<9])
                try expect(places.allSatisfy { $0 == 1 }, "messages and WRITEs come in another order: \(places)")
                try expect(
                    ends.targetRecorder.messages.map(\.count) == Array(0...8),
                    "the messages come as \(ends.targetRecorder.messages.map(\.count))")
            }
            try await rig.completes(8)
        },
        VerbsCase("either side posts, both at once, each with numbers of its own") { rig in
            try await rig.on { ends in
                for index in 0..<4 {
                    try ends.write(pattern(index, 5000), at: index * 5000)
                    try pattern(index + 9, 5000).withUnsafeBytes { bytes in
                        _ = try ends.target.postWrite(
                            bytes, key: ends.initiatorKey, offset: UInt64(index * 5000))
                    }
                }
            }
            try await rig.completes(4)
            try await rig.expectEventually("completed the target's requests") { $0.targetRecorder.completed == 4 }
            try await rig.on { ends in
                for index in 0..<4 {
                    let place = index * 5000..<(index + 1) * 5000
                    try expect(
                        ends.region.durable[place].elementsEqual(pattern(index, 5000))
                            && ends.initiatorRegion.durable[place].elementsEqual(pattern(index + 9, 5000)),
                        "a WRITE of one side is not what was posted")
                }
            }
        },
        VerbsCase("what waits in the network arrives, in order") { rig in
            try await rig.on { ends in
                ends.disturb(.stall)
                for index in 0..<8 { try ends.write(pattern(index, 40_000), at: index * 20_000) }
            }
            try await rig.on { ends in
                try expect(ends.recorder.completed == 0, "something is completed over a network that carries nothing")
                ends.disturb(.goOn)
            }
            try await rig.completes(8)
            try await rig.on { ends in
                for index in 0..<8 {
                    try expect(
                        ends.region.durable[index * 20_000..<(index + 1) * 20_000]
                            .elementsEqual(pattern(index, 20_000)), "WRITE \(index + 1) is stored in another order")
                }
            }
        },
    ]
}
