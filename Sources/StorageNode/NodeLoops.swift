// Where the groups of a node live.

internal import ClusterConfiguration
internal import GroupEngine
internal import LogModel
internal import NIOCore
internal import Synchronization

/// Thread-safe.
final class NodeLoops: LoopNeighbours {
    private struct Places {
        var loops: [Placed<GroupLoop>] = []
        var ofGroup: [GroupID: Placed<GroupLoop>] = [:]
        var ofVolume: [String: Placed<GroupLoop>] = [:]
    }

    private let places = Mutex<Places>(Places())

    func settle(_ groups: [ClusterConfiguration.Group], on loop: Placed<GroupLoop>) {
        places.withLock { places in
            places.loops.append(loop)
            for group in groups {
                places.ofGroup[group.id] = loop
                for volume in group.volumes { places.ofVolume[volume.name] = loop }
            }
        }
    }

    /// In the order in which they were settled.
    var all: [Placed<GroupLoop>] { places.withLock { $0.loops } }
    func loop(of group: GroupID) -> Placed<GroupLoop>? { places.withLock { $0.ofGroup[group] } }

    func place(of volume: String) -> VolumePlace? {
        places.withLock { $0.ofVolume[volume] }.map { loop in VolumePlace(eventLoop: loop.eventLoop) { loop.value } }
    }

    func evacuate(for group: GroupID, from home: any EventLoop, _ done: @escaping () -> Void) {
        all.ask(from: home) { loop, evacuated in
            loop.groups.evacuate(for: group) { evacuated(()) }
        } _: { _ in
            done()
        }
    }
}
