// Which rail the session is on, in virtual time: what is sent on a rail is answered after its delay, or not at all.

import Testing

@testable import ClusterProtocol

struct RailSetTests {
    private static let interval = 100 * millis
    private static let timeout = 500 * millis

    /// A mirror at the other end of each rail, and the dials and heartbeats on their way.
    private struct Network {
        var set: RailSet
        var now: Nanos = 1_000_000 * millis
        /// From heartbeat to answer; `nil`: the rail carries nothing, and cannot be made.
        var delays: [Nanos?]
        private(set) var moves: [(from: Int, to: Int, at: Nanos)] = []
        private(set) var losses = 0
        private(set) var dials: [(rail: Int, at: Nanos)] = []
        /// The session completes something every millisecond.
        var isBusy = false
        /// The session waits for the mirror: its rail is looked at between ticks.
        var isWaiting = false
        var bytesInFlight = 4096
        private(set) var heartbeats = 0
        private var answers: [(rail: Int, sent: Nanos, at: Nanos)] = []
        private var attempts: [(rail: Int, at: Nanos)] = []

        init(_ delays: Nanos?...) {
            self.delays = delays
            set = RailSet(
                count: delays.count, heartbeatInterval: interval, heartbeatTimeout: timeout, now: 1_000_000 * millis)
        }

        mutating func carryOut(_ steps: [RailSet.Step]) {
            for step in steps {
                switch step {
                case .dial(let rail):
                    dials.append((rail, now))
                    attempts.append((rail, now + (delays[rail] ?? timeout)))
                case .sendHeartbeat(let rail, let sent):
                    heartbeats += 1
                    if let delay = delays[rail] { answers.append((rail, sent, now + delay)) }
                case .close(let rail): answers.removeAll { $0.rail == rail }
                case .move(let old, let new):
                    answers.removeAll { $0.rail == old }
                    moves.append((old, new, now))
                case .lost: losses += 1
                case .begin: break
                }
            }
        }

        mutating func want() { carryOut(set.want(now)) }

        /// In steps of a millisecond.
        mutating func pass(_ time: Nanos, ticking: Bool = true) {
            let end = now + time
            while now < end {
                now += millis
                if isBusy { set.progressed(now) }
                for attempt in attempts.filter({ $0.at <= now }) {
                    carryOut(
                        delays[attempt.rail] == nil
                            ? set.failed(attempt.rail, "does not answer", now) : set.connected(attempt.rail, now))
                }
                attempts.removeAll { $0.at <= now }
                for answer in answers.filter({ $0.at <= now }) {
                    set.answered(answer.rail, sent: answer.sent, now)
                }
                answers.removeAll { $0.at <= now }
                guard ticking else { continue }
                if now % interval == 0 { carryOut(set.tick(now)) }
                if isWaiting, now % RailSet.glanceInterval == 0 {
                    carryOut(set.glance(now, bytesInFlight: bytesInFlight))
                }
            }
        }

        /// With a session on rail 0, and the others standing by.
        static func upOnFirst(_ others: Nanos...) -> Network {
            var network = Network(millis)
            network.delays += others.map { $0 }
            network.set = RailSet(
                count: network.delays.count, heartbeatInterval: interval, heartbeatTimeout: timeout, now: network.now)
            network.want()
            network.pass(1000 * millis)
            precondition(network.set.session == 0 && network.set.rails.allSatisfy(\.isUp))
            return network
        }
    }

    @Test("one rail gets the session, and every other stands by")
    func begins() {
        let network = Network.upOnFirst(2 * millis, 3 * millis)
        #expect(network.set.rails.map(\.state) == [.session, .standby, .standby])
        #expect(network.set.rails.map(\.roundTrip) == [millis, 2 * millis, 3 * millis])
        #expect(network.moves.isEmpty && network.losses == 0)
    }

    @Test(
        "a session whose rail is cut, loses one direction or crawls moves within one heartbeat timeout",
        arguments: [nil, 450, 5000])
    func moves(delay: Nanos?) {
        var network = Network.upOnFirst(2 * millis)
        let began = network.now
        network.delays[0] = delay.map { $0 * millis }
        network.pass(Self.timeout)
        #expect(network.set.session == 1 && network.losses == 0)
        #expect(network.moves.count == 1 && network.moves[0].at < began + Self.timeout)
        #expect(network.set.rails[0].lastError?.contains("later than those of another rail") == true)
        guard case .down = network.set.rails[0].state else { return #expect(Bool(false), "it is not left") }
    }

    @Test(
        "a session that waits on a rail that is cut, loses one direction or crawls moves within five glances",
        arguments: [nil, 60, 450, 5000])
    func movesAtOnce(delay: Nanos?) {
        var network = Network.upOnFirst(2 * millis)
        network.pass(33 * millis)
        let began = network.now
        network.isWaiting = true
        network.delays[0] = delay.map { $0 * millis }
        network.pass(5 * RailSet.glanceInterval)
        #expect(network.set.session == 1 && network.moves.count == 1 && network.losses == 0)
        #expect(network.moves[0].at <= began + 5 * RailSet.glanceInterval)
        #expect(network.set.rails[0].lastError?.contains("another rail has") == true)
    }

    @Test("a session that waits for a mirror that hangs, or whose owner slept, stays, and asks once")
    func waitsForNobody() {
        var network = Network.upOnFirst(2 * millis)
        network.delays = [nil, nil]
        network.isWaiting = true
        let before = network.heartbeats
        network.pass(400 * millis)
        #expect(network.moves.isEmpty && network.set.session == 0)
        #expect(network.heartbeats - before <= 2 * (4 + 1))
        network.delays = [millis, 2 * millis]
        network.pass(300 * millis)
        network.pass(10_000 * millis, ticking: false)
        network.pass(1000 * millis)
        #expect(network.moves.isEmpty)
    }

    @Test(
        "rails that are slow by nature, or become so alike, are not changed for each other by a session that waits",
        arguments: [(60, 50), (450, 440), (25, 5)])
    func slowWhileWaiting(own: Nanos, other: Nanos) {
        var network = Network.upOnFirst(millis)
        network.pass(33 * millis)
        network.delays = [own * millis, other * millis]
        network.isWaiting = own > 25
        network.pass(1000 * millis)
        network.isWaiting = true
        let before = network.heartbeats
        network.pass(30_000 * millis)
        #expect(network.moves.isEmpty, "\(network.moves)")
        #expect(network.heartbeats - before < 2 * 30 * 40)
    }

    @Test("a thin rail that carries much is not left for one that carries nothing")
    func thin() {
        var network = Network.upOnFirst(2 * millis)
        for _ in 0..<50 {
            // A burst: heartbeats wait behind a WRITE of 1 MiB, at 100 Mbit/s.
            network.bytesInFlight = 1 << 20
            network.delays[0] = 84 * millis
            network.isWaiting = true
            network.pass(168 * millis)
            network.isWaiting = false
            network.delays[0] = millis
            network.pass(2000 * millis)
        }
        #expect(network.moves.isEmpty)
        network.isWaiting = true
        network.delays[0] = nil
        network.pass(Self.timeout)
        #expect(network.moves.count == 1)
    }

    @Test("a rail whose connection ends is left at once")
    func ends() {
        var network = Network.upOnFirst(2 * millis)
        network.carryOut(network.set.failed(0, "the connection ended", network.now))
        #expect(network.set.session == 1 && network.moves.count == 1 && network.losses == 0)
    }

    @Test("a mirror that hangs, and an owner that slept, move nothing")
    func hangsAndSleeps() {
        var network = Network.upOnFirst(2 * millis)
        network.delays = [nil, nil]
        network.pass(400 * millis)
        #expect(network.moves.isEmpty && network.set.session == 0)
        network.delays = [millis, 2 * millis]
        network.pass(300 * millis)
        network.pass(10_000 * millis, ticking: false)
        network.pass(1000 * millis)
        #expect(network.moves.isEmpty && network.set.rails.map(\.state) == [.session, .standby])
        #expect(network.set.rails[1].lastError == nil)
    }

    @Test("rails that are slow alike are not changed for each other")
    func slowAlike() {
        var network = Network.upOnFirst(millis)
        network.delays = [450 * millis, 450 * millis]
        network.pass(30_000 * millis)
        #expect(network.moves.isEmpty)
    }

    @Test("a rail whose heartbeats wait behind what the session carries is not left for an idle one")
    func busy() {
        var network = Network.upOnFirst(2 * millis)
        network.isWaiting = true
        network.delays[0] = 450 * millis
        network.isBusy = true
        network.pass(10_000 * millis)
        #expect(network.moves.isEmpty && network.set.session == 0)
        network.isBusy = false
        network.pass(Self.timeout)
        #expect(network.moves.count == 1)
    }

    @Test("a rail that stands by and is silent is closed, and missed by nobody")
    func silentStandby() {
        var network = Network.upOnFirst(2 * millis)
        network.delays[1] = nil
        network.pass(700 * millis)
        #expect(network.set.session == 0 && !network.set.rails[1].isUp && network.losses == 0)
    }

    @Test("a rail that fails again and again is tried with growing pauses, and stands by when it is mended")
    func growingPauses() {
        var network = Network.upOnFirst(2 * millis)
        network.delays[1] = nil
        let before = network.dials.count
        network.pass(300_000 * millis)
        let tries = network.dials.dropFirst(before).map(\.at)
        let pauses = zip(tries.dropFirst(), tries).map { $0 - $1 }
        #expect(zip(pauses.dropFirst(), pauses).allSatisfy { $0 >= $1 })
        #expect(pauses.last ?? 0 >= RailSet.longestPause && tries.count < 18, "\(tries.count) tries")
        network.delays[1] = 2 * millis
        network.pass(RailSet.longestPause + 2 * Self.timeout)
        #expect(network.set.rails[1].state == .standby)
    }

    @Test("a rail that flaps costs a move each time it is used, less and less often")
    func flaps() {
        var network = Network.upOnFirst(2 * millis)
        for _ in 0..<300 {
            for rail in [0, 1] {
                network.delays = [millis, 2 * millis]
                network.delays[rail] = nil
                network.pass(500 * millis)
            }
        }
        let half = network.moves.filter { $0.at < network.moves[0].at + 150_000 * millis }.count
        #expect(network.moves.count - half < half && network.moves.count < 40, "\(network.moves.count) moves")
    }

    @Test(
        "without a rail that answers the session is lost, and whichever can be made again first gets it, whatever its pause"
    )
    func allDown() {
        var network = Network.upOnFirst(2 * millis)
        network.delays = [nil, nil]
        for rail in [1, 0] { network.carryOut(network.set.failed(rail, "the connection ended", network.now)) }
        #expect(network.losses == 1 && network.set.session == nil)
        for _ in 0..<10 {
            network.want()
            network.pass(Self.timeout)
        }
        #expect(network.losses == 11)
        network.delays[1] = millis
        network.want()
        network.pass(2 * millis)
        #expect(network.set.session == 1)
    }

    @Test("a mirror that was away for long costs no rail a pause")
    func mirrorAway() {
        var network = Network.upOnFirst(2 * millis)
        network.delays = [nil, nil]
        for rail in [1, 0] { network.carryOut(network.set.failed(rail, "the connection ended", network.now)) }
        for _ in 0..<100 {
            network.want()
            network.pass(Self.timeout)
        }
        network.delays = [millis, nil]
        network.want()
        network.pass(Self.timeout)
        network.delays[1] = 2 * millis
        network.pass(3 * Self.timeout)
        #expect(network.set.rails.map(\.state) == [.session, .standby])
    }

    @Test("S21: an answer to what was never sent, or was answered, counts for nothing")
    func falseAnswers() {
        var network = Network.upOnFirst(2 * millis)
        network.delays[0] = nil
        for _ in 0..<5 {
            network.pass(Self.interval)
            guard network.set.session == 0 else { break }
            for unsent in [network.now + 1, .max, 0] { network.set.answered(0, sent: unsent, network.now) }
        }
        #expect(network.set.session == 1)
    }

    @Test("an owner that owns nothing any more closes every rail")
    func ended() {
        var network = Network.upOnFirst(2 * millis)
        #expect(network.set.end(network.now) == [.close(0), .close(1)])
        let dials = network.dials.count
        network.pass(5000 * millis)
        #expect(network.dials.count == dials)
    }
}
