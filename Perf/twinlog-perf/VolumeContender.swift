// Who takes part in `compare volume`, and with how many clients.

import LogModel

struct VolumeExport {
    var address: Endpoint
    var name: String
}

struct VolumeContender {
    static let volumeBytes: UInt64 = 256 << 20

    var name: String
    /// Of which connections take one after another.
    var exports: [VolumeExport]
    /// By their part.
    var processes: [String: Int32]
}

/// Connections, and requests under way on each of them.
struct VolumeShape {
    var connections: Int
    var depth: Int
    /// Half of the connections write to a group of one node and half to a group of the other, each the mirror of the other's.
    var bothWays = false

    // Several connections at depth 1 measure the scheduler.
    private static let standard = [
        VolumeShape(connections: 1, depth: 1), VolumeShape(connections: 1, depth: 32),
        VolumeShape(connections: 1, depth: 128), VolumeShape(connections: 1, depth: 512),
        VolumeShape(connections: 4, depth: 32), VolumeShape(connections: 16, depth: 32),
        VolumeShape(connections: 2, depth: 32, bothWays: true),
    ]

    /// Those that the options name: of the standard ones if they name depths or connections alone.
    static func chosen(_ options: CommonOptions) throws -> [VolumeShape] {
        let depths = try options.depths()
        let counts = try options.threadCounts()
        switch (options.givenDepths, options.threads) {
        case (nil, nil): return standard
        case (_, nil):
            return depths.flatMap { depth in some { $0.depth == depth } ?? [VolumeShape(connections: 1, depth: depth)] }
        case (nil, _):
            return counts.flatMap { count in
                some { $0.connections == count } ?? [VolumeShape(connections: count, depth: 32)]
            }
        default:
            return depths.flatMap { depth in
                counts.flatMap { count in
                    some { $0.depth == depth && $0.connections == count } ?? [
                        VolumeShape(connections: count, depth: depth)
                    ]
                }
            }
        }
    }

    /// `nil` if none is so.
    private static func some(_ isSo: (VolumeShape) -> Bool) -> [VolumeShape]? {
        let found = standard.filter(isSo)
        return found.isEmpty ? nil : found
    }
}
