// Who may open what a node makes, and where its sockets are: modes, groups, and the forms of `admin` and `nbd`.

import ClusterConfiguration
import Foundation
import LogModel
import Testing

struct AccessTests {
    /// The example, with the named lines replaced.
    private func changed(_ replacements: (String, String)...) -> String {
        replacements.reduce(example) { $0.replacing($1.0, with: $1.1) }
    }

    private func coordinatorAccess(_ read: ClusterConfiguration) throws -> FileAccess {
        var found: FileAccess?
        if case .file(_, let access) = read.coordinator { found = access }
        return try #require(found)
    }

    @Test("O6: without a word nobody but the node's user may open anything") func ownerOnly() throws {
        let read = try parse(changed())
        #expect(try coordinatorAccess(read) == .ownerOnly && FileAccess.ownerOnly == FileAccess(mode: 0o600))
        #expect(
            read.nodes.allSatisfy { [$0.nbdAccess, $0.adminAccess, $0.pool.access].allSatisfy { $0 == .ownerOnly } })
        #expect(read.groups.flatMap(\.volumes).allSatisfy { $0.access == .ownerOnly })
        #expect(FileAccess.ownerOnly.folderMode == 0o700)
    }

    @Test("O6: modes are octal, groups are names or numbers, of everything that a node makes") func modesAndGroups()
        throws
    {
        let read = try parse(
            changed(
                ("path: run/coordinator}", "path: run/coordinator, mode: 0660, group: 31099}"),
                ("admin: run/alpha.sock", "admin: {path: run/alpha.sock, mode: 0o640, group: root}"),
                ("nbd: unix:run/beta.nbd", "nbd: {listen: ['unix:run/beta.nbd'], mode: 666}"),
                ("persistence: volatile,", "persistence: volatile, mode: 0640,"),
                ("size: 4096}", "size: 4096, group: 31099}")))
        let access = try coordinatorAccess(read)
        #expect(access == FileAccess(mode: 0o660, group: 31099))
        #expect(access.folderMode == 0o2770 && access.secret.mode == 0o660)
        let (alpha, beta) = (read.nodes[0], read.nodes[1])
        #expect(alpha.adminPath == "/base/run/alpha.sock" && alpha.adminAccess == FileAccess(mode: 0o640, group: 0))
        #expect(beta.nbd == "unix:/base/run/beta.nbd" && beta.nbdAccess == FileAccess(mode: 0o666))
        #expect(alpha.pool.access == FileAccess(mode: 0o640) && beta.pool.access == .ownerOnly)
        // A group is named so that it may do something.
        #expect(read.groups[0].volumes[1].access == FileAccess(mode: 0o660, group: 31099))
    }

    static let wrong: [Refusal] = [
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, mode: 0680}", line: 2, key: "coordinator.mode", "octal"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, mode: 60}", line: 2, key: "coordinator.mode", "octal"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, mode: 02660}", line: 2, key: "coordinator.mode", "octal"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, mode: -660}", line: 2, key: "coordinator.mode", "octal"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, mode: 0060}", line: 2, key: "coordinator.mode",
            "keeps the node"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, mode: 0770}", line: 2, key: "coordinator.mode", "run it"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, mode: 0666}", line: 2, key: "coordinator.mode",
            "every user"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, group: no-such-group}", line: 2, key: "coordinator.group",
            "there is no group 'no-such-group' on this machine"),
        Refusal(
            "path: run/coordinator}", "path: run/coordinator, group: 4294967295}", line: 2, key: "coordinator.group",
            "not a group's number"),
        Refusal(
            "admin: run/alpha.sock", "admin: {mode: 0660}", line: 10, key: "nodes.alpha.admin", "'path' is missing"),
        Refusal(
            "admin: run/alpha.sock", "admin: {path: a, owner: me}", line: 10, key: "nodes.alpha.admin.owner",
            "not a key"),
        Refusal(
            "nbd: 127.0.0.1:10809", "nbd: {listen: '127.0.0.1:10809', mode: 0660}", line: 9,
            key: "nodes.alpha.nbd.mode",
            "is of a Unix socket"),
        Refusal(
            "nbd: 127.0.0.1:10809", "nbd: {listen: ['unix:a', 'unix:b']}", line: 9, key: "nodes.alpha.nbd.listen",
            "more than one address is not supported"),
        Refusal("nbd: 127.0.0.1:10809", "nbd: {listen: []}", line: 9, key: "nodes.alpha.nbd.listen", "an address"),
        Refusal(
            "nbd: 127.0.0.1:10809", "nbd: {listen: 'unix:a', tls: require}", line: 9, key: "nodes.alpha.nbd",
            "'certificate' is missing"),
    ]

    @Test("O6: a mode or a group that cannot be meant is refused with its place", arguments: wrong)
    func refusals(_ refused: Refusal) throws {
        let error = try refusal(refused.old, refused.new)
        #expect(error.line == refused.line && error.key == refused.key, "\(error)")
        #expect(error.reason.contains(refused.reason), "\(error)")
    }

    private typealias Place = (key: String, text: @Sendable (String) -> (String, String))
    private static let sockets: [Place] = [
        ("nodes.alpha.admin", { ("admin: run/alpha.sock", "admin: \($0)") }),
        ("nodes.alpha.admin.path", { ("admin: run/alpha.sock", "admin: {path: \($0)}") }),
        ("nodes.alpha.nbd", { ("nbd: 127.0.0.1:10809", "nbd: unix:\($0)") }),
        ("nodes.alpha.nbd.listen", { ("nbd: 127.0.0.1:10809", "nbd: {listen: 'unix:\($0)'}") }),
        ("nodes.alpha.nbd.listen[0]", { ("nbd: 127.0.0.1:10809", "nbd: {listen: ['unix:\($0)']}") }),
    ]

    @Test(
        "a socket's path of 107 bytes is taken, one of 108 refused with the limit, whatever key it stands in",
        arguments: 0..<5)
    func lengths(_ index: Int) throws {
        let (key, text) = Self.sockets[index]
        let longest = "/" + String(repeating: "x", count: 106)
        let (old, new) = text(longest)
        let read = try parse(changed((old, new)))
        #expect([read.nodes[0].adminPath, read.nodes[0].nbd].contains { $0.hasSuffix(longest) })
        let (_, tooLong) = text(longest + "x")
        let error = try refusal(old, tooLong)
        #expect(error.key == key && error.reason.contains("107 bytes at most"), "\(error)")
        // Bytes, not letters; and what counts is the path from the root.
        let (_, wide) = text("/" + String(repeating: "é", count: 54))
        #expect(try refusal(old, wide).key == key)
        let (_, relative) = text(String(repeating: "x", count: 103))
        #expect(try refusal(old, relative).key == key)
    }

    @Test("names, IPv4, and IPv6 in brackets, of rails and of NBD") func addresses() throws {
        for (address, places) in [
            ("127.9.8.7:7301", ["127.9.8.7:7301"]), ("'[::1]:7301'", ["[::1]:7301"]),
            ("localhost:7301", ["127.0.0.1:7301", "[::1]:7301"]),
        ] {
            let read = try parse(
                changed(
                    ("[127.0.0.1:7102]", "[\(address)]"),
                    ("nbd: 127.0.0.1:10809", "nbd: \(address)".replacing("7301", with: "7302"))))
            #expect(ClusterConfiguration.places(of: read.nodes[1].mirror[0]) == places)
            #expect(read.nodes[0].nbd.hasSuffix(":7302"))
        }
        for (address, reason) in [
            ("'::1:7301'", "stands in brackets"), ("'[::1]'", "not HOST:PORT"), ("'[::2]:7301'", "not a loopback"),
            ("'[::1:7301'", "not a loopback"), ("localhost.example:7301", "not a loopback"),
            ("0x7f.1:7301", "not a loopback"),
        ] {
            let error = try refusal("[127.0.0.1:7102]", "[\(address)]")
            #expect(error.key == "nodes.beta.mirror[0]", "\(error)")
            #expect(error.reason.contains(reason) || error.reason.contains("not HOST:PORT"), "\(address): \(error)")
        }
    }

    @Test("what a machine says against a key is told with the key's line") func source() throws {
        let read = try parse(changed())
        #expect(
            read.source.problem("nodes.alpha.pool.size", "no").description
                == "cluster.yaml:11: nodes.alpha.pool.size: no")
        #expect(read.source.problem("groups.g0.volumes.vol1.size", "no").line == 27)
        // A key that stands nowhere belongs to its section.
        #expect(read.source.problem("nodes.beta.events", "no").line == 12)
        #expect(read.source.problem("limits.memory", "no").line == 0)
    }
}
