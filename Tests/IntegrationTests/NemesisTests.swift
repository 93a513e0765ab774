// Random faults of hosts under clients that write all the time: `make nemesis MINUTES=10 SEED=1`. Without more a run is short.

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
    private let seconds = environment["TWINLOG_NEMESIS_SECONDS"].flatMap { Int($0) } ?? 60

    @Test(
        "S1, S13, S14, S16, S17, S18, S23: nothing that was acknowledged is lost, whatever happens to hosts and their network"
    )
    func nothingIsLost() async throws {
        print("nemesis: TWINLOG_SEED=\(seed) TWINLOG_NEMESIS_SECONDS=\(seconds) repeats these choices")
        let hosts = try HostCluster(leaseMillis: 1000, logBytes: 4 << 20, rails: 2)
        try await hosts.start()
        var nemesis: Nemesis?
        do {
            let history = try await withHistory(hosts.cluster, seed: seed) { history in
                let run = Nemesis(hosts, history: history, seed: seed)
                nemesis = run
                try await run.run(for: .seconds(seconds))
                print("nemesis: seed \(seed): \(run.summary)")
                if environment["TWINLOG_TIMELINE"] != nil { print(run.timeline, hosts.cluster.logs(), separator: "\n") }
                #expect(run.faults > 0)
            }
            try await verify(history, hosts.cluster)
            #expect(history.violations == [])
        } catch {
            Issue.record("seed \(seed): \(error)\n\(nemesis?.timeline ?? "")\n\(hosts.logs())")
        }
    }
}
