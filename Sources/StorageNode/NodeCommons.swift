// What the event loops of one node share.

internal import ClusterConfiguration
internal import ClusterProtocol
internal import Coordination
internal import GroupEngine
internal import LogModel
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import PersistentMemory
internal import Synchronization

/// Thread-safe.
final class NodeCommons: Sendable {
    let id: NodeID
    let configuration: ClusterConfiguration
    let poolUUID: UUID128
    let isPoolNew: Bool
    let process: ProcessIdentity
    let coordinator: any Coordinator
    /// One thread, so that calls to the coordinator happen in the order in which they were made.
    let coordinatorThread = NIOThreadPool(numberOfThreads: 1)
    let fence: any Fence
    let media: any MediumGuard
    let archives: any LogArchives
    let partners: PartnerConfigurations
    let knownMedia = KnownMedia()
    let logger: Logger
    private let journal: Placed<EventJournal>
    /// What is wrong with the pool, for people.
    let poolProblem = Mutex<String?>(nil)

    /// On the journal's loop, which is the node's.
    init(
        _ configuration: ClusterConfiguration, _ id: NodeID, _ pool: OpenedPool, _ parts: NodeParts, logger: Logger,
        journal: EventJournal, on eventLoop: any EventLoop
    ) {
        self.id = id
        self.configuration = configuration
        poolUUID = pool.pool.identity.uuid
        isPoolNew = pool.isNew
        process = parts.process
        coordinator = parts.coordinator
        fence = parts.fence
        media = parts.media
        archives = parts.archives
        partners = PartnerConfigurations(configuration, of: id, groups: configuration.groups(of: id).map(\.id))
        self.logger = logger
        self.journal = Placed(here: journal, on: eventLoop)
    }

    var volumes: [VolumeInfo] {
        configuration.groups.flatMap { group in
            group.volumes.map { VolumeInfo(name: $0.name, sizeBytes: $0.sizeBytes, isReadOnly: $0.isReadOnly) }
        }
    }

    // MARK: People

    func report(_ report: Report, group: GroupID?) {
        var about: Logger.Metadata = ["kind": "\(report.kind.rawValue)"]
        if let group { about["group"] = "\(group)" }
        logger.notice("\(group.map { "\($0): " } ?? "")\(report.kind.rawValue): \(report.message)", metadata: about)
        journal.tell { $0.append(kind: report.kind, message: report.message, group: group) }
    }

    func configurationDiffers(from peer: NodeID, _ theirs: ConfigurationEntries) {
        if let news = partners.differs(peer, theirs) { report(Report(.configurationDiffers, news), group: nil) }
    }

    func configurationAgrees(with peer: NodeID) {
        guard partners.agrees(peer) else { return }
        report(Report(.configurationAgrees, "\(peer) has the configuration of \(id) now"), group: nil)
    }
}
