// The handshake: which volumes there are, and the opening of one.

internal import GroupEngine
internal import LoopChange
internal import LoopPolling
internal import NBDProtocol
internal import NIOCore

extension NBDConnection {
    func shakeHands() throws(NBDProtocolError) {
        while !isClosed, !isMoving, !handshake.isTransmission, let step = try handshake.next(&input) {
            restartTimer()
            perform(step)
        }
        if isInputEnded, !handshake.isTransmission, !handshake.isWaiting { close() }
    }

    private func perform(_ step: NBDServerHandshake.Step) {
        switch step {
        case .send(let buffer): channel.writeAndFlush(buffer, promise: nil)
        case .startTLS(let reply): startTLS(after: reply)
        case .list:
            if let refusal { return perform(handshake.refuseList(refusal)) }
            perform(handshake.answerList(room.service.volumes().map(\.name)))
        case .close(let reason): if let reason { fail(reason) } else { close() }
        case .find(let name, let purpose):
            if let refusal { return perform(handshake.answer(.refused(.policy, refusal))) }
            if let place = room.service.place(of: NamedExport(name).volume) { return move(to: place, doing: step) }
            switch purpose {
            case .info, .metaContexts: answer(room.service.find(NamedExport(name).volume).map(Self.info))
            case .go, .exportName: open(NamedExport(name))
            }
        }
    }

    /// Zeros are a record of the log, so they are always fast.
    private static let flags: NBD.TransmissionFlags = [
        .hasFlags, .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .canMultiConn, .sendCache, .sendFastZero,
    ]

    private static func info(_ volume: VolumeInfo) -> NBDExportInfo {
        NBDExportInfo(
            sizeBytes: volume.sizeBytes,
            flags: Self.flags.union(volume.isReadOnly ? .readOnly : []))
    }

    private func open(_ export: NamedExport) {
        let found = room.service.find(export.volume)
        guard case .success(let volume) = found else { return answer(found.map(Self.info)) }
        named = export.client == nil ? nil : export
        room.endOlder(than: self)
        var isAnswered = false
        var isLater = false
        let giveUp = room.service.open(volume.name) { [self] result in
            isAnswered = true
            giveUpOpening = nil
            switch result {
            case .success(let session):
                guard !isClosed else { return session.close() }
                answer(.success(Self.info(volume)))
                begin(session, volume)
            case .failure(let refusal): answer(.failure(refusal))
            }
            if isLater { process() }
        }
        isLater = true
        if !isAnswered { giveUpOpening = giveUp }
    }

    private func answer(_ result: Result<NBDExportInfo, VolumeRefusal>) {
        guard !isClosed else { return }
        let answer: NBDServerHandshake.Answer =
            switch result {
            case .success(let info): .export(info)
            case .failure(let refusal):
                .refused(
                    refusal.code == .unknownVolume ? .unknown : refusal.code == .ownedElsewhere ? .policy : .shutdown,
                    refusal.message)
            }
        perform(handshake.answer(answer))
    }

    private func begin(_ session: any VolumeSession, _ volume: VolumeInfo) {
        timer?.cancel()
        self.session = session
        room.poller?.watch(channel)
        export = volume.name
        transmission = NBDTransmission(
            export: Self.info(volume), isStructured: handshake.isStructured,
            reportsAllocation: handshake.reportsAllocation)
        session.onRevoked = { self.fail("the volume is not served here any more") }
        session.onUnparked = { self.resume() }
        if isInputEnded || outerEnd != nil { session.endInput() }
    }

    // MARK: Another loop

    /// The volume is served on another event loop, where `step` is carried out.
    private func move(to place: VolumePlace, doing step: NBDServerHandshake.Step) {
        isMoving = true
        LoopChange.detach(channel, from: self, isPlain: !hasTLSHere) { [self] in
            defer { input.clear() }
            return input
        }.assumeIsolated().whenComplete { [self] result in
            guard case .success(let socket) = result else {
                isMoving = false
                return close()
            }
            guard !isClosed else { return socket.close() }
            timer?.cancel()
            isClosed = true
            account.close()
            room.move(
                self,
                MovingConnection(
                    socket: socket, handshake: handshake, step: step, peer: peer, connected: connected,
                    isInputEnded: isInputEnded, outer: outer ?? socket.outer), to: place)
        }
    }

    /// Does what the client has asked for on another loop.
    func goOn(from moving: MovingConnection) {
        let bound = NIOLoopBound(self, eventLoop: channel.eventLoop)
        outer?.whenEnded(on: channel.eventLoop) { bound.value.outerEnded($0) }
        input = moving.socket.rest
        restartTimer()
        perform(moving.step)
        process()
    }

    /// Each step of a client at work gives it the whole time for its next one.
    func restartTimer() {
        timer?.cancel()
        stepped = .now()
        timer = channel.eventLoop.assumeIsolated().scheduleTask(in: limits.handshake) { self.isTooLate() }
    }

    private func isTooLate() {
        let seconds = limits.handshake.nanoseconds / 1_000_000_000
        guard let giveUp = giveUpOpening else { return fail("its handshake did not go on for \(seconds) s") }
        giveUp()
        giveUpOpening = nil
        restartTimer()
        answer(
            .failure(
                VolumeRefusal(
                    .notReady,
                    "what earlier connections wrote to the volume was not acknowledged within \(seconds) s: try again"))
        )
        process()
    }

    /// A client waits for the reply before it goes on: bytes that came with its request were put there by somebody else, and would be
    /// taken for what it says within TLS.
    private func startTLS(after reply: ByteBuffer) {
        guard input.readableBytes == 0 else { return fail("bytes in clear follow STARTTLS") }
        guard let security = room.commons.security else { return fail("TLS was not offered") }
        channel.writeAndFlush(reply, promise: nil)
        do {
            try channel.pipeline.syncOperations.addHandler(security.handler(), position: .first)
            hasTLSHere = true
        } catch {
            fail("TLS cannot be begun: \(error)")
        }
    }

    /// How long the next step of a handshake may take while others wait for a place.
    private static let stepPatience = TimeAmount.seconds(1)

    /// A client of which nothing is heard where something is due.
    var isUnresponsive: Bool {
        guard handshake.isTransmission || handshake.isWaiting else { return stepped + Self.stepPatience < .now() }
        return channel.isPeerSilent
    }
}
