// A connected pair of queue pairs in the hands of a test: the region at the target to look into, the way between the two to disturb.

package import RemoteMemory

/// What befalls the way from the initiator to the target.
package enum Disturbance: Sendable {
    /// What either side sends arrives only after `goOn`.
    case stall
    case goOn
    /// The connection is lost, with whatever is on the way; each side hears of it in its own time.
    case cut
    /// Ends a stall: the target gets about so many bytes of what waits, then the connection is lost.
    case tear(afterBytes: Int)
}

/// Bound to the place where its queue pairs live.
package final class RailEnds {
    /// More than one transfer carries, and no multiple of it.
    package static let regionBytes = (2 << 20) + 4096

    /// Posts; the region is at the target. Either side may post, so the initiator has one too.
    package let initiator: any QueuePair, target: any QueuePair
    package let recorder = Recorder(), targetRecorder = Recorder()
    package let registry: any RegionRegistry, initiatorRegistry: any RegionRegistry
    package let region = FakeRegion(regionBytes), initiatorRegion = FakeRegion(regionBytes)
    package let key: RegionKey, initiatorKey: RegionKey
    private let carryOut: (Disturbance, FakeRegion) -> Void

    /// Becomes the delegate of both. `disturb` is told the region that the initiator writes to.
    package init(
        initiator: any QueuePair, target: any QueuePair, registry: any RegionRegistry,
        initiatorRegistry: any RegionRegistry, disturb: @escaping (Disturbance, FakeRegion) -> Void
    ) {
        self.initiator = initiator
        self.target = target
        self.registry = registry
        self.initiatorRegistry = initiatorRegistry
        carryOut = disturb
        key = registry.register(region, lengthBytes: UInt64(Self.regionBytes))
        initiatorKey = initiatorRegistry.register(initiatorRegion, lengthBytes: UInt64(Self.regionBytes))
        initiator.delegate = recorder
        target.delegate = targetRecorder
    }

    package func disturb(_ disturbance: Disturbance) { carryOut(disturbance, region) }

    // MARK: Calls of the queue pair, from which none of its own may come

    @discardableResult
    package func write(
        _ bytes: [UInt8], at offset: Int, key: RegionKey? = nil
    ) throws(RemoteMemoryError) -> WorkRequestID {
        let result = bytes.withUnsafeBytes { bytes in
            inside { () throws(RemoteMemoryError) in
                try initiator.postWrite(bytes, key: key ?? self.key, offset: UInt64(bitPattern: Int64(offset)))
            }
        }
        return try result.get()
    }

    @discardableResult
    package func atomicWrite(
        _ value: UInt64, at offset: Int, key: RegionKey? = nil
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try inside { () throws(RemoteMemoryError) in
            try initiator.postAtomicWrite(value, key: key ?? self.key, offset: UInt64(offset))
        }.get()
    }

    @discardableResult
    package func read(
        _ length: Int, at offset: Int, key: RegionKey? = nil
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try inside { () throws(RemoteMemoryError) in
            try initiator.postRead(key: key ?? self.key, offset: UInt64(bitPattern: Int64(offset)), length: length)
        }.get()
    }

    @discardableResult
    package func flush() throws(RemoteMemoryError) -> WorkRequestID {
        try inside { () throws(RemoteMemoryError) in try initiator.postFlush(key: key) }.get()
    }

    package func send(_ message: [UInt8]) throws(RemoteMemoryError) {
        try inside { () throws(RemoteMemoryError) in try initiator.send(message) }.get()
    }

    package func close() { inside { initiator.close() } }

    private func inside<Value>(_ call: () -> Value) -> Value {
        recorder.isInside = true
        defer { recorder.isInside = false }
        return call()
    }

    private func inside<Value>(
        _ call: () throws(RemoteMemoryError) -> Value
    ) -> Result<Value, RemoteMemoryError> {
        inside { Result { () throws(RemoteMemoryError) in try call() } }
    }
}

/// A transport's pair as the conformance suite sees it, which does not run where the queue pairs live.
package protocol RailRig: Sendable {
    /// Runs `body` where they live, in one turn: nothing arrives meanwhile.
    @discardableResult
    func on<Value: Sendable>(_ body: @escaping @Sendable (RailEnds) throws -> Value) async throws -> Value
    /// Lets the transport go on until `condition` holds; false if it never does.
    func eventually(_ condition: @escaping @Sendable (RailEnds) -> Bool) async throws -> Bool
}
