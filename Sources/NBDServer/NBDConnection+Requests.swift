// Requests: taken one after another, answered in the order in which they complete.

internal import GroupEngine
internal import NBDProtocol
internal import NIOCore

extension NBDConnection {
    var mayTakeRequest: Bool {
        requestsInFlight < limits.requests && readBytesInFlight < limits.readBytes && channel.isWritable
            && (session?.parkedBytes ?? 0) < limits.parkedBytes
    }

    func takeRequests() throws(NBDProtocolError) {
        while !isClosed, case .open = ending {
            guard skip() else { break }
            if incoming == nil {
                guard mayTakeRequest else { return updateReading() }
                guard let request = try NBDRequest.read(&input) else { break }
                guard admit(request) else { continue }
            }
            guard !account.isWaiting else { return updateReading() }
            guard let request = incoming, take(request) else { break }
        }
        if isInputEnded, case .open = ending { finish(saidGoodbye: false) }
        updateReading()
    }

    /// Lets go of what is here of a refused WRITE; false if more of it is to come.
    private func skip() -> Bool {
        guard skipping > 0 else { return true }
        let count = min(skipping, input.readableBytes)
        input.moveReaderIndex(forwardBy: count)
        skipping -= count
        return skipping == 0
    }

    /// Asks for the memory that a request needs; false if the request is refused.
    private func admit(_ request: NBDRequest) -> Bool {
        guard let transmission else { return false }
        if let problem = request.problem(in: transmission) {
            if request.command == .write { skipping = Int(request.length) }
            refuse(request, problem.code, problem.text(for: request, in: transmission))
            return false
        }
        incoming = request
        if !account.take(request.memoryBytes) { room.watchMemory() }
        return true
    }

    /// Carries out the request that has its memory; false if its payload is not all here.
    private func take(_ request: NBDRequest) -> Bool {
        var payload: ByteBuffer?
        if request.command == .write {
            payload = takePayload(Int(request.length))
            guard payload != nil else { return false }
        }
        incoming = nil
        carryOut(request, payload)
        return true
    }

    private func carryOut(_ request: NBDRequest, _ payload: ByteBuffer?) {
        let length = UInt64(request.length)
        let volumeRequest: VolumeRequest
        switch request.command {
        case .blockStatus: return reportExtents(request)
        case .read: volumeRequest = .read(offset: request.offset, length: Int(request.length))
        case .write: volumeRequest = .write(offset: request.offset, payload: payload ?? ByteBuffer())
        case .trim: volumeRequest = .discard(offset: request.offset, length: length)
        case .writeZeroes:
            volumeRequest = .writeZeroes(
                offset: request.offset, length: length, mayRelease: !request.flags.contains(.noHole))
        case .flush: volumeRequest = .flush
        case .cache: volumeRequest = .prefetch(offset: request.offset, length: length)
        case .disconnect, nil: return finish(saidGoodbye: true)
        }
        requestsInFlight += 1
        if request.command == .read { readBytesInFlight += Int(request.length) }
        session?.submit(volumeRequest) { result in self.completed(request, result) }
    }

    private func completed(_ request: NBDRequest, _ result: Result<ByteBuffer?, VolumeError>) {
        guard !isClosed else { return }
        requestsInFlight -= 1
        if request.command == .read { readBytesInFlight -= Int(request.length) }
        switch result {
        case .success(let data):
            if request.command == .read, let data {
                reply(request, data)
            } else {
                account.giveBack(request.memoryBytes)
                reply { NBDReply.done(request.cookie, into: &$0) }
            }
        case .failure(let error):
            account.giveBack(request.memoryBytes)
            failed(request, error)
        }
        resume()
        leaveIfDone()
    }

    private func failed(_ request: NBDRequest, _ error: VolumeError) {
        switch error {
        case .outOfRange: refuse(request, .invalid, "\(error)")
        case .readFailed: refuse(request, .io, "\(error)")
        }
    }

    private func reportExtents(_ request: NBDRequest) {
        requestsInFlight += 1
        session?.extents(offset: request.offset, length: UInt64(request.length)) { [self] result in
            guard !isClosed else { return }
            requestsInFlight -= 1
            switch result {
            case .success(let extents):
                let told = extents.prefix(request.flags.contains(.reqOne) ? 1 : extents.count).map(NBDExtent.init)
                reply { NBDReply.blockStatus(request.cookie, told, into: &$0) }
            case .failure(let error): failed(request, error)
            }
            resume()
            leaveIfDone()
        }
    }

    private func reply(_ request: NBDRequest, _ data: ByteBuffer) {
        precondition(data.readableBytes == Int(request.length), "a read answers with exactly its bytes")
        reply {
            NBDReply.data(
                request.cookie, offset: request.offset, length: data.readableBytes, structured: handshake.isStructured,
                into: &$0)
        }
        send(data)
    }

    private func refuse(_ request: NBDRequest, _ code: NBD.ErrorCode, _ message: String) {
        if request.hasStructuredReply {
            reply {
                NBDReply.error(request.cookie, code, message: message, structured: handshake.isStructured, into: &$0)
            }
        } else {
            reply { NBDReply.done(request.cookie, error: code, into: &$0) }
        }
    }

    /// Replies of one turn of the loop leave together.
    private func reply(_ build: (inout ByteBuffer) -> Void) {
        build(&replies)
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        channel.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            guard !self.isClosed else { return }
            self.handOverReplies()
            self.channel.flush()
        }
    }

    /// To the channel, whose buffers they are from then on.
    func handOverReplies() {
        guard replies.readableBytes > 0 else { return }
        channel.write(replies, promise: nil)
        replies = ByteBuffer()
    }
}

extension NBDExtent {
    /// A request is below 4 GiB, and so is each of its extents.
    fileprivate init(_ extent: VolumeExtent) {
        let flags: UInt32 =
            switch extent.kind {
            case .data: 0
            case .zeros: NBD.MetaContext.zero
            case .hole: NBD.MetaContext.zero | NBD.MetaContext.hole
            }
        self.init(lengthBytes: UInt32(extent.lengthBytes), flags: flags)
    }
}

extension NBDRequest {
    /// Where structured replies were agreed on; others are answered by simple ones.
    fileprivate var hasStructuredReply: Bool { command == .read || command == .blockStatus }
}
