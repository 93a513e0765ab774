// A mirror whose memory hangs, as that of a pool on a disk whose path is gone, while its node lives.

import ClusterProtocol
import Coordination
import Glibc
import LogModel
import NIOCore
import NIOPosix
import PersistentMemory
import Synchronization
import Testing

@testable import GroupEngine
@testable import StorageNode

struct HungMemoryTests {
    private final class Gate: Sendable {
        private let isOpen = Mutex(false)
        func open() { isOpen.withLock { $0 = true } }
        func wait() { while !isOpen.withLock({ $0 }) { usleep(500) } }
    }

    private static let group =
        "  g0: {home: alpha, mirror: beta, log: 4MiB, volumes: {vol0: {medium: vol0.img, size: 1MiB}}}"

    @Test("S13: a mirror that lives and makes nothing durable is counted out, and comes back when it does again")
    func hungMirror() async throws {
        try await PairRig.run(groups: Self.group, timeout: "400ms", in: "/tmp") { on in
            guard try await on({ $0.beta.pool.persistence == .msync }) else {
                return print("skipped: /tmp is in memory here, not on a disk")
            }
            try await on.eventually("mirrored") { $0.isMirrored($0.alpha, "g0") }
            let gate = Gate()
            defer { gate.open() }
            try await on { rig in
                for _ in 0..<GroupThreads.memoryThreadCount(groups: 1) {
                    rig.beta.memoryThreads.submit { _ in gate.wait() }
                }
            }
            for number in 1...3 {
                let name = "write \(number)"
                try await on { rig in
                    rig.submit(.write(offset: 0, payload: ByteBuffer(string: "x")), to: "vol0", at: rig.alpha, as: name)
                }
                try await on.eventually(name) { $0.done[name] == "done" }
                let inSync = try await on { $0.alpha.groups[GroupID("g0")]?.machine.record?.inSync }
                #expect(inSync == [NodeID("alpha")])
            }
            gate.open()
            try await on.eventually("mirrored again") { $0.isMirrored($0.alpha, "g0") }
        }
    }
}
