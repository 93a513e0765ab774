// engine: so many mirrored writes through the whole engine of an owner and a mirror, in one process and one thread, with a transport in
// memory. It does the same work each time, whatever else the machine does: `Perf/instructions` counts what a write costs.

import ArgumentParser
import ClusterProtocol
import GroupEngine
import LogModel
import NIOCore
import PersistentMemory
import RemoteMemory
import WriteLog

struct EngineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "engine", abstract: "Mirrored writes through the engine, in one thread.", shouldDisplay: false)
    @Option(help: "Bytes of one write.") var size = "4KiB"
    @Option(help: "Writes under way at once.") var depth = 1
    @Option(help: "How many writes.") var writes = 1000

    func run() throws {
        guard let bytes = Size.parse(size), (1...CommonOptions.largestSizeBytes).contains(bytes) else {
            throw ValidationError("--size: '\(size)' is not a size")
        }
        let pool = try PerfPool(path: nil, purpose: "engine", groups: ["log", "mirror"], ringBytes: 16 << 20)
        let runtime = InlineRuntime()
        let log = try PerfPool.openLog(pool.regions[0])
        try pool.regions[1].format(role: .mirror, logUUID: .random(), incarnation: Incarnation(1), start: .zero)
        let rail = MemoryQueuePair(MirrorTarget(region: pool.regions[1], runtime: runtime), runtime)
        let owner = PerfOwner(log, runtime) { preconditionFailure($0) }
        rail.onCompleted = { owner.path.mirrorCompleted(through: $0) }
        owner.serve(rail, key: RegionKey(rawValue: 1), durable: log.head)
        let client = Client(owner.session, payload: ByteBuffer(repeating: 7, count: Int(bytes)))
        client.run(writes, depth: depth)
        runtime.drain()
        guard client.acknowledged == writes else {
            throw PerfError("\(client.acknowledged) of \(writes) writes are acknowledged")
        }
    }

    private final class Client {
        let session: any VolumeSession
        let payload: ByteBuffer
        var acknowledged = 0
        private var left = 0

        init(_ session: any VolumeSession, payload: ByteBuffer) {
            self.session = session
            self.payload = payload
        }

        func run(_ writes: Int, depth: Int) {
            left = writes
            for _ in 0..<min(depth, writes) { issue() }
        }

        private func issue() {
            guard left > 0 else { return }
            left -= 1
            let size = UInt64(payload.readableBytes)
            let offset = UInt64(left) * size % (PerfOwner.volumeBytes / size * size)
            session.submit(.write(offset: offset, payload: payload)) { [unowned self] _ in
                acknowledged += 1
                issue()
            }
        }
    }
}

/// Everything in turn, in one thread: what blocks runs when it is its turn.
private final class InlineRuntime: Runtime {
    private var turns = CircularBuffer<() -> Void>()
    private var timers: [(due: Nanos, body: () -> Void)] = []
    private(set) var now: Nanos = 1

    func execute(_ body: @escaping () -> Void) { turns.append(body) }
    func executeNextTurn(_ body: @escaping () -> Void) { turns.append(body) }
    func execute(after delay: Nanos, _ body: @escaping () -> Void) { timers.append((now + delay, body)) }

    func perform(
        _ work: BlockingWork, _ body: @escaping @Sendable () -> Void, _ done: @escaping ((any Error)?) -> Void
    ) {
        turns.append { [unowned self] in
            body()
            turns.append { done(nil) }
        }
    }

    /// A write at depth 1 is five turns and takes about as long as over a network: 20 us pass with each.
    func drain() {
        while true {
            if let due = timers.firstIndex(where: { $0.due <= now }) {
                timers.remove(at: due).body()
            } else if let turn = turns.popFirst() {
                now += 20_000
                turn()
            } else if let next = timers.map(\.due).min() {
                now = next
            } else {
                return
            }
        }
    }
}

/// A rail without a wire: what is posted in a turn is stored at once, and persisted and completed in the next.
private final class MemoryQueuePair: QueuePair {
    var delegate: (any QueuePairDelegate)?
    var onCompleted: (WorkRequestID) -> Void = { _ in }
    private let target: MirrorTarget
    private let runtime: InlineRuntime
    private var posted: WorkRequestID = 0
    private var isPersisting = false

    init(_ target: MirrorTarget, _ runtime: InlineRuntime) {
        self.target = target
        self.runtime = runtime
    }

    var creditBytes: Int { RemoteMemoryLimits.windowBytes }

    func postWrite(
        _ bytes: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try target.write(bytes, at: offset)
        return didPost()
    }

    func postAtomicWrite(
        _ value: UInt64, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try target.atomicWrite(value, at: offset)
        return didPost()
    }

    func postRead(key: RegionKey, offset: UInt64, length: Int) throws(RemoteMemoryError) -> WorkRequestID {
        throw RemoteMemoryError(.remoteOperation, "no READ is carried out here")
    }

    func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID { didPost() }
    func send(_ message: [UInt8]) throws(RemoteMemoryError) {}
    func close() {}

    private func didPost() -> WorkRequestID {
        posted += 1
        if !isPersisting {
            isPersisting = true
            runtime.execute { [unowned self] in
                isPersisting = false
                let last = posted
                target.persist { [unowned self] in
                    precondition($0 == nil)
                    onCompleted(last)
                }
            }
        }
        return posted
    }
}
