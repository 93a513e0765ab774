// The verbs in memory, the whole contract in the least code: what one end posts stands in a queue until `MemoryRail` carries it over, and
// every carried frame is executed at once. Begin here to write a transport.

package import RemoteMemory

/// The regions of one end.
package final class MemoryRegistry: RegionRegistry {
    final class Entry {
        let target: any RegionTarget
        let lengthBytes: UInt64
        var persistsUnderWay = 0
        var onIdle: [() -> Void] = []

        init(_ target: any RegionTarget, lengthBytes: UInt64) {
            self.target = target
            self.lengthBytes = lengthBytes
        }

        func persisted() {
            persistsUnderWay -= 1
            guard persistsUnderWay == 0 else { return }
            let waiting = onIdle
            onIdle = []
            for body in waiting { body() }
        }
    }

    private var entries: [RegionKey: Entry] = [:]

    package init() {}

    package func register(_ target: any RegionTarget, lengthBytes: UInt64) -> RegionKey {
        var key: RegionKey
        repeat { key = RegionKey(rawValue: .random(in: 1 ... .max)) } while entries[key] != nil
        entries[key] = Entry(target, lengthBytes: lengthBytes)
        return key
    }

    package func revoke(_ key: RegionKey, sealed: @escaping () -> Void) {
        guard let entry = entries.removeValue(forKey: key), entry.persistsUnderWay > 0 else { return sealed() }
        entry.onIdle.append(sealed)
    }

    func entry(_ key: RegionKey, offset: UInt64, count: Int) throws(RemoteMemoryError) -> Entry {
        guard let entry = entries[key] else {
            throw RemoteMemoryError(.access, "the key is revoked or was never given")
        }
        guard offset <= entry.lengthBytes, UInt64(count) <= entry.lengthBytes - offset else {
            throw RemoteMemoryError(.access, "\(count) bytes at \(offset) are outside of the region")
        }
        return entry
    }
}

/// Two connected ends, and what is on the way between them.
package final class MemoryRail {
    fileprivate enum Operation {
        case write([UInt8])
        case atomicWrite(UInt64)
        case read(length: Int)
        case flush

        var byteCount: Int {
            switch self {
            case .write(let bytes): bytes.count
            case .atomicWrite: 8
            case .read(let length): length
            case .flush: 0
            }
        }
    }

    fileprivate enum Frame {
        case request(WorkRequestID, Operation, key: RegionKey, offset: UInt64)
        case message([UInt8])
        case completed(WorkRequestID)
        case readData(WorkRequestID, [UInt8])
        case refused(RemoteMemoryError)
        case end
    }

    package let initiator: MemoryQueuePair, target: MemoryQueuePair
    private var onTheWay: [(to: MemoryQueuePair, frame: Frame)] = []
    private var laterCalls: [() -> Void] = []
    private var isStalled = false

    package init(initiator: MemoryRegistry, target: MemoryRegistry) {
        self.initiator = MemoryQueuePair(initiator)
        self.target = MemoryQueuePair(target)
        self.initiator.connect(self, to: self.target)
        self.target.connect(self, to: self.initiator)
    }

    fileprivate func carry(_ frame: Frame, to end: MemoryQueuePair) { onTheWay.append((end, frame)) }
    fileprivate func later(_ call: @escaping () -> Void) { laterCalls.append(call) }

    /// One call or frame. False if nothing is to be done.
    package func step() -> Bool {
        if !laterCalls.isEmpty {
            laterCalls.removeFirst()()
        } else if !isStalled, !onTheWay.isEmpty {
            let (end, frame) = onTheWay.removeFirst()
            end.arrived(frame)
        } else {
            return false
        }
        return true
    }

    package func disturb(_ disturbance: Disturbance) {
        switch disturbance {
        case .stall: isStalled = true
        case .goOn: isStalled = false
        case .cut: lose()
        case .tear(let bytes): lose(after: bytes)
        }
    }

    private func lose(after limit: Int) {
        var bytes = 0
        while bytes < limit, !onTheWay.isEmpty {
            let (end, frame) = onTheWay.removeFirst()
            if case .request(_, let operation, _, _) = frame { bytes += operation.byteCount }
            end.arrived(frame)
        }
        lose()
    }

    private func lose() {
        onTheWay = []
        for end in [initiator, target] { end.fail(RemoteMemoryError(.disconnected, "the connection is lost")) }
    }
}

package final class MemoryQueuePair: QueuePair {
    package weak var delegate: (any QueuePairDelegate)?
    private let registry: MemoryRegistry
    private unowned var rail: MemoryRail!
    private unowned var peer: MemoryQueuePair!
    private var failure: RemoteMemoryError?

    // The initiator's side
    private var lastPosted: WorkRequestID = 0
    private var outstanding: [(id: WorkRequestID, bytes: Int)] = []

    // The target's side
    private var lastExecuted: WorkRequestID = 0
    private var touched: [MemoryRegistry.Entry] = []
    private var isPersisting = false
    private var refusal: RemoteMemoryError?

    fileprivate init(_ registry: MemoryRegistry) { self.registry = registry }

    fileprivate func connect(_ rail: MemoryRail, to peer: MemoryQueuePair) {
        self.rail = rail
        self.peer = peer
    }

    // MARK: Posting

    package var creditBytes: Int {
        guard failure == nil, outstanding.count < RemoteMemoryLimits.windowRequests else { return 0 }
        return RemoteMemoryLimits.windowBytes - outstanding.reduce(0) { $0 + $1.bytes }
    }

    package func postWrite(
        _ bytes: UnsafeRawBufferPointer, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try post(.write(Array(bytes)), key, offset)
    }

    package func postAtomicWrite(
        _ value: UInt64, key: RegionKey, offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        guard offset % 8 == 0 else { throw RemoteMemoryError(.invalidRequest, "a word at \(offset) is not aligned") }
        return try post(.atomicWrite(value), key, offset)
    }

    package func postRead(
        key: RegionKey, offset: UInt64, length: Int
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try post(.read(length: length), key, offset)
    }

    package func postFlush(key: RegionKey) throws(RemoteMemoryError) -> WorkRequestID { try post(.flush, key, 0) }

    private func post(
        _ operation: MemoryRail.Operation, _ key: RegionKey, _ offset: UInt64
    ) throws(RemoteMemoryError) -> WorkRequestID {
        try check(operation.byteCount)
        guard outstanding.count < RemoteMemoryLimits.windowRequests, operation.byteCount <= creditBytes else {
            throw RemoteMemoryError(.noCredit, "the window is full")
        }
        lastPosted += 1
        outstanding.append((lastPosted, operation.byteCount))
        rail.carry(.request(lastPosted, operation, key: key, offset: offset), to: peer)
        return lastPosted
    }

    package func send(_ message: [UInt8]) throws(RemoteMemoryError) {
        try check(message.count)
        rail.carry(.message(message), to: peer)
    }

    private func check(_ byteCount: Int) throws(RemoteMemoryError) {
        if let failure { throw failure }
        guard 0...RemoteMemoryLimits.maximumTransferBytes ~= byteCount else {
            throw RemoteMemoryError(.invalidRequest, "\(byteCount) bytes are not what one request carries")
        }
    }

    package func close() {
        if failure == nil { rail.carry(.end, to: peer) }
        fail(RemoteMemoryError(.disconnected, "closed by this side"))
    }

    fileprivate func fail(_ error: RemoteMemoryError) {
        guard failure == nil else { return }
        failure = error
        outstanding = []
        rail.later { [self] in
            delegate?.queuePair(self, failed: error)
            delegate = nil
        }
    }

    // MARK: What arrives

    fileprivate func arrived(_ frame: MemoryRail.Frame) {
        guard failure == nil, refusal == nil else { return }
        switch frame {
        case .request(let id, let operation, let key, let offset): execute(id, operation, key, offset)
        case .message(let bytes): delegate?.queuePair(self, received: bytes)
        case .completed(let id):
            outstanding.removeAll { $0.id <= id }
            delegate?.queuePair(self, completedThrough: id)
        case .readData(let id, let bytes): delegate?.queuePair(self, read: id, returned: bytes)
        case .refused(let error): fail(error)
        case .end: fail(RemoteMemoryError(.disconnected, "the connection ended"))
        }
        if failure == nil { delegate?.queuePairHeard(self) }
    }

    // MARK: The target's side

    private func execute(
        _ id: WorkRequestID, _ operation: MemoryRail.Operation, _ key: RegionKey, _ offset: UInt64
    ) {
        do throws(RemoteMemoryError) {
            let entry = try registry.entry(key, offset: offset, count: operation.byteCount)
            try carryOut(operation, id, at: entry.target, offset)
            lastExecuted = id
            touched.append(entry)
        } catch {
            refusal = error
        }
        persist()
    }

    private func carryOut(
        _ operation: MemoryRail.Operation, _ id: WorkRequestID, at target: any RegionTarget, _ offset: UInt64
    ) throws(RemoteMemoryError) {
        switch operation {
        case .write(let bytes):
            let stored = bytes.withUnsafeBytes { bytes in
                Result { () throws(RemoteMemoryError) in try target.write(bytes, at: offset) }
            }
            try stored.get()
        case .atomicWrite(let value): try target.atomicWrite(value, at: offset)
        case .read(let length):
            var bytes = [UInt8](repeating: 0, count: length)
            let read = bytes.withUnsafeMutableBytes { space in
                Result { () throws(RemoteMemoryError) in try target.read(into: space, at: offset) }
            }
            try read.get()
            rail.carry(.readData(id, bytes), to: peer)
        case .flush: break
        }
    }

    /// One persist at a time; what is stored meanwhile has the next.
    private func persist() {
        guard !isPersisting, failure == nil else { return }
        guard !touched.isEmpty else { return refuse() }
        isPersisting = true
        let through = lastExecuted
        var entries: [MemoryRegistry.Entry] = []
        for entry in touched where !entries.contains(where: { $0 === entry }) { entries.append(entry) }
        touched = []
        var waiting = entries.count
        var failed: RemoteMemoryError?
        for entry in entries {
            entry.persistsUnderWay += 1
            entry.target.persist { [self] error in
                entry.persisted()
                failed = failed ?? error
                waiting -= 1
                if waiting == 0 { persisted(through, failed) }
            }
        }
    }

    private func persisted(_ through: WorkRequestID, _ failed: RemoteMemoryError?) {
        isPersisting = false
        guard failure == nil else { return }
        if let failed {
            refusal = refusal ?? failed
            return refuse()
        }
        rail.carry(.completed(through), to: peer)
        persist()
    }

    private func refuse() {
        guard let refusal else { return }
        rail.carry(.refused(refusal), to: peer)
        fail(refusal)
    }
}
