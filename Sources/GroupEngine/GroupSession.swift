// One client connection's use of one volume of an owned group.

internal import ClusterProtocol
internal import LogModel
internal import NIOCore
internal import PersistentMemory
internal import StorageMedium
internal import WriteLog

final class GroupSession: VolumeSession, WaitingSession {
    let owned: OwnedLog
    let requests: RequestQueue
    private let shipper: Shipper
    private let healer: Healer
    let volume: VolumeID
    let medium: any Medium
    var parkedBytes = 0
    var onUnparked: (() -> Void)?
    var onRevoked: (() -> Void)?
    private(set) var isClosed = false
    private(set) var isInputEnded = false

    init(
        _ owned: OwnedLog, _ requests: RequestQueue, _ shipper: Shipper, _ healer: Healer, volume: VolumeID,
        medium: any Medium
    ) {
        self.owned = owned
        self.requests = requests
        self.shipper = shipper
        self.healer = healer
        self.volume = volume
        self.medium = medium
        requests.enter(self)
    }

    func submit(_ request: VolumeRequest, completion: @escaping VolumeCompletion) {
        guard !isClosed, !owned.isRevoked else { return }
        switch request {
        case .read(let offset, let length):
            read(ByteRange(offset: offset, length: UInt64(length)), timed(completion))
        case .write(let offset, let payload):
            enqueue(offset, UInt64(payload.readableBytes), .data(payload), completion)
        case .discard(let offset, let length): enqueue(offset, length, .discard, completion)
        case .writeZeroes(let offset, let length, let mayRelease):
            enqueue(offset, length, .writeZeroes(keepSpace: !mayRelease), completion)
        case .flush: flush(completion)
        case .prefetch(let offset, let length): prefetch(ByteRange(offset: offset, length: length), completion)
        }
    }

    func endInput() { isInputEnded = true }

    func close() {
        guard !isClosed else { return }
        isClosed = true
        requests.leave(self, tail: owned.log.tail)
        requests.sessionsMayOpen(owned.acknowledged)
        onRevoked = nil
        onUnparked = nil
    }

    func revoked() {
        guard !isClosed else { return }
        isClosed = true
        onRevoked?()
        onRevoked = nil
        onUnparked = nil
    }

    private func enqueue(
        _ offset: UInt64, _ length: UInt64, _ kind: WaitingRequest.Kind, _ completion: @escaping VolumeCompletion
    ) {
        guard length > 0 else { return completion(.success(nil)) }
        requests.enqueue(
            WaitingRequest(
                session: self, volume: volume, offset: offset, lengthBytes: length, kind: kind, arrived: owned.arrival,
                completion: completion))
        owned.schedulePump()
    }

    /// Everything answered before is durable in every store that must hold it (S1), so there is nothing to wait for
    /// but the right to answer (S25).
    private func flush(_ completion: @escaping VolumeCompletion) {
        guard owned.mayServe else {
            return requests.hold(self) { self.flush(completion) }
        }
        completion(.success(nil))
    }

    // MARK: Reads

    private func timed(_ completion: @escaping VolumeCompletion) -> VolumeCompletion {
        let owned = owned, start = owned.runtime.now
        return { result in
            owned.stages.record(.read, from: start, to: owned.runtime.now)
            completion(result)
        }
    }

    private func read(_ range: ByteRange, _ completion: @escaping VolumeCompletion) {
        guard owned.mayServe else {
            return requests.hold(self) { self.read(range, completion) }
        }
        guard range.length > 0 else { return completion(.success(ByteBuffer())) }
        guard isSound(range, completion) else { return }
        if owned.overlay.covers(volume, range) {
            var buffer = ByteBuffer()
            buffer.writeRepeatingByte(0, count: Int(range.length))
            owned.copyOverlay(volume, range, into: &buffer)
            return answer(range, buffer, completion)
        }
        readMedium(range, completion)
    }

    /// Whether what the log has of `range` passes its checks (S26). If not, or if more is to be checked than one turn of the loop
    /// bears, the read begins anew when that has changed, or fails.
    private func isSound(_ range: ByteRange, _ completion: @escaping VolumeCompletion) -> Bool {
        switch owned.checkOverlay(volume, range) {
        case .sound: return true
        case .unfinished: owned.runtime.executeNextTurn { self.readAnew(range, completion) }
        case .damaged(let damaged):
            healer.heal(damaged) { [self] outcome in
                guard !isClosed, !owned.isRevoked else { return }
                switch outcome {
                case .healed: readAnew(range, completion)
                case .interrupted: requests.hold(self) { self.readAnew(range, completion) }
                case .lost(let reason): completion(.failure(.readFailed(reason)))
                }
            }
        }
        return false
    }

    private func readAnew(_ range: ByteRange, _ completion: @escaping VolumeCompletion) {
        guard !isClosed, !owned.isRevoked else { return }
        read(range, completion)
    }

    /// Memory that failed reads as zeros, which nobody is told (S26). The partner has the bytes and will have the group;
    /// without one they are lost.
    private func answer(_ range: ByteRange, _ buffer: ByteBuffer, _ completion: @escaping VolumeCompletion) {
        guard let fault = owned.log.region.memoryFault else { return completion(.success(buffer)) }
        guard shipper.mirror == nil else {
            return requests.hold(self) { self.read(range, completion) }
        }
        completion(.failure(.readFailed(fault.description)))
    }

    private func readMedium(_ range: ByteRange, _ completion: @escaping VolumeCompletion) {
        if let result = readNow(range) { return answer(range, result, completion) }
        let id = owned.destage.beginRead()
        let medium = medium
        let length = Int(range.length)
        owned.runtime.run(.reads) { () -> ByteBuffer in
            var buffer = ByteBufferAllocator().buffer(capacity: length)
            try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { space in
                try medium.read(into: UnsafeMutableRawBufferPointer(rebasing: space[..<length]), at: range.offset)
                return length
            }
            return buffer
        } _: { [self] result in
            defer { owned.endRead(id) }
            guard !isClosed, !owned.isRevoked else { return }
            answer(range, result, completion)
        }
    }

    /// What needs no device is read here: a thread costs several times as much. `nil` if it is for a thread.
    private func readNow(_ range: ByteRange) -> Result<ByteBuffer, any Error>? {
        guard owned.readBudget.take(range.length, owned.runtime.now) else { return nil }
        let length = Int(range.length)
        var buffer = ByteBufferAllocator().buffer(capacity: length)
        let result = buffer.withUnsafeMutableWritableBytes { space in
            Result { () throws(MediumError) in
                try medium.readNow(into: UnsafeMutableRawBufferPointer(rebasing: space[..<length]), at: range.offset)
            }
        }
        switch result {
        case .success(true):
            buffer.moveWriterIndex(forwardBy: length)
            return .success(buffer)
        case .success(false): return nil
        case .failure(let error): return .failure(error)
        }
    }

    /// What the medium gave, with what the log has over it.
    private func answer(
        _ range: ByteRange, _ read: Result<ByteBuffer, any Error>, _ completion: @escaping VolumeCompletion
    ) {
        guard owned.mayServe else {
            // The lease ran out meanwhile: what was read may be another owner's past (S17).
            return requests.hold(self) { self.read(range, completion) }
        }
        switch read {
        case .success(var buffer):
            guard isSound(range, completion) else { return }
            owned.copyOverlay(volume, range, into: &buffer)
            answer(range, buffer, completion)
        case .failure(let error): completion(.failure(.readFailed("\(error)")))
        }
    }
}
