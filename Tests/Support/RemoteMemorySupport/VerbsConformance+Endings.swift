// The error state: what leads to it, what is flushed, and that nothing follows.

internal import RemoteMemory

extension VerbsConformance {
    static let endings = [
        VerbsCase("after a refused request nothing is executed, answered or delivered") { rig in
            try await rig.on { ends in
                try ends.write([1], at: 0)
                try ends.write([1], at: 1, key: RegionKey(rawValue: ~ends.key.rawValue))
                try ends.write([1], at: 2)
                try ends.read(1, at: 0)
                try ends.send([1])
            }
            try await rig.fails(.access)
            try await rig.expectEventually("failed at the target") { $0.targetRecorder.failure != nil }
            try await rig.on { ends in
                try expect(ends.recorder.completed == 1, "\(ends.recorder.completed) is completed, not 1")
                try expect(ends.region.durable[..<3] == [1, 0, 0], "stored is \(ends.region.durable[..<3])")
                try expect(ends.recorder.reads.isEmpty, "a READ behind the refused request is answered")
                try expect(ends.targetRecorder.messages.isEmpty, "a message behind the refused request arrives")
            }
        },
        VerbsCase("whoever closes hears it once, later, and the peer hears it too") { rig in
            try await rig.on { ends in
                try ends.write([1], at: 0)
                ends.close()
                ends.close()
                try expect(ends.recorder.failure == nil, "the failure comes from inside of close")
            }
            try await rig.fails(.disconnected)
            try await rig.on { try expect($0.recorder.completed == 0, "a flushed request is completed") }
            try await rig.expectEventually("heard at the other end") { $0.targetRecorder.failure != nil }
            try await rig.on { ends in
                let failure = ends.targetRecorder.failure!
                try expect(failure.code == .disconnected, "the other end hears '\(failure)'")
            }
        },
        VerbsCase("without a delegate a queue pair ends in silence") { rig in
            try await rig.on { ends in
                ends.initiator.delegate = nil
                ends.close()
            }
            try await rig.expectEventually("heard at the other end") { $0.targetRecorder.failure != nil }
            try await rig.on { try expect($0.recorder.failure == nil, "it speaks to a delegate that it lost") }
        },
        VerbsCase("the target closes while a persist is under way: what was posted is flushed") { rig in
            try await rig.on { try $0.write([1], at: 0) }
            try await rig.completes(1)
            try await rig.on { ends in
                ends.region.holdsPersists = true
                try ends.write([2], at: 0)
                try ends.flush()
            }
            try await rig.expectEventually("a persist begins") { $0.region.held.count == 1 }
            try await rig.on { ends in
                ends.target.close()
                // It ends when nobody can be told any more.
                ends.region.finishPersists()
            }
            try await rig.fails(.disconnected)
            try await rig.expectEventually("heard at the target") { $0.targetRecorder.failure != nil }
            try await rig.on { try expect($0.recorder.completed == 1, "a flushed request is completed") }
        },
        VerbsCase("both ends hear that the connection is lost, and nothing on the way is completed") { rig in
            try await rig.on { ends in
                ends.disturb(.stall)
                for index in 0..<4 { try ends.write([1], at: index) }
                ends.disturb(.cut)
            }
            try await rig.fails(.disconnected)
            try await rig.expectEventually("heard at the target") { $0.targetRecorder.failure != nil }
            try await rig.on { ends in
                try expect(ends.recorder.completed == 0, "what never arrived is completed")
                try expect(ends.region.bytes.allSatisfy { $0 == 0 }, "what was lost is stored")
            }
        },
        VerbsCase("a connection torn in the middle leaves the first few requests and a part of the next") { rig in
            let count = 9, size = 30_000
            try await rig.on { ends in
                ends.disturb(.stall)
                for index in 0..<count { try ends.write([UInt8](repeating: 1, count: size), at: index * size) }
                ends.disturb(.tear(afterBytes: 4 * size + size / 2))
            }
            try await rig.fails(.disconnected)
            try await rig.expectEventually("heard at the target") { $0.targetRecorder.failure != nil }
            try await rig.on { ends in
                let whole = (0..<count).prefix { index in
                    ends.region.bytes[index * size..<(index + 1) * size].allSatisfy { $0 == 1 }
                }.count
                try expect(1..<count ~= whole, "\(whole) of \(count) requests are stored")
                try expect(
                    ends.region.bytes[min(count, whole + 1) * size..<count * size].allSatisfy { $0 == 0 },
                    "a later request is stored than the first that is not whole")
                try expect(ends.recorder.completed <= whole, "more is completed than stored")
            }
        },
    ]
}
