import ClusterProtocol
import Foundation
import Testing

/// The page of events beside the kinds that a node can report.
struct EventKindTests {
    /// Told by `twinlog events` itself, of what a node did not tell.
    private static let ofTheTool: Set = ["events-missing"]

    @Test("docs/EVENTS.md has each kind once, with what an operator does")
    func page() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")
        let page = try String(contentsOf: root.appending(path: "docs/EVENTS.md"), encoding: .utf8)
        let rows = page.matches(of: /(?m)^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \|$/).map(\.output)
        let kinds = rows.map { String($0.1) }
        #expect(Set(kinds) == Set(EventKind.allCases.map(\.rawValue)).union(Self.ofTheTool))
        #expect(kinds.count == Set(kinds).count)
        #expect(rows.allSatisfy { $0.2.hasSuffix(".") && $0.3.hasSuffix(".") })
    }
}
