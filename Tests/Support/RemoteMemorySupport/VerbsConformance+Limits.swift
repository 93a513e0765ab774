// Sizes from nothing to the most that one request carries, and the window of what may be out at once.

internal import RemoteMemory

extension VerbsConformance {
    private static let most = RemoteMemoryLimits.maximumTransferBytes

    static let limits = [
        VerbsCase("WRITEs and READs of any length and alignment") { rig in
            let sizes = [0, 1, 3, 7, 64, 1023, 1025, 4096, 65_537, most]
            for (round, size) in sizes.enumerated() {
                let offset = RailEnds.regionBytes - size - round
                try await rig.on { ends in
                    try ends.write(pattern(round, size), at: offset)
                    try ends.read(size, at: offset)
                }
                try await rig.completes(WorkRequestID(2 * round + 2))
                try await rig.on { ends in
                    try expect(
                        ends.region.durable[offset..<offset + size].elementsEqual(pattern(round, size)),
                        "a WRITE of \(size) bytes is not what was posted")
                    try expect(
                        ends.recorder.reads.last?.bytes == pattern(round, size),
                        "a READ of \(size) bytes returns something else")
                    try expect(ends.recorder.reads.count == round + 1, "\(ends.recorder.reads.count) answers")
                }
            }
        },
        VerbsCase("nothing at the very end of the region is inside of it") { rig in
            try await rig.on { ends in
                try ends.write([], at: RailEnds.regionBytes)
                try ends.read(0, at: RailEnds.regionBytes)
            }
            try await rig.completes(2)
        },
        VerbsCase("messages from nothing to the most, both ways") { rig in
            try await rig.on { ends in
                for size in [0, 1, 5000, most] {
                    try ends.send(pattern(size, size))
                    try ends.target.send(pattern(size + 1, size))
                }
            }
            try await rig.expectEventually("got four messages at both ends") {
                $0.targetRecorder.messages.count == 4 && $0.recorder.messages.count == 4
            }
            try await rig.on { ends in
                for (index, size) in [0, 1, 5000, most].enumerated() {
                    try expect(
                        ends.targetRecorder.messages[index] == pattern(size, size)
                            && ends.recorder.messages[index] == pattern(size + 1, size),
                        "a message of \(size) bytes is not what was sent")
                }
            }
        },
        VerbsCase("what is too long, or a word out of line, is refused and takes no number") { rig in
            try await rig.on { ends in
                let long = [UInt8](repeating: 1, count: most + 1)
                try expect(.invalidRequest, "a WRITE of 1 MiB and a byte") { () throws(RemoteMemoryError) in
                    try ends.write(long, at: 0)
                }
                for length in [most + 1, -1, .max] {
                    try expect(.invalidRequest, "a READ of \(length) bytes") { () throws(RemoteMemoryError) in
                        try ends.read(length, at: 0)
                    }
                }
                for offset in [1, 4, 4095] {
                    try expect(.invalidRequest, "a word at \(offset)") { () throws(RemoteMemoryError) in
                        try ends.atomicWrite(1, at: offset)
                    }
                }
                try expect(.invalidRequest, "a message of 1 MiB and a byte") { () throws(RemoteMemoryError) in
                    try ends.send(long)
                }
                let next = try ends.write([5], at: 1)
                try expect(next == 1, "the next request is number \(next)")
            }
            try await rig.completes(1)
            try await rig.on { ends in
                try expect(ends.region.durable[..<3] == [0, 5, 0], "a request that was refused is stored")
                try expect(ends.targetRecorder.messages.isEmpty, "a message that was refused arrives")
            }
        },
        VerbsCase("the window of bytes is bounded, for READs too, and comes back") { rig in
            let window = RemoteMemoryLimits.windowBytes
            let posted = try await rig.on { ends in
                ends.region.holdsPersists = true
                try expect(
                    most...window ~= ends.initiator.creditBytes, "the credit is \(ends.initiator.creditBytes) at first")
                var posted = 0
                while ends.initiator.creditBytes >= most {
                    let before = ends.initiator.creditBytes
                    if posted % 2 == 0 { try ends.write(pattern(1, most), at: 0) } else { try ends.read(most, at: 0) }
                    posted += 1
                    try expect(ends.initiator.creditBytes <= before - most, "a request takes no credit")
                }
                try expect(posted <= window / most, "\(posted) MiB are out")
                try expect(.noCredit, "a WRITE beyond the window") { () throws(RemoteMemoryError) in
                    try ends.write(pattern(1, most), at: 0)
                }
                try expect(.noCredit, "a READ beyond the window") { () throws(RemoteMemoryError) in
                    try ends.read(most, at: 0)
                }
                // What takes no part in the window is sent all the same.
                try ends.send([1])
                return WorkRequestID(posted)
            }
            try await rig.expectEventually("a persist begins") { !$0.region.held.isEmpty }
            try await rig.expectEventually("the message arrives") { !$0.targetRecorder.messages.isEmpty }
            try await rig.on { $0.region.finishPersists() }
            try await rig.completes(posted)
            try await rig.on { ends in
                try expect(ends.initiator.creditBytes >= most, "the credit does not come back")
                let next = try ends.write([1], at: 0)
                try expect(next == posted + 1, "what was refused for want of credit took a number")
            }
            try await rig.completes(posted + 1)
        },
        VerbsCase("the window of requests is bounded and comes back") { rig in
            let posted = try await rig.on { ends in
                var posted = 0
                while ends.initiator.creditBytes > 0 {
                    try expect(posted < RemoteMemoryLimits.windowRequests, "\(posted) requests are out")
                    try ends.write([1], at: posted)
                    posted += 1
                }
                try expect(posted > 0, "no request has room")
                try expect(.noCredit, "a FLUSH beyond the window") { () throws(RemoteMemoryError) in try ends.flush() }
                return posted
            }
            try await rig.completes(WorkRequestID(posted))
            try await rig.on { try expect($0.initiator.creditBytes > 0, "the window does not come back") }
        },
    ]
}
