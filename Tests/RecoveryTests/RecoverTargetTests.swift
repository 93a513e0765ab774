// What `replay` must not write to, whatever it is called on the command line.

import Foundation
import LogModel
import PersistentMemory
import TestSupport
import Testing

struct RecoverTargetTests {
    private func fixture(volumes: [String] = ["vol0"]) throws -> Fixture {
        let fixture = try Fixture(volumes: volumes)
        try fixture.fillRandomly(seed: 11, count: 40)
        fixture.pool.close()
        return fixture
    }

    private func replay(_ fixture: Fixture, onto path: String) throws -> ToolRun {
        try recover("replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(path)")
    }

    @Test("O19: a replay refuses a pool as its target, its own and another's, by what it is", arguments: [false, true])
    func pools(own: Bool) throws {
        let fixture = try fixture()
        let other = fixture.folder.file("beta.pool")
        try Pool.create(
            path: other, sizeBytes: Fixture.mediumBytes,
            identity: PoolIdentity(uuid: .random(), cluster: "demo", node: NodeID("beta")), persistence: .volatile
        ).close()
        let target = own ? fixture.poolPath : other
        let before = try data(of: target)
        let run = try replay(fixture, onto: target)
        #expect(run.code == 6 && run.errors.contains("is a pool, not a medium"), "\(run)")
        #expect(try data(of: target) == before)
    }

    @Test("O8, O19: two volumes on one file are refused, by whatever names it goes")
    func oneFile() throws {
        let fixture = try fixture(volumes: ["vol0", "vol1"])
        let names = [
            "hard.img", "soft.img", "../\(URL(fileURLWithPath: fixture.folder.path).lastPathComponent)/vol0.img",
        ]
        try FileManager.default.linkItem(atPath: fixture.mediumPath(), toPath: fixture.folder.file(names[0]))
        try FileManager.default.createSymbolicLink(
            atPath: fixture.folder.file(names[1]), withDestinationPath: fixture.mediumPath())
        for name in names {
            let run = try recover(
                "replay", fixture.poolPath, "--group", "g0", "--volume", "vol0=\(fixture.mediumPath())", "--volume",
                "vol1=\(fixture.folder.file(name))")
            #expect(run.code == 2 && run.errors.contains("is the same file"), "\(name): \(run)")
        }
        try fixture.mediaAreUntouched()
    }
}
