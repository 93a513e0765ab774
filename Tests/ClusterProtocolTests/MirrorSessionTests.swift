import ClusterProtocol
import LogModel
import Testing

/// What an owner may post to its mirror, and what it may conclude from completions.
struct MirrorSessionTests {
    private static let much: UInt64 = 64 << 20
    private static let full = MirrorSession.maximumShipBytes

    /// Lets an expectation call what changes the session.
    private final class Session {
        private var session: MirrorSession
        init(_ session: MirrorSession) { self.session = session }
        var durable: LSN { session.durable }
        var mirrorHead: LSN { session.mirrorHead }
        func next(published: LSN, creditBytes: UInt64) -> Range<LSN>? {
            session.next(published: published, creditBytes: creditBytes)
        }
        func didPost(_ range: Range<LSN>, id: UInt64) { session.didPost(range, id: id) }
        func needsTrim(to head: LSN) -> Bool { session.needsTrim(to: head) }
        func didPostTrim(to head: LSN, id: UInt64) { session.didPostTrim(to: head, id: id) }
        func completed(through id: UInt64) -> Bool { session.completed(through: id) }
    }

    private func session(durable: UInt64 = 0, mirrorHead: UInt64 = 0, head: UInt64 = 0) -> Session {
        Session(MirrorSession(durable: LSN(durable), mirrorHead: LSN(mirrorHead), head: LSN(head)))
    }

    @Test func theFirstRecordLeavesAtOnceAndTheNextWriteCarriesAllThatCameMeanwhile() {
        let session = session()
        #expect(session.next(published: LSN(64), creditBytes: Self.much) == LSN(0)..<LSN(64))
        session.didPost(LSN(0)..<LSN(64), id: 1)
        #expect(session.next(published: LSN(640), creditBytes: Self.much) == nil)
        #expect(session.completed(through: 1))
        #expect(session.next(published: LSN(640), creditBytes: Self.much) == LSN(64)..<LSN(640))
    }

    @Test func fullWritesArePipelinedUpToTheLimit() {
        let session = session()
        let published = LSN(10 * Self.full)
        for id in 1...UInt64(MirrorSession.maximumFullWrites) {
            let range = session.next(published: published, creditBytes: Self.much)
            #expect(range == LSN((id - 1) * Self.full)..<LSN(id * Self.full))
            if let range { session.didPost(range, id: id) }
        }
        #expect(session.next(published: published, creditBytes: Self.much) == nil)
        #expect(session.completed(through: 1))
        #expect(session.next(published: published, creditBytes: Self.much) != nil)
    }

    @Test("a WRITE carries no more than its owner was made with, and one is full with that")
    func smallWrites() {
        let session = Session(MirrorSession(durable: .zero, mirrorHead: .zero, head: .zero, shipBytes: 128))
        for id in UInt64(1)...3 {
            let range = LSN((id - 1) * 128)..<LSN(id * 128)
            #expect(session.next(published: LSN(1024), creditBytes: Self.much) == range)
            session.didPost(range, id: id)
        }
        #expect(session.next(published: LSN(1024), creditBytes: Self.much) == nil)
    }

    @Test func muchDoesNotWaitForTheOnlyWriteBeforeIt() {
        let session = session()
        session.didPost(LSN(0)..<LSN(64), id: 1)
        let much = LSN(64 + MirrorSession.earlyBytes)
        #expect(session.next(published: LSN(much.rawValue - 64), creditBytes: Self.much) == nil)
        #expect(session.next(published: much, creditBytes: Self.much) == LSN(64)..<much)
        session.didPost(LSN(64)..<much, id: 2)
        #expect(session.next(published: much + MirrorSession.earlyBytes, creditBytes: Self.much) == nil)
    }

    @Test func nothingLeavesWithoutCredit() {
        #expect(session().next(published: LSN(128), creditBytes: 127) == nil)
        #expect(session().next(published: LSN(128), creditBytes: 128) != nil)
    }

    @Test func durableMovesWithCompletionsOnlyAndACompletionCoversWhatWasPostedBefore() {
        let session = session()
        session.didPost(LSN(0)..<LSN(Self.full), id: 1)
        session.didPost(LSN(Self.full)..<LSN(2 * Self.full), id: 2)
        #expect(session.durable == .zero)
        #expect(!session.completed(through: 0))
        #expect(session.completed(through: 1))
        #expect(session.durable == LSN(Self.full))
        session.didPost(LSN(2 * Self.full)..<LSN(3 * Self.full), id: 3)
        #expect(session.completed(through: 3))
        #expect(session.durable == LSN(3 * Self.full))
        #expect(!session.completed(through: 3))
    }

    @Test("S6: the mirror's head counts when it is durable there, not when it is posted")
    func trim() {
        let session = session(durable: 640)
        #expect(session.needsTrim(to: LSN(128)))
        session.didPostTrim(to: LSN(128), id: 1)
        #expect(!session.needsTrim(to: LSN(128)))
        #expect(session.mirrorHead == .zero)
        #expect(session.completed(through: 1))
        #expect(session.mirrorHead == LSN(128))
    }

    @Test func whatIsDestagedIsNotShippedAnyMore() {
        let session = session()
        session.didPostTrim(to: LSN(1280), id: 1)
        #expect(session.next(published: LSN(1920), creditBytes: Self.much) == LSN(1280)..<LSN(1920))
        #expect(session.durable == .zero)
        #expect(session.completed(through: 1))
        #expect(session.durable == LSN(1280))
    }

    @Test("A head that moved while the mirror attached is told before anything is shipped above it")
    func noHoleAtTheHead() {
        let session = session(durable: 0, mirrorHead: 0, head: 640)
        #expect(session.next(published: LSN(1280), creditBytes: Self.much) == nil)
        #expect(session.needsTrim(to: LSN(640)))
        session.didPostTrim(to: LSN(640), id: 1)
        #expect(session.next(published: LSN(1280), creditBytes: Self.much) == LSN(640)..<LSN(1280))
    }

    @Test("S1: an acknowledgement is the least of what every store holds, and never falls")
    func acknowledgement() {
        var acknowledgement = Acknowledgement(LSN(64))
        func moves(_ local: UInt64, _ mirror: UInt64?, allowed: Bool = true) -> Bool {
            let rule = AcknowledgementRule(allowed: allowed, required: MemberSet(first: mirror == nil ? 0 : 1))
            return acknowledgement.update(local: LSN(local), by: rule) { _ in mirror.map { LSN($0) } }
        }
        #expect(!moves(640, 64))
        #expect(!moves(640, 320, allowed: false))
        #expect(acknowledgement.acknowledged == LSN(64))
        #expect(moves(640, 320))
        #expect(acknowledgement.acknowledged == LSN(320))
        #expect(!moves(128, nil))
        #expect(acknowledgement.acknowledged == LSN(320))
        #expect(moves(640, nil))
        #expect(acknowledgement.acknowledged == LSN(640))
    }
}
