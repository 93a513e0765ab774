// Whether the mirror reaches what the owner writes (S18): the owner asks for the checksum of bytes that it knows on a medium, and
// the mirror reads them from its own path. It works where nothing carries an identity, and tells an old copy from the medium.
//
// Only bytes that nobody wrote meanwhile prove anything against a mirror. So an answer that differs is judged when no
// batch is under way, and counts only if what was asked for is still known: every batch that ends takes away what it wrote to.

internal import CLogCore
internal import ClusterProtocol
internal import LogModel
internal import Recovery

struct MediumProof {
    /// How often each volume is asked for. A standby that reaches something else is said to within this time.
    static let interval: Nanos = 10_000_000_000
    /// After an answer that proved nothing.
    static let retryInterval: Nanos = 1_000_000_000
    /// Of each volume: enough for one of them to outlast a question while clients write.
    private static let keptSamples = 8

    /// Bytes of a volume's medium, flushed.
    struct Sample: Hashable, Sendable {
        var range: ByteRange
        var checksum: UInt32

        init(offset: UInt64, bytes: some Collection<UInt8>) {
            range = ByteRange(offset: offset, length: UInt64(bytes.count))
            checksum = MediumProof.checksum(of: Array(bytes))
        }
    }

    struct Question: Hashable, Sendable {
        var id: UInt64
        var volume: VolumeID
        var sample: Sample
    }

    struct Verdict: Hashable, Sendable {
        var volume: VolumeID
        var isProved: Bool
    }

    private var samples: [VolumeID: [Sample]] = [:]
    private var asked: [UInt64: Question] = [:]
    /// Answers that differ, until no batch is under way.
    private var differing: [Question] = []
    private var judged: [Verdict] = []
    private var nextID: UInt64 = 1
    private var askAt: [VolumeID: Nanos] = [:]
    private var readAt: [VolumeID: Nanos] = [:]
    private var isBatchUnderWay = false
    /// Batches that were begun.
    private(set) var batchCount: UInt64 = 0
    /// How often the owner read its own medium for want of a batch.
    private(set) var readCount: UInt64 = 0

    static func checksum(of bytes: [UInt8]) -> UInt32 {
        bytes.withUnsafeBytes { tl_crc32c(0, $0.baseAddress, $0.count) }
    }

    // MARK: What is known of the media

    mutating func batchBegan() {
        isBatchUnderWay = true
        batchCount += 1
    }

    mutating func batchEnded(_ traces: [VolumeID: WrittenTrace]) {
        isBatchUnderWay = false
        for (volume, trace) in traces {
            samples[volume]?.removeAll { sample in trace.ranges.contains { $0.overlaps(sample.range) } }
            if let (offset, bytes) = trace.sample { keep(Sample(offset: offset, bytes: bytes), of: volume) }
        }
        judge()
    }

    /// Any of what it was to write may be on the media.
    mutating func batchFailed() {
        isBatchUnderWay = false
        samples = [:]
        judge()
    }

    private mutating func keep(_ sample: Sample, of volume: VolumeID) {
        samples[volume, default: []].append(sample)
        if let count = samples[volume]?.count, count > Self.keptSamples { samples[volume]?.removeFirst() }
    }

    private func isUnknown(_ volume: VolumeID) -> Bool { !isBatchUnderWay && samples[volume]?.isEmpty != false }

    /// Whether the owner is to read bytes to know its medium by, since nothing of it is known: what it destaged is of an earlier
    /// process, or was written over.
    mutating func mayRead(_ volume: VolumeID, _ now: Nanos) -> Bool {
        guard isUnknown(volume), now >= readAt[volume] ?? 0 else { return false }
        readAt[volume] = now + Self.interval
        readCount += 1
        return true
    }

    /// Bytes were read from the owner's own medium, begun when ``batchCount`` was `count`.
    mutating func read(_ sample: Sample, of volume: VolumeID, since count: UInt64) {
        guard count == batchCount, isUnknown(volume) else { return }
        keep(sample, of: volume)
    }

    // MARK: Questions and answers

    /// A mirror attaches: whatever was asked is another's to answer.
    mutating func begin() {
        asked = [:]
        differing = []
        judged = []
        askAt = [:]
        readAt = [:]
    }

    /// The question about `volume`, newest bytes first, if it is time for one and anything is known.
    mutating func question(_ volume: VolumeID, _ now: Nanos) -> Question? {
        guard now >= askAt[volume] ?? 0, let sample = samples[volume]?.last else { return nil }
        askAt[volume] = now + Self.interval
        let question = Question(id: nextID, volume: volume, sample: sample)
        nextID += 1
        // One that is not answered by the next time never is.
        for (id, other) in asked where other.volume == volume { asked[id] = nil }
        asked[question.id] = question
        return question
    }

    /// The mirror reads `checksum` there; `nil`: it cannot read, and says why by itself. Answers to nothing prove nothing.
    mutating func answered(_ id: UInt64, _ checksum: UInt32?) {
        guard let question = asked.removeValue(forKey: id), let checksum else { return }
        if checksum == question.sample.checksum {
            judged.append(Verdict(volume: question.volume, isProved: true))
        } else {
            differing.append(question)
            if !isBatchUnderWay { judge() }
        }
    }

    /// No batch is under way: what is still known was not written meanwhile.
    private mutating func judge() {
        for question in differing {
            if samples[question.volume]?.contains(question.sample) == true {
                judged.append(Verdict(volume: question.volume, isProved: false))
            }
            askAt[question.volume]? -= Self.interval - Self.retryInterval
        }
        differing = []
    }

    /// What was proved since this was last asked.
    mutating func takeVerdicts() -> [Verdict] {
        defer { judged = [] }
        return judged
    }
}
