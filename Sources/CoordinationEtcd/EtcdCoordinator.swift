// etcd as a coordinator: the key PREFIX/groups/GROUP holds a record, as the file coordinator writes it, and PREFIX/nodes/NODE the presence of a
// node. Nothing is decided by etcd's leases or locks (S15, S17 are the nodes' own).
//
// A swap is one transaction. It compares the key's revision of modification *and* its value, which holds the record's version: a revision
// alone could come again in an etcd that was restored or restarted empty. So a swap that is repeated, or arrives late, changes nothing once any
// swap of its version has won, and whoever repeats its own finds its own record there.
//
// However many groups there are, a node makes one request for its lease: its sign of life is put and all records are read in one transaction.

public import Coordination
internal import Foundation
public import LogModel
internal import Synchronization

public final class EtcdCoordinator: Coordinator {
    /// As in the file coordinator: far above any record.
    static let maximumRecordBytes = 64 << 10

    /// A record as it stands at etcd.
    private struct Known {
        var record: GroupRecord
        var bytes: [UInt8]
        var revision: Revision
    }

    private struct State {
        var client: EtcdClient
        var known: [GroupID: Known] = [:]
    }

    private let prefix: String
    /// Calls are made one after another.
    private let state: Mutex<State>

    /// Connects with the first call.
    public init(_ settings: EtcdSettings) {
        prefix = settings.prefix
        state = Mutex(State(client: EtcdClient(settings)))
    }

    private var groupsFolder: String { "\(prefix)/groups/" }
    private var nodesFolder: String { "\(prefix)/nodes/" }
    private func key(of group: GroupID) -> String { groupsFolder + group.rawValue }

    // MARK: Records

    public func read(_ group: GroupID) throws(CoordinationError) -> GroupRecord? {
        try state.withLock { state throws(CoordinationError) in try read(group, &state)?.record }
    }

    private func read(_ group: GroupID, _ state: inout State) throws(CoordinationError) -> Known? {
        let answer: RangeAnswer
        do throws(EtcdError) {
            answer = try state.client.range(RangeRequest(key: key(of: group)))
        } catch {
            throw CoordinationError(error)
        }
        return try note(answer.kvs ?? [], of: group, &state)
    }

    /// Remembers what stands at the group's key, of all that was found.
    private func note(
        _ found: [KeyValue], of group: GroupID, _ state: inout State
    ) throws(CoordinationError) -> Known? {
        state.known[group] = nil
        let key = key(of: group)
        guard let pair = found.first(where: { $0.key == Data(key.utf8) }) else { return nil }
        let bytes = Array(pair.value ?? Data())
        guard bytes.count <= Self.maximumRecordBytes else {
            throw CoordinationError(.invalidRecord, "\(key): is larger than \(Self.maximumRecordBytes) bytes")
        }
        let record = try GroupRecord(encoded: bytes, place: key)
        guard record.group == group else {
            throw CoordinationError(.invalidRecord, "\(key): holds a record of group \(record.group)")
        }
        let known = Known(record: record, bytes: bytes, revision: pair.modRevision.value)
        state.known[group] = known
        return known
    }

    public func swap(expecting expected: UInt64, to record: GroupRecord) throws(CoordinationError) -> SwapOutcome {
        precondition(record.version == expected + 1, "a swap raises the version by one")
        let bytes = try record.encoded()
        return try state.withLock { state throws(CoordinationError) in
            var known = state.known[record.group]
            if known?.record.version ?? 0 != expected || known == nil { known = try read(record.group, &state) }
            guard known?.record.version ?? 0 == expected else { return Self.outcome(of: record, known?.record) }
            return try swap(known, to: record, bytes, &state)
        }
    }

    private func swap(
        _ known: Known?, to record: GroupRecord, _ bytes: [UInt8], _ state: inout State
    ) throws(CoordinationError) -> SwapOutcome {
        let key = key(of: record.group)
        var request = TransactionRequest(success: [.put(PutRequest(key: key, value: bytes))])
        request.compare = [.revision(of: key, is: known?.revision ?? 0)]
        if let known { request.compare.append(.value(of: key, is: known.bytes)) }
        request.failure = [.range(RangeRequest(key: key))]
        let answer: TransactionAnswer
        do throws(EtcdError) {
            answer = try state.client.transact(request)
        } catch {
            state.known[record.group] = nil
            if case .unanswered(let problem) = error { return .unknown(problem) }
            throw CoordinationError(error)
        }
        if answer.succeeded == true {
            state.known[record.group] = Known(record: record, bytes: bytes, revision: answer.header.revision.value)
            return .won
        }
        return Self.outcome(of: record, try note(answer.found, of: record.group, &state)?.record)
    }

    /// An earlier try of this very swap may have come into effect without an answer.
    private static func outcome(of record: GroupRecord, _ present: GroupRecord?) -> SwapOutcome {
        present == record ? .won : .lost(present)
    }

    // MARK: Signs of life

    public func announce(_ presence: Presence) throws(CoordinationError) {
        _ = try renew(presence, reading: [])
    }

    public func renew(
        _ presence: Presence, reading groups: [GroupID]
    ) throws(CoordinationError) -> [GroupID: Result<GroupRecord?, CoordinationError>] {
        let put = PutRequest(key: nodesFolder + presence.process.node.rawValue, value: try presence.encoded())
        // The operations of a transaction take effect in order: what is read is not older than the sign of life.
        var request = TransactionRequest(success: [.put(put)])
        if !groups.isEmpty { request.success.append(.range(RangeRequest(below: groupsFolder))) }
        return try state.withLock { state throws(CoordinationError) in
            let answer: TransactionAnswer
            do throws(EtcdError) {
                answer = try state.client.transact(request)
            } catch {
                throw CoordinationError(error)
            }
            let found = answer.found
            var records: [GroupID: Result<GroupRecord?, CoordinationError>] = [:]
            for group in groups {
                do throws(CoordinationError) {
                    records[group] = .success(try note(found, of: group, &state)?.record)
                } catch {
                    records[group] = .failure(error)
                }
            }
            return records
        }
    }

    public func presence(of node: NodeID) throws(CoordinationError) -> Presence? {
        try presences(of: [node])[node]?.get()
    }

    public func presences(
        of nodes: Set<NodeID>
    ) throws(CoordinationError) -> [NodeID: Result<Presence, CoordinationError>] {
        let found = try state.withLock { state throws(CoordinationError) -> [KeyValue] in
            do throws(EtcdError) {
                return try state.client.range(RangeRequest(below: nodesFolder)).kvs ?? []
            } catch {
                throw CoordinationError(error)
            }
        }
        var presences: [NodeID: Result<Presence, CoordinationError>] = [:]
        for node in nodes {
            let key = nodesFolder + node.rawValue
            guard let pair = found.first(where: { $0.key == Data(key.utf8) }) else { continue }
            do throws(CoordinationError) {
                presences[node] = .success(try Presence(encoded: Array(pair.value ?? Data()), of: node, place: key))
            } catch {
                presences[node] = .failure(error)
            }
        }
        return presences
    }
}

extension EtcdCoordinator: SecretKeeper {
    /// Made by whoever puts it first; the others read that one.
    public func clusterSecret() throws(SecretError) -> ClusterSecret {
        let key = "\(prefix)/secret"
        let value: Data?
        do throws(EtcdError) {
            value = try state.withLock { state throws(EtcdError) in try Self.secret(at: key, &state.client) }
        } catch {
            throw SecretError(.unreachable, key, CoordinationError(error).message)
        }
        guard let secret = ClusterSecret(hexadecimal: String(decoding: value ?? Data(), as: UTF8.self)) else {
            throw SecretError(.untrusted, key, "is not a secret; remove it while no node runs")
        }
        return secret
    }

    private static func secret(at key: String, _ client: inout EtcdClient) throws(EtcdError) -> Data? {
        let present = RangeRequest(key: key)
        if let pair = try client.range(present).kvs?.first { return pair.value }
        let fresh = Array(ClusterSecret.random().hexadecimal.utf8)
        var request = TransactionRequest(success: [.put(PutRequest(key: key, value: fresh))])
        request.compare = [.revision(of: key, is: 0)]
        _ = try client.transact(request)
        return try client.range(present).kvs?.first?.value
    }
}

extension CoordinationError {
    fileprivate init(_ error: EtcdError) {
        switch error {
        case .unreached(let problem), .unanswered(let problem), .refused(let problem):
            self.init(.unreachable, "etcd: \(problem)")
        }
    }
}
