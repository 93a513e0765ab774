// What the owner of a group knows of its mirror log: three numbers, and what is on the way. Pure; the shell posts what
// `next` says and reports completions.
//
// Shipping is self-clocked: the first record leaves at once; while a WRITE is out, what is published meanwhile leaves as
// one next WRITE. A second one leaves early if it is large, so that the mirror stores the one while the other is on its way; a
// third only if it is a full one, which keeps the pipe full during a catch-up.

public import LogModel

public struct MirrorSession: Sendable {
    /// The most that one WRITE carries. Equal to the transport's limit; the shell checks that it is not above it.
    public static let maximumShipBytes: UInt64 = 1 << 20
    /// Full WRITEs on the way at once.
    public static let maximumFullWrites = 3
    /// A WRITE of so much does not wait for the only one that is on the way.
    public static let earlyBytes: UInt64 = 64 << 10

    struct Posted: Sendable {
        var id: UInt64
        var end: LSN
        var trimsTo: LSN?
    }

    /// Everything below has been posted to the mirror.
    public private(set) var shipped: LSN
    /// Everything below is durable in the mirror log (S11).
    public private(set) var durable: LSN
    /// The mirror's durable head: space below it may be reused on this side (S6).
    public private(set) var mirrorHead: LSN
    /// The oldest request that is not completed.
    public var pending: UInt64? { posted.first?.id }
    /// The newest of those.
    public var newest: UInt64? { posted.last?.id }
    private var headPosted: LSN
    /// The owner's head when it attached: what is below is not shipped, and must be trimmed at the mirror first. A mirror
    /// whose log began below would have a hole in front of everything that it acknowledges.
    private let firstShipped: LSN
    private let shipBytes: UInt64
    private var posted: [Posted] = []
    private var writesOut = 0

    /// The mirror said that it holds everything below `durable`. Its head is at `mirrorHead` or above, the owner's is at
    /// `head`. One WRITE carries `shipBytes` at most.
    public init(durable: LSN, mirrorHead: LSN, head: LSN, shipBytes: UInt64 = Self.maximumShipBytes) {
        precondition(shipBytes <= Self.maximumShipBytes, "one WRITE carries \(Self.maximumShipBytes) bytes at most")
        shipped = durable
        self.durable = durable
        self.mirrorHead = mirrorHead
        headPosted = mirrorHead
        firstShipped = head
        self.shipBytes = shipBytes
    }

    /// Whether so much waits that it need not wait for more.
    public func hasMuch(published: LSN) -> Bool { shipped + Self.earlyBytes <= published }

    /// The range to post now, or `nil`: as one WRITE, or as two where it spans the end of the ring. `published` is the end of what
    /// may be shipped. A trim that is due goes first.
    public func next(published: LSN, creditBytes: UInt64) -> Range<LSN>? {
        guard shipped < published, shipped >= firstShipped else { return nil }
        let waiting = published - shipped
        let length = min(waiting, shipBytes)
        guard length <= creditBytes else { return nil }
        let mostOut = waiting >= shipBytes ? Self.maximumFullWrites : hasMuch(published: published) ? 2 : 1
        guard writesOut < mostOut else { return nil }
        return shipped..<(shipped + length)
    }

    /// The shell posted `range` as the WRITE `id`. Each is told by itself: what was posted is never posted again.
    public mutating func didPost(_ range: Range<LSN>, id: UInt64) {
        precondition(range.lowerBound == shipped, "shipped \(range) out of order, expected \(shipped)")
        shipped = range.upperBound
        writesOut += 1
        posted.append(Posted(id: id, end: range.upperBound, trimsTo: nil))
    }

    /// Whether the mirror must be told that the owner's head is at `head` now.
    public func needsTrim(to head: LSN) -> Bool { head > headPosted }

    /// The shell posted an ATOMIC WRITE of the head. What the owner has destaged need not be shipped any more.
    public mutating func didPostTrim(to head: LSN, id: UInt64) {
        precondition(head > headPosted, "head \(head) told twice")
        headPosted = head
        shipped = max(shipped, head)
        posted.append(Posted(id: id, end: shipped, trimsTo: head))
    }

    /// Everything up to and including request `id` is persisted at the mirror. Answers whether a number moved.
    public mutating func completed(through id: UInt64) -> Bool {
        var moved = false
        while let first = posted.first, first.id <= id {
            posted.removeFirst()
            moved = true
            if let head = first.trimsTo {
                mirrorHead = max(mirrorHead, head)
            } else {
                writesOut -= 1
            }
            durable = max(durable, first.end)
        }
        return moved
    }
}
