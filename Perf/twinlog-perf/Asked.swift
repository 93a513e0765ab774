// What the mission asks of a ratio or of processor time: the numbers that a result is held against.

enum Asked: Encodable {
    case atLeast(Double)
    case atMost(Double)

    func isMet(by value: Double) -> Bool {
        switch self {
        case .atLeast(let bound): value >= bound
        case .atMost(let bound): value <= bound
        }
    }

    var text: String {
        switch self {
        case .atLeast(let bound): "at least \(Self.figure(bound))"
        case .atMost(let bound): "at most \(Self.figure(bound))"
        }
    }

    private static func figure(_ value: Double) -> String {
        value == value.rounded() ? "\(Int(value))" : "\(value)"
    }

    private enum CodingKeys: String, CodingKey { case atLeast, atMost }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        switch self {
        case .atLeast(let bound): try container.encode(bound, forKey: .atLeast)
        case .atMost(let bound): try container.encode(bound, forKey: .atMost)
        }
    }

    /// Of a scenario's ratio by its name in the results; `nil` if nothing is asked of it.
    static func ratio(_ name: String, of scenario: String) -> Asked? {
        switch scenario {
        case "append": appends[name]
        case "mirror": name.isOfStream ? .atLeast(0.9) : mirrors[name]
        case "volume": volumes[name]
        // A time of at most 1.4 times the floor's.
        case "recover": name.hasPrefix("twinlog/floor ") ? .atLeast(0.714) : nil
        case "takeover": name.hasPrefix("twinlog/bound ") ? .atLeast(1) : nil
        default: nil
        }
    }

    /// What an operation may cost the parts of the server, in microseconds.
    static func processor(_ name: String, sizeBytes: Int, threads: Int, depth: Int) -> [String: Double]? {
        guard name == "twinlog write", sizeBytes == 4096, threads == 1 else { return nil }
        switch depth {
        case 1: return ["owner": 70, "mirror": 30]
        case 32: return ["owner": 11, "mirror": 3.5]
        default: return nil
        }
    }

    private static let appends: [String: Asked] = [
        "twinlog/floor 64 1x1": .atLeast(0.85),
        "twinlog/floor 512 1x1": .atLeast(0.85),
        "twinlog/floor 4KiB 1x1": .atLeast(0.85),
        // A time of at most 1.25 times the floor's.
        "twinlog/floor 64KiB 1x1": .atLeast(0.8),
        "twinlog/libpmemlog 64 1x1": .atLeast(2),
        "twinlog/libpmemlog 512 1x1": .atLeast(2),
        "twinlog/libpmemlog 4KiB 1x1": .atLeast(1.5),
        "twinlog/libpmemlog 64KiB 1x1": .atLeast(0.85),
        "twinlog/libpmemlog 64 2x1": .atLeast(3),
        "twinlog/libpmemlog 512 2x1": .atLeast(2),
        "twinlog/libpmemlog 4KiB 2x1": .atLeast(1.2),
        "twinlog 64 2 threads/1": .atLeast(1.15),
        "twinlog 512 2 threads/1": .atLeast(1.15),
        "twinlog msync 512 depth 32/depth 1": .atLeast(10),
    ]

    private static let volumes: [String: Asked] = [
        // A mean of at most twice nbdkit's is at least half of its rate.
        "twinlog write/nbdkit write 4KiB 1x1": .atLeast(0.5),
        "twinlog write/nbdkit write 4KiB 1x32": .atLeast(0.85),
        "twinlog write/nbdkit write 4KiB 4x32": .atLeast(0.9),
        // A mean of at most 1.15 times nbdkit's.
        "twinlog read/nbdkit read 4KiB 1x1": .atLeast(0.87),
        "twinlog read/nbdkit read 4KiB 1x32": .atLeast(1),
    ]

    private static let mirrors: [String: Asked] = [
        "twinlog/tcp p50 64 1x1": .atMost(1.35),
        "twinlog/tcp p50 4KiB 1x1": .atMost(1.35),
        "twinlog/tcp p50 64KiB 1x1": .atMost(1.35),
    ]
}

extension String {
    /// A mirrored append's rate beside the plain C stream's.
    fileprivate var isOfStream: Bool { hasPrefix("twinlog/stream ") && !contains(" p50 ") }
}
