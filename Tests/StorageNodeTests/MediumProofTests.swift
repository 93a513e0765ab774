// The owner's side of the proof that a mirror reaches its media: what is asked, and what an answer proves.

import ClusterProtocol
import LogModel
import Recovery
import Testing

@testable import GroupEngine
@testable import StorageNode

struct MediumProofTests {
    private let vol0 = VolumeID(name: "vol0")
    private let second: Nanos = 1_000_000_000

    private func trace(_ ranges: [ByteRange], sample: (UInt64, [UInt8])? = nil) -> WrittenTrace {
        var trace = WrittenTrace()
        trace.ranges = ranges
        trace.sample = sample.map { (offset: $0.0, bytes: $0.1) }
        return trace
    }

    /// A batch that wrote `bytes` at `offset`.
    private func write(_ proof: inout MediumProof, _ bytes: [UInt8], at offset: UInt64) {
        proof.batchBegan()
        let range = ByteRange(offset: offset, length: UInt64(bytes.count))
        proof.batchEnded([vol0: trace([range], sample: (offset, bytes))])
    }

    private func question(_ proof: inout MediumProof, at now: Nanos) throws -> MediumProof.Question {
        let question = proof.question(vol0, now)
        return try #require(question)
    }

    private func verdict(_ isProved: Bool) -> [MediumProof.Verdict] {
        [MediumProof.Verdict(volume: vol0, isProved: isProved)]
    }

    @Test("S18: what was destaged last is asked for, every 10 s and when a mirror attaches")
    func asks() throws {
        var proof = MediumProof()
        #expect(proof.question(vol0, second) == nil, "nothing is known yet")
        write(&proof, [1, 2, 3], at: 4096)
        write(&proof, [4, 5], at: 8192)
        let first = try question(&proof, at: second)
        #expect(first.sample.range == ByteRange(offset: 8192, length: 2))
        #expect(first.sample.checksum == MediumProof.checksum(of: [4, 5]))
        #expect(proof.question(vol0, 10 * second) == nil)
        #expect(try question(&proof, at: 11 * second).id != first.id)
        proof.begin()
        _ = try question(&proof, at: 12 * second)
    }

    @Test("S18: the same bytes prove the mirror's path, others speak against it until they are the same")
    func judges() throws {
        var proof = MediumProof()
        write(&proof, [1, 2, 3], at: 0)
        let first = try question(&proof, at: 0)
        proof.answered(first.id, 7)
        #expect(proof.takeVerdicts() == verdict(false))
        // It is asked again soon.
        let again = try question(&proof, at: second)
        proof.answered(again.id, again.sample.checksum)
        #expect(proof.takeVerdicts() == verdict(true))
        #expect(proof.takeVerdicts() == [])
    }

    @Test("S18: bytes that were written meanwhile prove nothing, and others are asked for soon")
    func overwritten() throws {
        var proof = MediumProof()
        write(&proof, [1, 2, 3, 4], at: 0)
        let asked = try question(&proof, at: 0)
        write(&proof, [9], at: 2)
        proof.answered(asked.id, 7)
        #expect(proof.takeVerdicts() == [])
        let next = try question(&proof, at: second)
        #expect(next.sample.range == ByteRange(offset: 2, length: 1))
    }

    @Test("S18: an answer that differs waits for the batch that is under way, and for no other")
    func duringABatch() throws {
        var proof = MediumProof()
        write(&proof, [1], at: 0)
        for touches in [true, false] {
            let asked = try question(&proof, at: touches ? 0 : 20 * second)
            proof.batchBegan()
            proof.answered(asked.id, 7)
            #expect(proof.takeVerdicts() == [], "the batch may write there")
            proof.batchEnded([vol0: trace([ByteRange(offset: touches ? 0 : 4096, length: 1)])])
            // The next one begins before anybody looks.
            proof.batchBegan()
            #expect(proof.takeVerdicts() == (touches ? [] : verdict(false)))
            proof.batchEnded([:])
            write(&proof, [2], at: 0)
        }
    }

    @Test("S18: a batch that failed may have written anything: nothing is known after it")
    func failedBatch() throws {
        var proof = MediumProof()
        write(&proof, [1], at: 0)
        let asked = try question(&proof, at: 0)
        proof.batchBegan()
        proof.answered(asked.id, 7)
        proof.batchFailed()
        #expect(proof.takeVerdicts() == [])
        #expect(proof.question(vol0, 60 * second) == nil)
    }

    @Test("S18: an owner that has destaged nothing asks for what it reads, unless a batch ran meanwhile")
    func readByTheOwner() throws {
        var proof = MediumProof()
        let sample = MediumProof.Sample(offset: 0, bytes: [1, 2] as [UInt8])
        let before = proof.batchCount
        #expect(proof.mayRead(vol0, 0) == true)
        #expect(proof.mayRead(vol0, 9 * second) == false, "every 10 s")
        proof.batchBegan()
        #expect(proof.mayRead(vol0, 20 * second) == false)
        proof.batchEnded([:])
        proof.read(sample, of: vol0, since: before)
        #expect(proof.question(vol0, 0) == nil)
        proof.read(sample, of: vol0, since: proof.batchCount)
        #expect(try question(&proof, at: 0).sample == sample)
        #expect(proof.mayRead(vol0, 60 * second) == false, "something is known")
    }

    @Test("S21: answers that nobody asked for, twice, late, or without bytes prove nothing")
    func strayAnswers() throws {
        var proof = MediumProof()
        write(&proof, [1], at: 0)
        proof.answered(99, 7)
        let first = try question(&proof, at: 0)
        proof.answered(first.id, nil)
        proof.answered(first.id, 7)
        let late = try question(&proof, at: 10 * second)
        _ = try question(&proof, at: 20 * second)
        proof.answered(late.id, 7)
        let old = try question(&proof, at: 30 * second)
        proof.begin()
        proof.answered(old.id, 7)
        #expect(proof.takeVerdicts() == [])
    }
}
