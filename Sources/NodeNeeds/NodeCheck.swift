// What a node would find at its start on this machine, looked at by the user who asks, all of it at once; nothing is changed, no lock is
// taken, and the node may be running. A start that fails for one of these reasons says it in the same words.

internal import AdminProtocol
public import ClusterConfiguration
internal import ConfiguredCoordinator
internal import Coordination
internal import FenceCommand
internal import Glibc
internal import LogModel
internal import PersistentMemory
internal import StorageMedium
internal import StorageMediumSCSI
internal import TransportSecurity

public struct NodeCheck {
    private let configuration: ClusterConfiguration
    private let node: ClusterConfiguration.Node
    /// Of processes here, after they have raised it.
    private let descriptorLimit: UInt64
    private let memoryBytes: UInt64
    /// The node answers, so what it holds is not held by strangers.
    private let isRunning: Bool
    private var records: [GroupID: GroupRecord] = [:]

    /// What is wrong, each with the key that it is about, in the order of the file.
    public private(set) var problems: [ConfigurationError] = []
    /// What could not be asked, and is no fault of this node.
    public private(set) var remarks: [String] = []

    /// Looks at everything. Blocks, for as long as the file systems do, and a second for each node that does not answer.
    public init(
        _ configuration: ClusterConfiguration, node: ClusterConfiguration.Node, descriptorLimit: UInt64,
        memoryBytes: UInt64 = MemoryLimit.bytes()
    ) {
        self.configuration = configuration
        self.node = node
        self.descriptorLimit = descriptorLimit
        self.memoryBytes = memoryBytes
        isRunning = Self.answers(node)
        checkLimits()
        checkGroups()
        checkCoordinator()
        checkCertificates()
        checkFences()
        checkPool()
        checkEvents()
        for group in configuration.groups(of: node.id) {
            for volume in group.volumes { checkMedium(of: volume, in: group) }
        }
        checkPlaces()
        checkOthers()
        problems.sort { $0.line < $1.line }
    }

    private mutating func add(_ key: String, _ reason: String?) {
        guard let reason else { return }
        problems.append(configuration.source.problem(key, reason))
    }

    private var key: String { "nodes.\(node.id)" }

    // MARK: Limits

    private mutating func checkLimits() {
        add(key, DescriptorNeed(configuration, node: node).problem(limit: descriptorLimit))
        if let problem = MemoryLimit.problem(configuration, bytes: memoryBytes) { problems.append(problem) }
    }

    /// Whoever is not in a group cannot give it what they make. Each group is named once.
    private mutating func checkGroups() {
        var shares: [(String, FileAccess)] = []
        if case .file(_, let access) = configuration.coordinator { shares.append(("coordinator", access)) }
        shares += [
            ("\(key).pool", node.pool.access), ("\(key).admin", node.adminAccess), ("\(key).nbd", node.nbdAccess),
        ]
        let media = configuration.groups(of: node.id).flatMap { group in
            group.volumes.map { ("groups.\(group.id).volumes.\($0.name)", $0.access) }
        }
        var seen: Set<UInt32> = []
        for (key, access) in shares + media {
            guard let group = access.group, seen.insert(group).inserted, !Folders.isMember(of: group) else { continue }
            add("\(key).group", "user \(geteuid()) is not in group \(group), and cannot give it what it makes")
        }
    }

    // MARK: The coordinator

    private mutating func checkCoordinator() {
        switch configuration.coordinator {
        case .file(let path, let access): checkFolder(path, FileCoordinator(existing: path, access: access))
        case .etcd: checkEtcd()
        }
    }

    /// What may be written there is seen at the start: here nothing is changed.
    private mutating func checkEtcd() {
        do throws(CoordinationError) {
            readRecords(at: try ConfiguredCoordinator(existingOf: configuration).coordinator, "coordinator")
        } catch {
            add("coordinator", error.message)
        }
        if let path = configuration.secretPath { checkSecretFile(path, trusting: nil, "security.psk-file") }
    }

    private mutating func checkFolder(_ path: String, _ coordinator: FileCoordinator) {
        let key = "coordinator.path"
        defer { checkSecret(coordinator) }
        guard access(path, F_OK) == 0 else {
            add(key, errno == ENOENT ? Folders.problem(makingIn: path) : "\(path): \(Folders.words(errno))")
            return
        }
        guard Folders.isFolder(path) else { return add(key, "\(path): is not a folder") }
        do throws(CoordinationError) {
            try coordinator.checkPermissions()
        } catch {
            return add(key, error.message)
        }
        guard faccessat(AT_FDCWD, path, R_OK | W_OK | X_OK, AT_EACCESS) == 0 else {
            return add(key, "\(path): cannot be read and written by user \(geteuid()): \(Folders.words(errno))")
        }
        add(key, Folders.fullness(at: path))
        readRecords(at: coordinator, key)
    }

    private mutating func readRecords(at coordinator: any Coordinator, _ key: String) {
        for group in configuration.groups(of: node.id) {
            do throws(CoordinationError) {
                records[group.id] = try coordinator.read(group.id)
            } catch {
                add(key, error.message)
                // Whoever does not answer is not asked about every group.
                if error.code == .unreachable { return }
            }
        }
    }

    /// One that the nodes keep at the coordinator is made by the first that starts.
    private mutating func checkSecret(_ coordinator: FileCoordinator) {
        if let path = configuration.secretPath {
            checkSecretFile(path, trusting: coordinator.trustedGroup, "security.psk-file")
        } else if access(coordinator.secretPath, F_OK) == 0 {
            checkSecretFile(coordinator.secretPath, trusting: coordinator.trustedGroup, "coordinator.path")
        }
    }

    private mutating func checkSecretFile(_ path: String, trusting group: UInt32?, _ key: String) {
        do throws(SecretError) {
            _ = try SecretFile.read(path, trusting: group)
        } catch {
            add(key, error.message)
        }
    }

    /// Agents are not run: what they are told turns a machine off.
    private mutating func checkFences() {
        for case .command(let agent) in configuration.fences {
            add("fence", CommandFence.problem(withProgram: agent.run[0]))
        }
    }

    private mutating func checkCertificates() {
        if let files = configuration.railCertificates { check(files, of: "security") }
        if let security = node.nbdSecurity { check(security.files, of: "\(key).nbd") }
    }

    private mutating func check(_ files: CertificateFiles, of key: String) {
        do throws(TLSError) {
            _ = try TLSContexts(files, onlyNewest: false)
        } catch {
            let keys = [files.certificate: "certificate", files.key: "key", files.authorities ?? "": "ca"]
            add([key, error.path.flatMap { keys[$0] }].compactMap(\.self).joined(separator: "."), error.description)
        }
    }

    // MARK: Files

    private mutating func checkPool() {
        let path = node.pool.path
        guard let request = PersistenceRequest(rawValue: node.pool.persistence) else {
            preconditionFailure("the configuration was checked")
        }
        do throws(PoolError) {
            guard
                let contents = try Pool.look(
                    path: path, expecting: (configuration.cluster, node.id), persistence: request)
            else { return checkRoom(for: path) }
            problems += PoolNeed.problems(contents, configuration, node: node)
        } catch {
            add("\(key).pool.path", error.advice)
        }
    }

    /// A pool is fully allocated when it is made (S26).
    private mutating func checkRoom(for path: String) {
        if let problem = Folders.problem(makingIn: path) { return add("\(key).pool.path", problem) }
        guard let free = Folders.freeBytes(at: path), free < node.pool.sizeBytes else { return }
        add(
            "\(key).pool.size",
            "\(path): there is no pool yet, and a new one needs \(node.pool.sizeBytes) bytes; its file system has \(free)"
        )
    }

    private mutating func checkEvents() {
        let path = node.eventsPath
        // Beside the pool they are not more wrong than that.
        let isBesidePool = Folders.folder(of: path) == Folders.folder(of: node.pool.path)
        if !isBesidePool { add("\(key).events", Folders.problem(makingIn: path)) }
        guard access(path, F_OK) == 0 else { return }
        guard faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) == 0 else {
            return add("\(key).events", "\(path): cannot be written by user \(geteuid()): \(Folders.words(errno))")
        }
    }

    private mutating func checkMedium(of volume: ClusterConfiguration.Volume, in group: ClusterConfiguration.Group) {
        let key = "groups.\(group.id).volumes.\(volume.name)"
        let record = records[group.id]
        let known = records.values.reduce(into: [UUID128: String]()) { volumes, record in
            for (name, identity) in record.media { volumes[identity] = name }
        }
        let isNew = record?.isNew ?? true
        let expected = MediumExpectation(
            volume: volume.name, identity: record?.media[volume.name], volumes: known, isNew: isNew)
        do throws(MediumError) {
            if let look = UnitNeed.look(at: volume, configuration, node) {
                return try expected.check(look.check(sizeBytes: volume.sizeBytes), of: volume.mediumPath)
            }
            let medium = try FileMedium.look(path: volume.mediumPath, sizeBytes: volume.sizeBytes)
            try medium.check(expected)
            if !medium.isFullyAllocated { add("\(key).medium", Folders.fullness(at: volume.mediumPath)) }
        } catch {
            switch error.code {
            // The first owner makes it.
            case .missing where isNew: add("\(key).medium", Folders.problem(makingIn: volume.mediumPath))
            case .wrongSize: add("\(key).size", error.message)
            default: add("\(key).medium", error.message)
            }
        }
    }

    // MARK: Places

    private mutating func checkPlaces() {
        add("\(key).admin", Places.socketProblem(at: node.adminPath, isRunning: isRunning))
        for rail in node.mirror { add("\(key).mirror", Places.problem(of: rail, isRunning: isRunning)) }
        if node.nbd.hasPrefix("unix:") {
            add("\(key).nbd", Places.socketProblem(at: String(node.nbd.dropFirst(5)), isRunning: isRunning))
        } else {
            add("\(key).nbd", Places.problem(of: node.nbd, isRunning: isRunning))
        }
    }

    // MARK: What runs already

    private static let answerMillis = 1000

    private static func answers(_ node: ClusterConfiguration.Node) -> Bool {
        do throws(AdminClientError) {
            let answer = try AdminClient.ask(.status, at: node.adminPath, timeoutMillis: answerMillis)
            guard case .status(let status) = answer else { return false }
            return status.name == node.id.rawValue
        } catch {
            // It hangs, or this user may not ask it: that is remarked.
            return error.kind != .unreachable
        }
    }

    /// The node itself, if it runs, and those that share a group with it: which configuration each has read.
    private mutating func checkOthers() {
        let groups = configuration.groups(of: node.id)
        for other in configuration.nodes where groups.contains(where: { $0.includes(other.id) }) {
            if other.id == node.id && !isRunning { continue }
            compare(with: other)
        }
    }

    /// The groups that both files have can be mirrored all the while.
    private func isTakenNodeByNode(
        _ theirs: [ClusterConfiguration.SharedEntry], with other: ClusterConfiguration.Node
    ) -> Bool {
        let shared = configuration.groups(of: node.id).filter { group in
            group.includes(other.id) && theirs.contains { $0.key.hasPrefix("groups.\(group.id).") }
        }
        return !shared.isEmpty
            && shared.allSatisfy {
                ClusterConfiguration.agreement(on: $0.id, configuration.sharedEntries, theirs) != .none
            }
    }

    private mutating func compare(with other: ClusterConfiguration.Node) {
        do throws(AdminClientError) {
            let answer = try AdminClient.ask(
                .configuration, at: other.adminPath, timeoutMillis: Self.answerMillis)
            guard case .configuration(let entries) = answer else {
                return remarks.append("\(other.id) cannot tell which configuration it has")
            }
            let theirs = entries.map { ClusterConfiguration.SharedEntry(key: $0.key, value: $0.value) }
            guard
                let difference = ClusterConfiguration.difference(
                    configuration.sharedEntries, of: "disk", theirs, of: other.id.rawValue)
            else { return }
            let what = "runs with another configuration: \(difference)"
            guard !isTakenNodeByNode(theirs, with: other) else {
                return remarks.append(
                    "\(other.id) \(what); until it is restarted, each group goes on with what both know")
            }
            let advice = other.id == node.id ? "restart it" : "the two would not mirror each other"
            add("nodes.\(other.id)", "\(what); \(advice)")
        } catch {
            remarks.append("\(other.id) could not be asked: \(error)")
        }
    }
}
