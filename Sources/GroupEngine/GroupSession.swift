// One client connection's use of one volume of an owned group.

internal import ClusterProtocol
internal import LogModel
internal import NIOCore
internal import PersistentMemory
internal import StorageMedium
internal import WriteLog

final class GroupSession: VolumeSession {
    let log: OwnerLog
    let volume: VolumeID
    let medium: any Medium
    var parkedBytes = 0
    var onUnparked: (() -> Void)?
    var onRevoked: (() -> Void)?
    private(set) var isClosed = false
    private(set) var isInputEnded = false

    init(log: OwnerLog, volume: VolumeID, medium: any Medium) {
        self.log = log
        self.volume = volume
        self.medium = medium
        log.requests.enter(self)
    }

    func submit(_ request: VolumeRequest, completion: @escaping VolumeCompletion) {
        guard !isClosed, !log.isRevoked else { return }
        switch request {
        case .read(let offset, let length):
            read(ByteRange(offset: offset, length: UInt64(length)), completion)
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
        log.requests.leave(self, tail: log.log.tail)
        log.requests.sessionsMayOpen(log.acknowledged)
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
        log.requests.enqueue(
            WaitingRequest(session: self, volume: volume, offset: offset, lengthBytes: length, kind: kind) {
                [weak self] in
                guard let self, !self.isClosed else { return }
                completion(.success(nil))
            })
        log.schedulePump()
    }

    /// Everything answered before is durable in every store that must hold it (S1), so there is nothing to wait for
    /// but the right to answer (S25).
    private func flush(_ completion: @escaping VolumeCompletion) {
        guard log.isServing, log.authority.isValid() else {
            return log.requests.hold(self) { [weak self] in self?.flush(completion) }
        }
        completion(.success(nil))
    }

    // MARK: Reads

    private func read(_ range: ByteRange, _ completion: @escaping VolumeCompletion) {
        guard log.isServing, log.authority.isValid() else {
            return log.requests.hold(self) { [weak self] in self?.read(range, completion) }
        }
        guard range.length > 0 else { return completion(.success(ByteBuffer())) }
        guard isSound(range, completion) else { return }
        if log.overlay.covers(volume, range) {
            var buffer = ByteBuffer()
            buffer.writeRepeatingByte(0, count: Int(range.length))
            log.copyOverlay(volume, range, into: &buffer)
            return answer(range, buffer, completion)
        }
        readMedium(range, completion)
    }

    /// Whether what the log has of `range` passes its checks (S26). If not, or if more is to be checked than one turn of the loop
    /// bears, the read begins anew when that has changed, or fails.
    private func isSound(_ range: ByteRange, _ completion: @escaping VolumeCompletion) -> Bool {
        let again = { [weak self] in
            guard let self, !self.isClosed, !self.log.isRevoked else { return }
            self.read(range, completion)
        }
        switch log.checkOverlay(volume, range) {
        case .sound: return true
        case .unfinished: log.runtime.executeNextTurn(again)
        case .damaged(let damaged):
            log.heal(damaged) { [weak self] outcome in
                guard let self, !self.isClosed, !self.log.isRevoked else { return }
                switch outcome {
                case .healed: again()
                case .interrupted: self.log.requests.hold(self, again)
                case .lost(let reason): completion(.failure(.readFailed(reason)))
                }
            }
        }
        return false
    }

    /// Memory that failed reads as zeros, which nobody is told (S26). The partner has the bytes and will have the group;
    /// without one they are lost.
    private func answer(_ range: ByteRange, _ buffer: ByteBuffer, _ completion: @escaping VolumeCompletion) {
        guard let fault = log.log.region.memoryFault else { return completion(.success(buffer)) }
        guard log.mirror == nil else {
            return log.requests.hold(self) { [weak self] in self?.read(range, completion) }
        }
        completion(.failure(.readFailed(fault.description)))
    }

    private func readMedium(_ range: ByteRange, _ completion: @escaping VolumeCompletion) {
        let id = log.destage.beginRead()
        let medium = medium
        let length = Int(range.length)
        log.runtime.run(.reads) { () -> ByteBuffer in
            var buffer = ByteBufferAllocator().buffer(capacity: length)
            try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: length) { space in
                try medium.read(into: UnsafeMutableRawBufferPointer(rebasing: space[..<length]), at: range.offset)
                return length
            }
            return buffer
        } _: { [self] result in
            defer { log.endRead(id) }
            guard !isClosed, !log.isRevoked else { return }
            guard log.isServing, log.authority.isValid() else {
                // The lease ran out meanwhile: what was read may be another owner's past (S17).
                return log.requests.hold(self) { [weak self] in self?.read(range, completion) }
            }
            switch result {
            case .success(var buffer):
                guard isSound(range, completion) else { return }
                log.copyOverlay(volume, range, into: &buffer)
                answer(range, buffer, completion)
            case .failure(let error): completion(.failure(.readFailed("\(error)")))
            }
        }
    }
}

enum OverlayCheck {
    case sound
    /// There is more to check.
    case unfinished
    case damaged(DamagedRange)
}

extension OwnerLog {
    /// One record of the greatest size: a fraction of a millisecond of the loop.
    private static let checkedBytesPerTurn: UInt64 = 1 << 20

    /// Checks the records of which the overlay has bytes of `range`, each once: later rot is found by the scrub and the destager. Failed
    /// memory is not looked at; whoever answers asks for that.
    func checkOverlay(_ volume: VolumeID, _ range: ByteRange) -> OverlayCheck {
        guard log.region.memoryFault == nil else { return .sound }
        var checkedBytes: UInt64 = 0
        for record in overlay.unchecked(volume, range) {
            guard checkedBytes < Self.checkedBytesPerTurn else { return .unfinished }
            switch log.check(at: record) {
            case .damaged(let end): return .damaged(DamagedRange(from: record, to: end))
            case .sound(let end):
                overlay.didCheck(record)
                checkedBytes += end - record
            }
        }
        return .sound
    }

    /// Puts what the log has of `range` over what `buffer` holds of it.
    func copyOverlay(_ volume: VolumeID, _ range: ByteRange, into buffer: inout ByteBuffer) {
        let base = buffer.readerIndex
        overlay.forEach(volume, range) { part, source in
            let place = base + Int(part.offset - range.offset)
            guard let payload = source.payload else {
                buffer.setRepeatingByte(0, count: Int(part.length), at: place)
                return
            }
            var at = place
            log.withBytes(from: payload, to: payload + part.length) { bytes in
                at += buffer.setBytes(bytes, at: at)
            }
        }
    }
}
