// The regions that the groups of one event loop offer on their rails, by key. Bound to one event loop, like the queue pairs that look keys up:
// a copy into a region runs to its end in one turn of the loop, so after `revoke` only persists can still be under way.

public import RemoteMemory

public final class TCPRegionRegistry: RegionRegistry {
    final class Entry {
        let target: any RegionTarget
        let lengthBytes: UInt64
        var persistsUnderWay = 0
        var onIdle: (() -> Void)?

        init(target: any RegionTarget, lengthBytes: UInt64) {
            self.target = target
            self.lengthBytes = lengthBytes
        }
    }

    private var entries: [UInt64: Entry] = [:]

    public init() {}

    public func register(_ target: any RegionTarget, lengthBytes: UInt64) -> RegionKey {
        var generator = SystemRandomNumberGenerator()
        while true {
            let key = generator.next()
            guard key != 0, entries[key] == nil else { continue }
            entries[key] = Entry(target: target, lengthBytes: lengthBytes)
            return RegionKey(rawValue: key)
        }
    }

    public func revoke(_ key: RegionKey, sealed: @escaping () -> Void) {
        guard let entry = entries.removeValue(forKey: key.rawValue), entry.persistsUnderWay > 0 else { return sealed() }
        let earlier = entry.onIdle
        entry.onIdle = {
            earlier?()
            sealed()
        }
    }

    /// The region under `key` if `length` bytes at `offset` are inside of it.
    func entry(_ key: UInt64, offset: UInt64, length: UInt64) throws(RemoteMemoryError) -> Entry {
        guard let entry = entries[key] else {
            throw RemoteMemoryError(.access, "the region's key is revoked or was never given")
        }
        guard offset <= entry.lengthBytes, length <= entry.lengthBytes - offset else {
            throw RemoteMemoryError(.access, "\(length) bytes at \(offset) are outside of the region")
        }
        return entry
    }
}
