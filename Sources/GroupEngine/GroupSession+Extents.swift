// What is known of a range without reading it: holes of the medium, and zeros in the log. And reading ahead.

internal import ClusterProtocol
internal import LogModel
internal import StorageMedium

extension GroupSession {
    /// The most extents of one answer: 1 KiB of a reply, and as many seeks of a file.
    private static let maximumExtents = 128

    func extents(
        offset: UInt64, length: UInt64, completion: @escaping (Result<[VolumeExtent], VolumeError>) -> Void
    ) {
        let range = ByteRange(offset: offset, length: length)
        guard !isClosed, !owned.isRevoked else { return }
        let again = { self.extents(offset: offset, length: length, completion: completion) }
        guard owned.mayServe else { return requests.hold(self, again) }
        let id = owned.destage.beginRead()
        let medium = medium
        owned.runtime.run(.reads) {
            try medium.extents(of: range, limit: Self.maximumExtents)
        } _: { [self] result in
            defer { owned.endRead(id) }
            guard !isClosed, !owned.isRevoked else { return }
            // What was found may be another owner's past (S17).
            guard owned.mayServe else { return requests.hold(self, again) }
            completion(result.map(underTheLog).mapError { .readFailed("\($0)") })
        }
    }

    /// What the log has of a range counts, and not what is below it (S9). Ends early rather than with too many extents.
    private func underTheLog(_ found: [MediumExtent]) -> [VolumeExtent] {
        guard let first = found.first, let last = found.last else { return [] }
        var list = ExtentList(found, limit: Self.maximumExtents)
        let whole = ByteRange(offset: first.range.offset, length: last.range.end - first.range.offset)
        let isWhole = owned.overlay.walk(
            volume, whole,
            while: { part, source in
                list.addMedium(to: part.offset)
                list.add(source.payload == nil ? .zeros : .data, to: part.end)
                return !list.isFull
            })
        if isWhole { list.addMedium(to: whole.end) }
        return list.extents
    }

    /// A medium that cannot read ahead is no failure of the request.
    func prefetch(_ range: ByteRange, _ completion: @escaping VolumeCompletion) {
        guard owned.mayServe else {
            return requests.hold(self) { self.prefetch(range, completion) }
        }
        let medium = medium
        owned.runtime.run(.reads) {
            try medium.prefetch(range)
        } _: { [self] result in
            guard !isClosed, !owned.isRevoked else { return }
            completion(result.map { nil }.mapError { .readFailed("\($0)") })
        }
    }
}

/// Extents one after another, those of one kind joined.
private struct ExtentList {
    private(set) var extents: [VolumeExtent] = []
    private let limit: Int
    private var end: UInt64
    private var medium: ArraySlice<MediumExtent>

    init(_ medium: [MediumExtent], limit: Int) {
        self.medium = medium[...]
        self.limit = limit
        end = medium.first?.range.offset ?? 0
    }

    var isFull: Bool { extents.count >= limit }

    mutating func add(_ kind: VolumeExtent.Kind, to newEnd: UInt64) {
        guard newEnd > end else { return }
        if extents.last?.kind == kind {
            extents[extents.count - 1].lengthBytes += newEnd - end
        } else {
            guard !isFull else { return }
            extents.append(VolumeExtent(lengthBytes: newEnd - end, kind: kind))
        }
        end = newEnd
    }

    /// What the medium has up to `newEnd`.
    mutating func addMedium(to newEnd: UInt64) {
        while let first = medium.first, first.range.offset < newEnd {
            add(first.isHole ? .hole : .data, to: min(first.range.end, newEnd))
            guard first.range.end <= newEnd else { return }
            medium.removeFirst()
        }
    }
}
