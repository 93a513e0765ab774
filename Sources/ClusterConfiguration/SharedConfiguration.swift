// What must be equal in the configurations of all nodes: nodes that would serve different things under one name do not
// mirror each other (S27). Two nodes compare digests when they meet; only if these differ do they tell each other the
// entries, and each names the keys.

internal import Crypto
internal import LogModel

extension ClusterConfiguration {
    /// One key that must be equal everywhere, with its value, as canonical text.
    public struct SharedEntry: Hashable, Sendable {
        public var key: String
        public var value: String
        public init(key: String, value: String) {
            self.key = key
            self.value = value
        }
    }

    /// What this version does whatever the file says; a version that can do more has more values here.
    private static let fixedGroupValues = [("ack", "mirrored"), ("takeover", "strict"), ("topology", "shared")]

    /// In order of key.
    public var sharedEntries: [SharedEntry] {
        var entries = [
            SharedEntry(key: "cluster", value: cluster),
            SharedEntry(key: "heartbeat.interval", value: "\(heartbeatIntervalMillis)ms"),
            SharedEntry(key: "heartbeat.timeout", value: "\(heartbeatTimeoutMillis)ms"),
            SharedEntry(key: "lease", value: "\(leaseMillis)ms"),
        ]
        // Of several ways to one etcd each node may have its own; a directory may have another name on each.
        if case .etcd(let etcd) = coordinator {
            entries.append(SharedEntry(key: "coordinator.type", value: "etcd"))
            entries.append(SharedEntry(key: "coordinator.prefix", value: etcd.prefix))
        }
        for group in groups { entries += Self.sharedEntries(of: group) }
        return entries.sorted { $0.key < $1.key }
    }

    private static func sharedEntries(of group: Group) -> [SharedEntry] {
        let prefix = "groups.\(group.id)"
        var entries = [
            SharedEntry(key: "\(prefix).home", value: group.home.rawValue),
            SharedEntry(key: "\(prefix).mirror", value: group.mirror.rawValue),
            SharedEntry(key: "\(prefix).log", value: "\(group.logBytes)"),
            SharedEntry(key: "\(prefix).on-mirror-loss", value: group.degradeOnMirrorLoss ? "degrade" : "stall"),
        ]
        entries += fixedGroupValues.map { SharedEntry(key: "\(prefix).\($0)", value: $1) }
        for volume in group.volumes {
            entries.append(SharedEntry(key: "\(prefix).volumes.\(volume.name).medium", value: volume.mediumText))
            entries.append(SharedEntry(key: "\(prefix).volumes.\(volume.name).size", value: "\(volume.sizeBytes)"))
            if volume.isReadOnly {
                entries.append(SharedEntry(key: "\(prefix).volumes.\(volume.name).read-only", value: "true"))
            }
        }
        return entries
    }

    /// SHA-256 of ``sharedEntries``: each key and value with its length before it.
    public var sharedDigest: [UInt8] {
        var hash = SHA256()
        for entry in sharedEntries {
            for text in [entry.key, entry.value] {
                withUnsafeBytes(of: UInt32(text.utf8.count).littleEndian) { hash.update(bufferPointer: $0) }
                hash.update(data: Array(text.utf8))
            }
        }
        return Array(hash.finalize())
    }

    /// How many differing keys are named; whoever has more has another file altogether.
    static let namedDifferences = 8

    /// Each key that differs between the entries of two nodes, with both values, in order; `nil` if none does.
    public static func difference(
        _ first: [SharedEntry], of firstName: String, _ second: [SharedEntry], of secondName: String
    ) -> String? {
        let firstValues = Dictionary(first.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
        let secondValues = Dictionary(second.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
        let differing = Set(firstValues.keys).union(secondValues.keys)
            .filter { firstValues[$0] != secondValues[$0] }.sorted()
        guard !differing.isEmpty else { return nil }
        func value(_ text: String?) -> String { text.map { "'\($0)'" } ?? "missing" }
        let named = differing.prefix(namedDifferences).map {
            "\($0) is \(value(firstValues[$0])) on \(firstName) and \(value(secondValues[$0])) on \(secondName)"
        }
        let more = differing.count > named.count ? ["\(differing.count - named.count) more keys differ"] : []
        return (named + more).joined(separator: "; ")
    }
}
