// The volumes whose media the records of a node's groups know, by identity (S18): each group sees those of all, on whichever loop they live.

internal import LogModel
internal import Synchronization

/// Thread-safe.
final class KnownMedia: Sendable {
    private let known = Mutex<[GroupID: [String: UUID128]]>([:])

    /// Those of the record that `group` goes by.
    func note(_ media: [String: UUID128], of group: GroupID) { known.withLock { $0[group] = media } }

    var all: [UUID128: String] {
        known.withLock { known in
            known.values.reduce(into: [:]) { all, media in
                for (name, identity) in media { all[identity] = name }
            }
        }
    }
}
