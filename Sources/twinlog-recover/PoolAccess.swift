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

extension Failure {
    init(_ error: PoolError) {
        switch error.code {
        case .inUse:
            let holder =
                FileIdentity(path: error.path).flatMap { FileHolder.find($0) }.map { ": \($0) has it open" } ?? ""
            self.init(
                .inUse, "\(error.path): in use\(holder); stop the node first, this tool looks only into pools that rest"
            )
        default: self.init(.unreadable, error.advice)
        }
    }
}
