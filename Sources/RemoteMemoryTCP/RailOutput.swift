// What a queue pair sends. Frames of one turn of the loop are gathered and leave with one system call. On a connection without TLS the
// socket takes them from where they stand: the bytes of a WRITE from the log's mapping, with no copy and no buffer of their own.
// What the socket does not take at once, and everything beneath TLS, is copied and goes through the channel.
//
// Invariants:
//  - frames reach the wire in the order in which they were given: while the channel has bytes, whatever follows goes through it;
//  - a payload is out of the caller's hands when `send` returns: in the kernel, or copied;
//  - the descriptor is used only while the channel is active, for then it is open: a channel closes its socket and ceases to be
//    active without calling anybody in between.

internal import Glibc
internal import NIOCore

/// Bound to the channel's event loop.
final class RailOutput {
    /// A payload from here on is sent by itself: a second system call costs less than copying it, and its peer has it sooner.
    private static let ownCallBytes = 1024
    /// What is gathered for a channel leaves in buffers of about this size, so that growing one copies little.
    private static let channelBufferBytes = 256 << 10

    private let channel: any Channel
    /// Of a connection without TLS.
    private let socket: CInt?
    /// Frames of this turn, or their headers.
    private var gathered = ByteBuffer()
    private var gatheredAnswerBytes = 0
    private var writesInChannel = 0
    private var answerBytesInChannel = 0
    private var isFlushScheduled = false
    /// A read is being carried out, whose end flushes.
    var isReading = false

    /// `isPlain`: nothing between the pipeline and the socket changes what is sent. What the channel was given before comes first.
    init(_ channel: any Channel, isPlain: Bool) {
        self.channel = channel
        socket = isPlain ? Self.descriptor(of: channel) : nil
        handOver(ByteBuffer(), answerBytes: 0)
    }

    private static func descriptor(of channel: any Channel) -> CInt? {
        do {
            return try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
                $0
            }
        } catch {
            // It is closed already: its handlers hear so, and nothing is sent.
            return nil
        }
    }

    /// Bytes of answers that neither the peer nor the kernel has yet.
    var unsentAnswerBytes: Int { gatheredAnswerBytes + answerBytesInChannel }

    func send(_ header: FrameHeader, _ payload: UnsafeRawBufferPointer, isAnswer: Bool) {
        if gathered.readableBytes >= Self.channelBufferBytes { handOverGathered() }
        header.write(to: &gathered)
        if isAnswer { gatheredAnswerBytes += FrameHeader.byteCount + payload.count }
        if payload.count >= Self.ownCallBytes, sendNow(with: payload) { return }
        gathered.writeBytes(payload)
        scheduleFlush()
    }

    /// Sends what is gathered, whose last header is that of `payload`, and `payload`. False if it must go through the channel.
    private func sendNow(with payload: UnsafeRawBufferPointer) -> Bool {
        guard let socket, writesInChannel == 0, channel.isActive else { return false }
        let count = gathered.readableBytes + payload.count
        let sent = gathered.withUnsafeReadableBytes { Self.send($0, payload, to: socket) }
        if sent == count {
            gathered.clear()
            gatheredAnswerBytes = 0
            return true
        }
        keep(gathered, payload, without: sent)
        return true
    }

    /// The rest goes through the channel, which also learns what is wrong with the socket if something is.
    private func keep(_ frames: ByteBuffer, _ payload: UnsafeRawBufferPointer, without sent: Int) {
        var rest = channel.allocator.buffer(capacity: frames.readableBytes + payload.count - sent)
        frames.withUnsafeReadableBytes { _ = rest.writeBytes($0.dropFirst(sent)) }
        rest.writeBytes(payload.dropFirst(max(0, sent - frames.readableBytes)))
        gathered.clear()
        let answerBytes = gatheredAnswerBytes
        gatheredAnswerBytes = 0
        handOver(rest, answerBytes: answerBytes)
        channel.flush()
    }

    /// Answers how many bytes the socket took.
    private static func send(_ frames: UnsafeRawBufferPointer, _ payload: UnsafeRawBufferPointer, to socket: CInt)
        -> Int
    {
        withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { parts in
            parts[0] = iovec(iov_base: UnsafeMutableRawPointer(mutating: frames.baseAddress), iov_len: frames.count)
            parts[1] = iovec(iov_base: UnsafeMutableRawPointer(mutating: payload.baseAddress), iov_len: payload.count)
            var message = msghdr()
            message.msg_iov = parts.baseAddress
            message.msg_iovlen = payload.isEmpty ? 1 : 2
            while true {
                let sent = sendmsg(socket, &message, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
                if sent >= 0 { return sent }
                guard errno == EINTR else { return 0 }
            }
        }
    }

    // MARK: Through the channel

    private func handOverGathered() {
        let frames = gathered
        let answerBytes = gatheredAnswerBytes
        gathered = ByteBuffer()
        gatheredAnswerBytes = 0
        handOver(frames, answerBytes: answerBytes)
    }

    private func handOver(_ bytes: ByteBuffer, answerBytes: Int) {
        writesInChannel += 1
        answerBytesInChannel += answerBytes
        let sent = channel.eventLoop.makePromise(of: Void.self)
        sent.futureResult.assumeIsolated().whenComplete { _ in
            self.writesInChannel -= 1
            self.answerBytesInChannel -= answerBytes
        }
        channel.write(bytes, promise: sent)
    }

    // MARK: The end of a turn

    /// Sends everything that was given.
    func flush() {
        if gathered.readableBytes > 0, !sendNow(with: .empty) { handOverGathered() }
        if writesInChannel > 0 { channel.flush() }
    }

    private func scheduleFlush() {
        guard !isFlushScheduled, !isReading else { return }
        isFlushScheduled = true
        channel.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flush()
        }
    }
}

extension UnsafeRawBufferPointer {
    static var empty: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: nil, count: 0) }
}
