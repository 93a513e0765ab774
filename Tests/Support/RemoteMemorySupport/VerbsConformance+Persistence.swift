// S11: a completion means persisted, and covers every request before it.

internal import RemoteMemory

extension VerbsConformance {
    static let persistence = [
        VerbsCase("S11: nothing is completed before it is persisted, and a persist covers only what it found") { rig in
            try await rig.on { ends in
                ends.region.holdsPersists = true
                try ends.write([1], at: 0)
                try ends.flush()
            }
            try await rig.expectEventually("a persist begins") { $0.region.held.count == 1 && $0.region.bytes[0] == 1 }
            try await rig.on { try $0.write([2], at: 1) }
            try await rig.expectEventually("stored beside a persist") { $0.region.bytes[1] == 2 }
            // A completion that was sent would be before this message.
            try await rig.isHeardFromTarget([0])
            try await rig.on { ends in
                try expect(ends.recorder.completed == 0, "\(ends.recorder.completed) is completed, not persisted")
                ends.region.finishPersists()
                ends.region.holdsPersists = true
            }
            try await rig.expectEventually("a persist covers the WRITE beside the first") {
                $0.region.held.count == 1 || $0.region.durable[1] == 2
            }
            try await rig.isHeardFromTarget([1])
            try await rig.on { ends in
                try expect(
                    ends.recorder.completed <= 2 || ends.region.durable[1] == 2,
                    "\(ends.recorder.completed) is completed by a persist that began before it was stored")
                ends.region.finishPersists()
            }
            try await rig.completes(3)
            try await rig.on { try expect($0.region.durable[..<2] == [1, 2], "what is completed is not durable") }
        },
        VerbsCase("S11: a completion is cumulative, and the last of a burst needs no other post") { rig in
            let count = 40
            try await rig.on { ends in
                ends.recorder.onCompleted = { [unowned ends] id in
                    // At each completion, what it covers is durable.
                    if ends.region.durable[..<Int(id)].contains(0) { ends.initiatorRegion.bytes[0] = 1 }
                }
                for index in 0..<count { try ends.write([UInt8(index + 1)], at: index) }
            }
            try await rig.completes(WorkRequestID(count))
            try await rig.on { ends in
                try expect(ends.initiatorRegion.bytes[0] == 0, "a completion covers a request that is not persisted")
                try expect(
                    ends.recorder.completions.count <= count, "\(ends.recorder.completions) completes \(count) requests"
                )
            }
        },
        VerbsCase("S11: a FLUSH and a READ complete behind persisted WRITEs too") { rig in
            for verb in 0..<2 {
                try await rig.on { ends in
                    ends.region.holdsPersists = true
                    try ends.write([UInt8(verb + 1)], at: 10)
                    if verb == 0 { try ends.flush() } else { try ends.read(1, at: 10) }
                }
                try await rig.expectEventually("a persist begins") { !$0.region.held.isEmpty }
                try await rig.isHeardFromTarget([UInt8(verb)])
                try await rig.on { ends in
                    try expect(
                        ends.recorder.completed == WorkRequestID(verb * 2), "the verb is completed before a WRITE is")
                    ends.region.finishPersists()
                }
                try await rig.completes(WorkRequestID(verb * 2 + 2))
                try await rig.on { try expect($0.region.durable[10] == verb + 1, "the WRITE is not durable") }
            }
        },
        VerbsCase("S11: a persist that fails completes nothing, and says why") { rig in
            try await rig.on { ends in
                ends.region.persistError = RemoteMemoryError(.remoteOperation, "the memory is broken")
                try ends.write([1], at: 0)
                try ends.flush()
            }
            try await rig.fails(.remoteOperation)
            try await rig.on { ends in
                try expect(ends.recorder.completed == 0, "\(ends.recorder.completed) is completed, not persisted")
                try expect(
                    ends.recorder.failure!.message.contains("the memory is broken"),
                    "the failure says '\(ends.recorder.failure!.message)'")
            }
        },
    ]
}
