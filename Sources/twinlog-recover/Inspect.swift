// inspect: what a pool says of itself, without reading its logs.

import ArgumentParser
import HostProcess
import LogModel
import PersistentMemory

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show whose pool it is and which logs it holds, without reading them.")
    @OptionGroup var options: PoolOptions

    func run() throws {
        let report = Report(try LogFile.open(options.pool))
        if options.json { try printJSON(report) } else { try StandardOutput.line(report.text) }
    }

    struct Report: Encodable {
        var path: String
        var uuid: String
        var cluster: String
        var node: String
        var sizeBytes: UInt64
        var persistence: String
        var groups: [Log]
        /// Seconds since 1970, of an archive.
        var archivedAt: Nullable<UInt64>
        private let title: String

        private enum CodingKeys: CodingKey {
            case path, uuid, cluster, node, sizeBytes, persistence, groups, archivedAt
        }

        init(_ file: LogFile) {
            path = file.path
            uuid = file.identity.uuid.description
            cluster = file.identity.cluster
            node = file.identity.node.rawValue
            sizeBytes = file.sizeBytes
            persistence = file.persistence.rawValue
            groups = file.regions.map(Log.init)
            archivedAt = Nullable(file.archive?.archivedAt)
            title = file.title
        }

        var text: String {
            (["\(title), pool \(uuid), \(Size.format(sizeBytes)), \(persistence) memory"]
                + (groups.isEmpty ? ["  no logs"] : groups.map(\.text))).joined(separator: "\n")
        }
    }

    struct Log: Encodable {
        var name: String
        var role: String
        var epoch: UInt64
        var logUUID: Nullable<String>
        var startLSN: UInt64
        var headLSN: UInt64
        var acknowledgedLSN: UInt64
        var replayed: Bool
        /// Which start of a node with this pool it is (S20).
        var generation: UInt64
        var ringOffset: UInt64
        var ringBytes: UInt64

        init(_ region: Region) {
            let identity = region.identity
            name = region.group.rawValue
            role = (identity?.role ?? .empty).name
            epoch = identity?.incarnation.rawValue ?? 0
            logUUID = Nullable(identity?.logUUID.description)
            startLSN = identity?.startLSN.rawValue ?? 0
            headLSN = region.head.rawValue
            acknowledgedLSN = region.acknowledged.rawValue
            replayed = identity?.isReplayed ?? false
            generation = region.standing.generation
            ringOffset = region.ringOffset
            ringBytes = region.ringBytes
        }

        var text: String {
            guard role != RegionRole.empty.name else {
                return
                    "  \(name): no log (`twinlog-recover scan` tells whether there was one), \(Size.format(ringBytes)) at offset "
                    + "\(ringOffset)"
            }
            return """
                  \(name): \(role)'s log \(logUUID.value ?? ""), epoch \(epoch) from LSN \(startLSN)\(replayed ? ", replayed by this tool" : "")
                    head \(headLSN), acknowledged at least \(acknowledgedLSN), start \(generation) of the pool, \(Size.format(ringBytes)) at offset \(ringOffset)
                """
        }
    }
}

extension RegionRole {
    var name: String {
        switch self {
        case .empty: "empty"
        case .owner: "owner"
        case .mirror: "mirror"
        }
    }
}
