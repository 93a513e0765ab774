// Who hears what became of a command.

import ClusterProtocol
import LogModel
import Testing

@testable import GroupEngine
@testable import StorageNode

struct CommandTests {
    @Test("of two equal commands each is answered by what became of itself")
    func equalCommands() async throws {
        let groups = "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}"
        try await PairRig.run(groups: groups) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            try await on { rig in
                let group = try #require(rig.alpha.groups[GroupID("g0")])
                for name in ["first", "second"] {
                    group.command(.handOver) { rig.done[name] = $0 ?? "done" }
                }
            }
            try await on.eventually("both are answered") { $0.done.count == 2 }
            let answers = try await on { $0.done }
            #expect(answers["first"] == "done")
            #expect(answers["second"]?.contains("another command") == true)
        }
    }
}
