// How many clients there are, on whichever event loop, and how many were told that there is no place.

internal import Synchronization

/// Thread-safe.
final class ClientPlaces: Sendable {
    let limit: Int
    private let taken = Atomic(0)
    private let refused = Atomic(0)

    init(limit: Int) { self.limit = limit }

    /// False if there is none.
    func take() -> Bool {
        let before = taken.load(ordering: .relaxed)
        guard before < limit else { return false }
        // Places are taken on one loop, and given back on any.
        taken.add(1, ordering: .relaxed)
        return true
    }

    func giveBack() { taken.subtract(1, ordering: .relaxed) }

    func refuse() { refused.add(1, ordering: .relaxed) }

    var takenCount: Int { taken.load(ordering: .relaxed) }
    var refusedCount: Int { refused.load(ordering: .relaxed) }
}
