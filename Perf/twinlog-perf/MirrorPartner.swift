// The partner of `mirror`: a second process with a mirror log of its own, served over the real transport, and the TCP
// floor beside it. It ends when its standard input does, so it never outlives the one that started it.

import ArgumentParser
import Dispatch
import Foundation
import Glibc
import GroupEngine
import HostProcess
import LogModel
import LoopPolling
import NIOCore
import NIOPosix
import PersistentMemory
import RemoteMemory
import RemoteMemoryTCP
import StorageNode

/// Both ends of the rail have one secret, which the partner makes and tells.
enum PerfRail {
    static let owner = NodeID("owner"), partner = NodeID("partner")

    static func identity(of node: NodeID, secret: ClusterSecret) -> RailIdentity {
        RailIdentity(
            cluster: "perf", node: node, secret: secret,
            configurationDigest: [UInt8](repeating: 0, count: RailIdentity.digestByteCount))
    }
}

/// What the partner tells on its standard output, as one line of JSON.
struct PartnerAnnouncement: Codable {
    var railPort: Int
    var key: UInt64
    /// The rail's, in hexadecimal digits.
    var secret: String
    var floorPort: UInt16
    var streamFloorPort: UInt16
    var memory: String
}

struct MirrorPartnerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mirror-partner", abstract: "The second process of mirror.", shouldDisplay: false)
    @Option var pool: String?
    @Option var ring: UInt64 = perfRingBytes
    @OptionGroup var polling: PollingOption

    func run() throws {
        let pool = try PerfPool(path: pool, purpose: "mirror-partner", groups: ["mirror", "floor"], ringBytes: ring)
        let region = pool.regions[0]
        try region.format(role: .mirror, logUUID: .random(), incarnation: Incarnation(1), start: .zero)
        let floor = try FloorServer.start()
        let streamFloor = try StreamFloorServer.start(pool.regions[1])
        let secret = ClusterSecret.random()
        let (port, key) = try startRail(region, secret)
        let announcement = PartnerAnnouncement(
            railPort: port, key: key, secret: secret.hexadecimal, floorPort: floor.port,
            streamFloorPort: streamFloor.port, memory: pool.memory)
        try StandardOutput.line(String(decoding: try JSONEncoder().encode(announcement), as: UTF8.self))
        try StandardOutput.flush()
        while try FileHandle.standardInput.read(upToCount: 1)?.isEmpty == false {}
        // Whatever is still open ends with the process.
        Foundation.exit(0)
    }

    private func startRail(_ region: Region, _ secret: ClusterSecret) throws -> (port: Int, key: UInt64) {
        let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        return try eventLoop.flatSubmit {
            let registry = TCPRegionRegistry()
            let runtime = LoopRuntime(eventLoop: eventLoop, threads: .ofOneGroup())
            let target = MirrorTarget(region: region, runtime: runtime)
            let key = registry.register(target, lengthBytes: MirrorTarget.lengthBytes(ring: region.ringBytes))
            let silent = SilentDelegate()
            let listener = TCPMirrorListener(
                identity: PerfRail.identity(of: PerfRail.partner, secret: secret), registry: registry,
                eventLoop: eventLoop, poller: LoopPoller(polling.mode, eventLoop: eventLoop)
            ) { rail, _ in
                rail.delegate = silent
            }
            // They live as long as the process.
            _ = Unmanaged.passRetained(listener)
            _ = Unmanaged.passRetained(silent)
            return listener.listen(on: TCPAddress("127.0.0.1:0")!).flatMapThrowing { address in
                guard let port = address.port else { throw PerfError("the rail has no port") }
                return (port, key.rawValue)
            }
        }.wait()
    }
}

/// The target's side asks nothing and is told nothing.
private final class SilentDelegate: QueuePairDelegate {
    func queuePair(_ queuePair: any QueuePair, completedThrough id: WorkRequestID) {}
    func queuePair(_ queuePair: any QueuePair, read id: WorkRequestID, returned bytes: [UInt8]) {}
    func queuePair(_ queuePair: any QueuePair, received message: [UInt8]) {}
    func queuePairHeard(_ queuePair: any QueuePair) {}
    func queuePair(_ queuePair: any QueuePair, failed error: RemoteMemoryError) {}
}
