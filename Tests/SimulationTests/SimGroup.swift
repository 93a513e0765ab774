// A group of a run: what of it lasts longer than a process, and who looks at it. Nodes, networks and the coordinator are shared with the
// other groups; a record, media, clients and promises are each group's own.

@testable import ClusterConfiguration
import ClusterProtocol
import Coordination
@testable import GroupEngine
import LogModel
import SimulationSupport
import TestSupport

/// A node's way to the media of one group.
final class MediumPath {
    var fails = false
    /// Its calls do not return.
    let hang = Hang()

    func heal() {
        fails = false
        hang.isOn = false
    }
}

final class SimGroup: @unchecked Sendable {
    // Sendable: whoever touches it holds the world's baton.
    /// Unsafe: it has the group.
    unowned(unsafe) let world: World
    let index: Int
    let configuration: ClusterConfiguration.Group
    /// At the coordinator.
    var record: GroupRecord? {
        didSet {
            ownerPID = record?.ownerProcess?.pid
            isPublished = record?.phase == .published
            isHeldElsewhere = record.map { record in record.holders.contains { $0 != record.owner } } == true
        }
    }
    /// Of the record, for what is looked at again and again. No two processes of a run have the same number.
    private(set) var ownerPID: Int32?
    private(set) var isPublished = false
    /// It counts a complete copy beside the owner's.
    private(set) var isHeldElsewhere = false
    /// The record as it was at some time.
    var imageOfRecord: GroupRecord?
    /// Swaps that nobody knows of and that may come into effect.
    var lateSwapsPending = 0
    let media: Media
    /// By node.
    let paths = [MediumPath(), MediumPath()]
    var rottenLines: [RottenLine] = []
    /// A line of a log has rotted since the group was last published: what a batch that was cut has written may be nobody's write.
    var hasRotted = false
    /// No copy of some records is left.
    var hitsBothCopies = false
    /// Nodes whose pool is an older copy, while the group's log in it was not begun or compared anew.
    var olderCopies: Set<Int> = []
    /// The coordinator has forgotten something of it.
    var wasRolledBack = false
    private(set) lazy var clients = Clients(self)
    private(set) lazy var oracle = Oracle(self)

    init(_ world: World, index: Int, _ configuration: ClusterConfiguration.Group, _ media: Media) {
        self.world = world
        self.index = index
        self.configuration = configuration
        self.media = media
    }

    var id: GroupID { configuration.id }
    /// The volumes of the group, in the order of the configuration.
    var volumes: [ClusterConfiguration.Volume] { configuration.volumes }

    func has(_ volume: ClusterConfiguration.Volume) -> Bool { volumes.contains { $0.name == volume.name } }

    func path(of node: SimNode) -> MediumPath { paths[node.index] }

    func isHolder(_ node: SimNode) -> Bool { record?.isHolder(node.name) == true }

    /// The node that owns it by the record.
    var ownerNode: SimNode? { record.flatMap { record in world.nodes.first { $0.name == record.owner } } }

    // MARK: What its nodes say

    /// The one process that serves.
    var servingServer: Server? {
        let serving = world.nodes.compactMap(\.server).filter { !$0.isDying && $0.isServing(self) }
        oracle.expect(serving.count < 2, "S15: two processes serve")
        return serving.first
    }

    func isMirrored(_ node: SimNode) -> Bool {
        node.server.map { $0.engine(of: self).machine.state($0.clock) == .mirrored } ?? false
    }

    var isWhole: Bool { servingServer != nil && world.nodes.allSatisfy(isMirrored) }

    /// It is whole, and every rail of its owner has answered.
    var hasAllRails: Bool {
        guard isWhole, let owner = servingServer else { return false }
        return owner.engine(of: self).rails.choice.rails.allSatisfy { $0.isUp && $0.roundTrip != nil }
    }

    /// For people.
    var state: String { world.nodes.map(describe).joined(separator: "; ") }

    func describe(_ node: SimNode) -> String {
        guard let server = node.server else { return "\(node.name) is down" }
        let engine = server.engine(of: self)
        let reason = engine.machine.reason(server.clock) ?? "no reason"
        return "\(server.name) is \(engine.machine.state(server.clock)) (\(reason)), its log \(engine.snapshot)"
    }

    func note(_ text: @autoclosure () -> String) {
        world.note(world.groups.count > 1 ? "\(id) \(text())" : text())
    }

    /// Breaks the circles of references.
    func dismantle() { clients.end() }
}

extension World {
    /// Most runs have one, which costs least.
    static func groupCount(_ random: inout SplitMix64) -> Int {
        switch random.between(0, 99) {
        case 0..<70: 1
        case 70..<95: 2
        default: 3
        }
    }

    /// Homes are in both directions.
    func makeGroup(_ index: Int, degrades: Bool) -> SimGroup {
        let home = index < 2 ? index : Int(random.between(0, 1))
        let volumes = [2 * index, 2 * index + 1].map {
            ClusterConfiguration.Volume(
                name: "v\($0)", mediumPath: "/virtual/v\($0)", mediumText: "v\($0)", sizeBytes: Self.volumeBytes)
        }
        let configuration = ClusterConfiguration.Group(
            id: GroupID("g\(index)"), home: nodes[home].name, mirror: nodes[1 - home].name, logBytes: Self.ringBytes,
            degradeOnMirrorLoss: degrades, volumes: volumes)
        return SimGroup(self, index: index, configuration, Media(volumes, &random))
    }

    func group(_ id: GroupID) -> SimGroup? { groups.first { $0.id == id } }

    func anyGroup() -> SimGroup { groups[Int(random.between(0, UInt64(groups.count - 1)))] }
}
