// What a connection borrows and owes, and when its socket is not read.

internal import NBDProtocol
internal import NIOCore

extension NBDConnection {
    /// The payload of the WRITE that comes next; `nil` if it is not all here.
    func takePayload(_ length: Int) -> ByteBuffer? {
        guard input.readableBytes >= length else {
            if account.borrowedBytes > 0, debt.payloadSince == nil {
                debt.payloadSince = .now()
                input.reserveCapacity(minimumWritableBytes: length - input.readableBytes)
            }
            return nil
        }
        debt.payloadSince = nil
        let payload = input.readSlice(length: length)
        // The rest would keep the payload's memory, and be copied with it.
        if account.borrowedBytes > 0 { input = channel.allocator.buffer(buffer: input) }
        return payload
    }

    /// The data of a READ. What is borrowed for it is held until the client has taken it.
    func send(_ data: ByteBuffer) {
        let bytes = data.readableBytes
        handOverReplies()
        guard account.borrowedBytes > 0 else {
            channel.write(data, promise: nil)
            return account.giveBack(bytes)
        }
        debt.unsentReplies += 1
        if debt.repliesSince == nil { debt.repliesSince = .now() }
        channel.write(data).assumeIsolated().whenComplete { _ in self.wasTaken(bytes) }
    }

    private func wasTaken(_ bytes: Int) {
        guard !isClosed else { return }
        debt.unsentReplies -= 1
        debt.repliesSince = debt.unsentReplies > 0 ? .now() : nil
        account.giveBack(bytes)
        resume()
    }

    /// A WRITE that will never be whole.
    func dropIncoming() {
        guard let request = incoming else { return }
        incoming = nil
        debt.payloadSince = nil
        account.giveBack(request.memoryBytes)
    }

    /// Since when the client has borrowed memory and does not do its part.
    var owesSince: NIODeadline? {
        guard account.borrowedBytes > 0 else { return nil }
        return [debt.payloadSince, debt.repliesSince].compactMap(\.self).min()
    }

    // MARK: Back-pressure

    private var mayGoOn: Bool { incoming == nil ? mayTakeRequest : !account.isWaiting }

    func updateReading() {
        let shouldPause = !isClosed && skipping == 0 && !mayGoOn
        guard shouldPause != isPaused, !isClosed else { return }
        isPaused = shouldPause
        channel.setOption(.autoRead, value: !shouldPause).whenFailure { _ in }
    }

    func resume() {
        guard isPaused, mayGoOn, !isClosed else { return }
        // Not from inside of a completion: the request queue may be in the middle of its own work.
        channel.eventLoop.assumeIsolated().execute {
            guard self.isPaused, !self.isClosed else { return }
            self.process()
            self.updateReading()
        }
    }
}

extension NBDRequest {
    /// What its payload or its data takes.
    var memoryBytes: Int { command == .write || command == .read ? Int(length) : 0 }
}
