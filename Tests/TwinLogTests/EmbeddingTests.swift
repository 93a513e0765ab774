// The README's examples, as they stand there.

import ClusterHarness
import Foundation
import Logging
import NIOCore
import NIOPosix
import Testing
import TwinLog

struct EmbeddingTests {
    private func withFolder(_ body: (String) async throws -> Void) async throws {
        let folder = "/dev/shm/twinlog-embedding-\(UUID128.random())"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { _ = Result { try FileManager.default.removeItem(atPath: folder) } }
        try await body(folder)
    }

    @Test func aLogOfItsOwn() async throws {
        try await withFolder { folder in
            let pool = try Pool.create(
                path: folder + "/log.pool", sizeBytes: 32 << 20,
                identity: PoolIdentity(uuid: .random(), cluster: "demo", node: NodeID("alpha")), persistence: .auto)
            let region = try pool.allocateRegion(group: GroupID("g0"), ringBytes: 16 << 20)
            try region.format(role: .owner, logUUID: .random(), incarnation: Incarnation(1), start: .zero)

            let log = try WriteLog(region: region)
            let bytes: [UInt8] = Array("a write".utf8)
            let outcome = bytes.withUnsafeBytes {
                log.append(volume: VolumeID(name: "vol0"), offset: 4096, .data($0), acknowledged: log.head)
            }
            guard case .appended(let place) = outcome else { throw LogIsFull() }

            // After a crash: what is in the log goes to the medium, in order and verified.
            let medium = try FileMedium.open(path: folder + "/vol0.img", sizeBytes: 1 << 20, createIfMissing: true)
            let replayed = try Replay.run(region, onto: [VolumeID(name: "vol0"): medium])
            #expect(replayed?.endLSN == place.end && replayed?.writes == 1)
            let image = try Data(contentsOf: URL(fileURLWithPath: folder + "/vol0.img"))
            #expect(image[4096..<4103] == Data("a write".utf8))
        }
    }

    private struct LogIsFull: Error {}

    @Test func aNodeInsideAStorageServer() async throws {
        try await withFolder { folder in
            let text = """
                cluster: demo
                coordinator: {type: file, path: coordinator}
                nodes:
                  alpha:
                    mirror: [127.0.0.1:\(try LocalCluster.freePort())]
                    nbd: unix:alpha.nbd
                    admin: alpha.sock
                    pool: {path: alpha.pool, size: 24MiB}
                  beta:
                    mirror: [127.0.0.1:\(try LocalCluster.freePort())]
                    nbd: unix:beta.nbd
                    admin: beta.sock
                    pool: {path: beta.pool, size: 24MiB}
                groups:
                  g0:
                    home: alpha
                    mirror: beta
                    log: 4MiB
                    volumes:
                      vol0: {medium: vol0.img, size: 16MiB}
                """
            try text.write(toFile: folder + "/cluster.yaml", atomically: true, encoding: .utf8)
            try await serve(folder + "/cluster.yaml")
        }
    }

    private func serve(_ path: String) async throws {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let configuration = try ClusterConfiguration.load(path: path)
        var logger = Logger(label: "server")
        logger.logLevel = .error
        let pool = try ServerNode.openPool(configuration: configuration, node: NodeID("alpha"), logger: logger)
        let log = logger
        let node = try await eventLoop.submit {
            let node = try ServerNode(
                configuration: configuration, node: NodeID("alpha"), pool: pool, eventLoop: eventLoop, logger: log)
            return NIOLoopBound(node, eventLoop: eventLoop)
        }.get()
        try await eventLoop.flatSubmit { node.value.start() }.get()

        let session = try await open("vol0", of: node, on: eventLoop)
        let written = ByteBuffer(string: "a write")
        let answer = eventLoop.makePromise(of: ByteBuffer?.self)
        eventLoop.execute {
            // Acknowledged: durable in every log that the group requires.
            session.value.submit(.write(offset: 4096, payload: written)) { _ in
                session.value.submit(.read(offset: 4096, length: 7)) { answer.completeWith($0.mapError { $0 }) }
            }
        }
        #expect(try await answer.futureResult.get() == written)
        try await eventLoop.flatSubmit { node.value.stop() }.get()
    }

    /// The volume is served as soon as this node has claimed and recovered its group.
    private func open(
        _ volume: String, of node: NIOLoopBound<ServerNode>, on eventLoop: any EventLoop
    ) async throws -> NIOLoopBound<any VolumeSession> {
        for _ in 0..<1000 {
            let ready = eventLoop.makePromise(of: NIOLoopBound<any VolumeSession>.self)
            eventLoop.execute {
                node.value.open(volume) { result in
                    ready.completeWith(result.map { NIOLoopBound($0, eventLoop: eventLoop) }.mapError { $0 })
                }
            }
            do { return try await ready.futureResult.get() } catch let refusal as VolumeRefusal {
                guard refusal.code == .notReady else { throw refusal }
            }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw NotServed()
    }

    private struct NotServed: Error {}
}
