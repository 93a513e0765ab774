// Random faults of hosts under clients that write all the time: `MINUTES=10 SEED=1 make nemesis`. Without more a run is short.

import ClusterHarness
import Foundation
import HostHarness
import Testing

private let environment = ProcessInfo.processInfo.environment

/// Beside `Cluster`, whose tests may not take as long.
@Suite(
    .serialized, .timeLimit(.minutes(240)),
    .enabled(if: HostNetwork.obstacle == nil, "\(HostNetwork.obstacle ?? "")"))
struct NemesisTests {
    private let seed = environment["TWINLOG_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...UInt64(UInt32.max))
    private let seconds = environment["TWINLOG_NEMESIS_SECONDS"].flatMap { Int($0) } ?? 120
    private let faults = environment["TWINLOG_NEMESIS_FAULTS"].flatMap { Int($0) } ?? .max

    @Test(
        "S1, S13 to S18, S23: nothing that was acknowledged is lost, and owners take turns at the medium, whatever happens to hosts and their network"
    )
    func nothingIsLost() async throws {
        print("nemesis: TWINLOG_SEED=\(seed) TWINLOG_NEMESIS_SECONDS=\(seconds) repeats these choices")
        let hosts = try HostCluster(leaseMillis: 1000, logBytes: 4 << 20, rails: 2)
        try await hosts.start()
        var nemesis: Nemesis?
        do {
            let history = try await withHistory(hosts, seed: seed) { history in
                let run = Nemesis(hosts, history: history, seed: seed)
                nemesis = run
                try await run.run(for: .seconds(seconds), faults: faults)
                print("nemesis: seed \(seed): \(run.summary)")
                if environment["TWINLOG_TIMELINE"] != nil { print(run.timeline, hosts.cluster.logs(), separator: "\n") }
                #expect(run.faults > 0)
            }
            try await verify(history, hosts)
        } catch {
            Issue.record("seed \(seed): \(error)\n\(nemesis?.timeline ?? "")\n\(hosts.logs())")
            print("nemesis: whole logs are in \(try keep(hosts, nemesis))")
        }
    }

    /// Whole logs and the timeline of a run that failed.
    private func keep(_ hosts: HostCluster, _ nemesis: Nemesis?) throws -> String {
        let folder = NSTemporaryDirectory() + "twinlog-nemesis-\(seed)"
        try hosts.keepLogs(in: folder)
        try (nemesis?.timeline ?? "").write(toFile: folder + "/timeline", atomically: true, encoding: .utf8)
        return folder
    }
}
