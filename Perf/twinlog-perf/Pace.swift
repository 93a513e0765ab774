// Throughput as it passes: how many operations ended in each part of a repeat.

struct Pace: Encodable, Sendable {
    /// Enough to see a stall, and few enough that a part of the shortest repeat has operations.
    static let slices = 20

    private let begin: UInt64
    private let sliceNanos: UInt64
    private(set) var operations = [Int](repeating: 0, count: slices)
    var sliceSeconds: Double { Double(sliceNanos) / 1e9 }

    /// `begin`: by the monotonic clock. `nanos`: how long the repeat lasts.
    init(begin: UInt64, nanos: UInt64) {
        self.begin = begin
        sliceNanos = max(1, nanos / UInt64(Self.slices))
    }

    /// What ends after the repeat's time, waiting for the last of them, is in no part.
    mutating func note(_ now: UInt64, _ count: Int = 1) {
        let slice = (now - min(now, begin)) / sliceNanos
        guard slice < Self.slices else { return }
        operations[Int(slice)] += count
    }

    /// Of one that ran at the same time.
    mutating func merge(_ other: Pace) {
        for slice in operations.indices { operations[slice] += other.operations[slice] }
    }

    private enum CodingKeys: String, CodingKey { case sliceSeconds, operations }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(sliceSeconds, forKey: .sliceSeconds)
        try container.encode(operations, forKey: .operations)
    }
}
