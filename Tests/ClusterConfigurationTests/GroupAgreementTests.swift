// What two nodes with different files can share of a group: the rest of what both know, or nothing (S27).

import ClusterConfiguration
import LogModel
import Testing

struct GroupAgreementTests {
    private static let base = """
        cluster: demo
        coordinator: {type: file, path: c}
        nodes:
          alpha: {mirror: [127.0.0.1:7101], nbd: unix:a.nbd, admin: a.sock, pool: {path: a.pool, size: 256MiB}}
          beta: {mirror: [127.0.0.1:7102], nbd: unix:b.nbd, admin: b.sock, pool: {path: b.pool, size: 256MiB}}
        groups:
          g0: {home: alpha, mirror: beta, log: 16MiB, volumes: {vol0: {medium: v0, size: 64MiB}}}
          g0.x: {home: beta, mirror: alpha, log: 16MiB, volumes: {vol1: {medium: v1, size: 64MiB}}}
        """

    private func agreement(
        on group: String = "g0", _ changes: (old: String, new: String)...
    ) throws -> GroupAgreement {
        var text = Self.base
        for (old, new) in changes {
            try #require(text.contains(old))
            text = text.replacing(old, with: new)
        }
        let (mine, theirs) = (try parse(Self.base).sharedEntries, try parse(text).sharedEntries)
        let there = ClusterConfiguration.agreement(on: GroupID(group), mine, theirs)
        #expect(there == ClusterConfiguration.agreement(on: GroupID(group), theirs, mine), "whoever asks")
        return there
    }

    @Test func ofTwoEqualFilesAllIsShared() throws {
        #expect(try agreement() == .whole)
    }

    @Test("of volumes that only one node has nothing is shared, of larger ones the smaller size")
    func volumesAndSizes() throws {
        let added = (old: "v0, size: 64MiB}", new: "v0, size: 64MiB}, vol.2: {medium: v2, size: 1MiB}")
        #expect(try agreement(added) == .part(["vol0": 64 << 20, "vol.2": 0]))
        let grown = (old: "v0, size: 64MiB}", new: "v0, size: 96MiB}")
        #expect(try agreement(grown) == .part(["vol0": 64 << 20]))
    }

    @Test("what concerns another group alone keeps nobody from mirroring this one")
    func otherGroups() throws {
        let other = (old: "v1, size: 64MiB}", new: "elsewhere, size: 64MiB}")
        #expect(try agreement(on: "g0.x", other) == .none)
        // A group whose name begins with this one's and a dot is not told from it, and so must be equal too.
        #expect(try agreement(other) == .none)
        let first = (old: "v0, size: 64MiB}", new: "elsewhere, size: 64MiB}")
        #expect(try agreement(on: "g0.x", first) == .whole)
        #expect(try agreement(first) == .none)
    }

    @Test(
        "S27: a group of another kind, or a cluster of another, is not shared",
        arguments: [
            ("cluster: demo", "cluster: other"), ("g0: {home: alpha, mirror: beta", "g0: {home: beta, mirror: alpha"),
            ("mirror: beta, log: 16MiB", "mirror: beta, log: 32MiB"),
            ("v0, size: 64MiB}", "v9, size: 64MiB}"), ("v0, size: 64MiB}", "v0, size: 64MiB, read-only: true}"),
            ("coordinator: {type: file, path: c}", "coordinator: {type: file, path: c}\nlease: 9s"),
            ("log: 16MiB, volumes: {vol0", "log: 16MiB, on-mirror-loss: stall, volumes: {vol0"),
        ])
    func whatMustBeEqual(_ old: String, _ new: String) throws {
        #expect(try agreement((old: old, new: new)) == .none)
    }

    @Test("S21: entries that are none of this version's share nothing")
    func garbage() throws {
        let mine = try parse(Self.base).sharedEntries
        typealias Entry = ClusterConfiguration.SharedEntry
        func with(_ entry: Entry) -> GroupAgreement {
            ClusterConfiguration.agreement(on: GroupID("g0"), mine, mine.filter { $0.key != entry.key } + [entry])
        }
        #expect(with(Entry(key: "groups.g0.volumes.vol0.size", value: "much")) == .none)
        #expect(with(Entry(key: "groups.g0.volumes.vol0.later", value: "1")) == .none)
        #expect(with(Entry(key: "groups.g0.later", value: "1")) == .none)
        #expect(with(Entry(key: "groups.g0.volumes.", value: "")) == .none)
        #expect(with(Entry(key: "groups.g0.volumes.vol0.size", value: "18446744073709551616")) == .none)
        #expect(ClusterConfiguration.agreement(on: GroupID("g0"), mine, []) == .none)
        #expect(ClusterConfiguration.agreement(on: GroupID("g9"), mine, mine) == .none, "a group that neither has")
    }
}
