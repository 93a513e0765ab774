// Who waits for a drain is answered within seconds, whatever becomes of the medium.

import AdminProtocol
import ClusterProtocol
import Glibc
import LogModel
import NIOCore
import StorageMedium
import TestSupport
import Testing

@testable import GroupEngine
@testable import GroupEngine
@testable import StorageNode

struct DrainTests {
    private static let group =
        "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}"

    enum Trouble: CaseIterable { case fails, hangs }

    @Test(
        "O16, O18: a drain while the medium fails or hangs is answered with the reason that status has; the next one is done",
        arguments: Trouble.allCases)
    func mediumTakesNothing(_ trouble: Trouble) async throws {
        let media = FaultyMedia()
        try await PairRig.run(groups: Self.group, adjust: media.take) { on in
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            let medium = try media.medium("alpha", "vol0")
            defer {
                medium.removeFaults()
                medium.releaseHeld()
            }
            medium.inject(trouble == .fails ? .fail(errno: EIO) : .hold, on: .write, count: .max)
            try await on { rig in
                let payload = ByteBuffer(repeating: 7, count: 4096)
                rig.submit(.write(offset: 0, payload: payload), to: "vol0", at: rig.alpha, as: "write")
            }
            try await on.eventually("acknowledged") { $0.done["write"] == "done" }
            try await drain("first", on)
            try await on.eventually("answered") { $0.done["first"] != nil }
            let answer = try #require(try await on { $0.done["first"] })
            let reason = trouble == .fails ? "Input/output error" : "a write does not return"
            #expect(answer.contains(reason) && answer.contains("alpha goes on trying"), "\(answer)")
            let told = try await on { $0.alpha.status().groups.first?.status.reason }
            #expect(told?.contains(reason) == true, "\(told ?? "no reason")")

            medium.removeFaults()
            medium.releaseHeld()
            try await drain("second", on)
            try await on.eventually("drained") { $0.done["second"] == "done" }
            let head = try await on { try #require($0.alpha.groups[GroupID("g0")]?.owner).owned.destage.head }
            #expect(head > .zero)
        }
    }

    private func drain(_ name: String, _ on: PairRig.Runner) async throws {
        try await on { rig in
            rig.alpha.administer(.drain(group: "g0")) { response in
                if case .refused(let reason) = response { rig.done[name] = reason } else { rig.done[name] = "done" }
            }
        }
    }
}
