// How a node's sign of life is written down: JSON, with room after it where a coordinator writes in place.

internal import Foundation
package import LogModel

extension Presence {
    /// A process, and a sentence for each of 32 groups.
    package static let maximumBytes = 16 << 10

    package func encoded() throws(CoordinationError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let bytes: [UInt8]
        do {
            bytes = Array(try encoder.encode(self))
        } catch {
            throw CoordinationError(.invalidRecord, "the presence of \(process.node) cannot be encoded: \(error)")
        }
        guard bytes.count <= Self.maximumBytes else {
            throw CoordinationError(.invalidRecord, "the presence of \(process.node) has \(bytes.count) bytes")
        }
        return bytes
    }

    /// Throws `invalidRecord`, with `place` as the presence's name.
    package init(encoded bytes: [UInt8], of node: NodeID, place: String) throws(CoordinationError) {
        guard bytes.count <= Self.maximumBytes else {
            throw CoordinationError(.invalidRecord, "\(place): a presence of \(bytes.count) bytes")
        }
        let presence: Presence
        do {
            presence = try JSONDecoder().decode(Presence.self, from: Data(bytes))
        } catch {
            throw CoordinationError(.invalidRecord, "\(place): is not a presence: \(error)")
        }
        guard presence.process.node == node else {
            throw CoordinationError(.invalidRecord, "\(place): is the presence of '\(presence.process.node)'")
        }
        self = presence
    }
}
