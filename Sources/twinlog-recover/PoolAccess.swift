// Opening a pool for a look, and saying what to do when that is not possible.

import LogModel
import PersistentMemory
import StorageMedium

/// Opens the pool beside other readers, never beside a node; not a byte of it changes. With `writing` exclusively.
func openPool(_ path: String, writing: Bool = false) throws(Failure) -> Pool {
    do throws(PoolError) {
        return try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: !writing)
    } catch {
        throw Failure(error)
    }
}

/// The regions that are asked for: all, or one group's.
func regions(of pool: Pool, group: String?) throws(Failure) -> [Region] {
    guard let group else { return pool.regions }
    return [try region(of: pool, group: group)]
}

func region(of pool: Pool, group: String) throws(Failure) -> Region {
    if let region = pool.region(of: GroupID(group)) { return region }
    let names = pool.regions.map(\.group.rawValue).joined(separator: ", ")
    throw Failure(
        .usage,
        "\(pool.path): has no log of group '\(group)'; "
            + (names.isEmpty ? "it has none at all" : "it has those of \(names)"))
}

extension Failure {
    init(_ error: PoolError) {
        switch error.code {
        case .inUse:
            let holder =
                FileIdentity(path: error.path).flatMap { FileHolder.find($0) }.map { ": \($0) has it open" } ?? ""
            self.init(
                .inUse, "\(error.path): in use\(holder); stop the node first, this tool looks only into pools that rest"
            )
        case .newerFormat: self.init(.unreadable, "\(error); use the twinlog-recover of the version that wrote it")
        case .truncated, .corrupt:
            self.init(.unreadable, "\(error); leave it as it is and use the pool of the group's other node")
        default: self.init(.unreadable, error.description)
        }
    }
}
