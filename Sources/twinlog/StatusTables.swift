// How the cluster looks to a person: tables, and sentences below them. On a terminal nothing is wider than it is; elsewhere lines
// stay whole.

import AdminProtocol
import Foundation
import HostProcess
import LogModel

struct ClientTable {
    /// `nil`: as wide as it takes.
    var columns: Int?

    func render(_ nodes: [NodeClients]) -> String {
        nodes.map { lines($0).joined(separator: "\n") }.joined(separator: "\n\n")
    }

    private func lines(_ node: NodeClients) -> [String] {
        let totals = node.totals
        let refused = totals.refused > 0 ? ", \(totals.refused) refused since the start" : ""
        let title =
            "\(node.name): \(totals.connections) of \(totals.connectionLimit) clients\(refused); "
            + "\(Size.format(UInt64(totals.lentBytes))) of \(Size.format(UInt64(totals.lendableBytes))) lent"
        let rows = node.clients.map { client in
            [
                client.name.map { "\($0), \(client.address)" } ?? client.address, client.export ?? "-", client.since,
                String(client.inFlight),
                Size.format(UInt64(client.parkedBytes)), client.waitsFor ?? "-",
            ]
        }
        let header = ["CLIENT", "EXPORT", "SINCE", "IN FLIGHT", "PARKED", "WAITS FOR"]
        let layout = TableLayout(columns: columns)
        return layout.sentence(title) + (rows.isEmpty ? [] : layout.table([header] + rows))
    }
}

struct StatusTable {
    /// `nil`: as wide as it takes.
    var columns: Int?

    func render(_ status: ClusterStatus) -> String {
        let layout = TableLayout(columns: columns)
        let nodes =
            [["NODE", "REACHABLE", "MEMORY", "ROLE"]]
            + status.nodes.map { [$0.name, $0.reachable ? "yes" : "no", $0.persistence, $0.role] }
        let groups =
            [["GROUP", "STATE", "OWNER", "EPOCH", "LOG USED", "IF THE OWNER DIED NOW"]]
            + status.groups.map { group in
                [
                    group.name, group.state, group.owner ?? "-", group.epoch.map(String.init) ?? "-",
                    "\(group.log.usedBytes.map(Size.format) ?? "unknown") of \(Size.format(group.log.capacityBytes))",
                    fate(group),
                ]
            }
        let sentences = [
            status.nodes.compactMap { node in node.clients.flatMap { fullness(node.name, $0) } },
            status.nodes.compactMap { node in node.reason.map { "\(node.name): \($0)" } },
            status.groups.compactMap { group in group.reason.map { "\(group.name): \($0)" } },
        ]
        let parts =
            [layout.sentence("cluster \(status.cluster)"), layout.table(nodes), layout.table(groups)]
            + [rails(status.groups).map(layout.table) ?? []]
            + sentences.map { $0.flatMap(layout.sentence) }
        return parts.filter { !$0.isEmpty }.map { $0.joined(separator: "\n") }.joined(separator: "\n\n")
    }

    /// `nil` where nobody told of any.
    private func rails(_ groups: [GroupStatus]) -> [[String]]? {
        let rows = groups.flatMap { group in
            (group.rails ?? []).map { rail in
                [
                    group.name, rail.address, rail.state, rail.since, Size.format(rail.bytesInFlight),
                    rail.roundTripSeconds.map { String(format: "%.1f ms", $0 * 1000) } ?? "-",
                    rail.tls.map { $0 ? "yes" : "no" } ?? "-", rail.lastError ?? "-",
                ]
            }
        }
        guard !rows.isEmpty else { return nil }
        return [["GROUP", "RAIL", "STATE", "SINCE", "IN FLIGHT", "ROUND TRIP", "TLS", "LAST ERROR"]] + rows
    }

    /// A word where clients find no place.
    private func fullness(_ node: String, _ clients: ClientTotals) -> String? {
        guard clients.connections >= clients.connectionLimit else { return nil }
        return "\(node): all \(clients.connectionLimit) places for clients are taken, \(clients.refused) were refused"
    }

    private func fate(_ group: GroupStatus) -> String {
        guard group.takeoverPossible, let seconds = group.ifOwnerDiedNow.estimatedTakeoverSeconds else {
            guard let lost = group.ifOwnerDiedNow.lostAcknowledgedWrites, lost > 0 else { return "no takeover" }
            return "no takeover, \(lost) acknowledged writes only there"
        }
        return String(format: "nothing lost, takeover in %.1f s", seconds)
    }
}

/// Lines of at most `columns` characters, however long what they say.
struct TableLayout {
    var columns: Int?
    private static let gap = "  "
    /// The last column is wrapped below itself, unless that would leave less than this for it.
    private static let leastLastColumn = 12

    func sentence(_ text: String) -> [String] { fit(text, indent: 2) }

    func table(_ rows: [[String]]) -> [String] {
        let count = rows.map(\.count).max() ?? 0
        let widths = (0..<count).map { column in rows.map { $0[column].count }.max() ?? 0 }
        let lastColumn = widths.dropLast().reduce(0) { $0 + $1 + Self.gap.count }
        let indent = columns.map { $0 - lastColumn >= Self.leastLastColumn ? lastColumn : 2 } ?? 2
        return rows.flatMap { row in
            let line = zip(row, widths).map { $0.padding(toLength: $1, withPad: " ", startingAt: 0) }
                .joined(separator: Self.gap).trimmingCharacters(in: .whitespaces)
            return fit(line, indent: indent)
        }
    }

    private func fit(_ line: String, indent: Int) -> [String] {
        columns.map { Terminal.wrap(line, columns: $0, indent: indent) } ?? [line]
    }
}
