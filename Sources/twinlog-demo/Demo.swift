// The demo: a cluster of two processes, real writes over NBD, the owner killed in the middle, and every acknowledged write
// verified at the end, through the survivor and on the medium. Exit code 0 only if nothing was lost.

import AdminProtocol
import ArgumentParser
import ClusterHarness
import Foundation
import HostProcess
import LogModel
import NBDClient
import NIOPosix
import Synchronization

/// By SIGINT, SIGTERM or SIGHUP.
private let isInterrupted = Atomic(false)

@main
enum DemoProgram {
    static func main() { Demo.runAsAsyncProgram() }
}

struct Demo: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlog-demo", abstract: "Show a takeover, and that nothing is lost.",
        discussion: ProgramExit.table(),
        version: TwinLogVersion.current)

    @Flag(help: "Only keep a cluster up until interrupted.") var keep = false
    @Option(help: "How long to write, in seconds; the owner is killed in the middle.") var seconds = 6.0
    @Option(help: "Connections.") var connections = 4
    @Option(help: "Writes at once on each.") var depth = 8
    @Option(help: "Seed of the random choices.") var seed: UInt64 = 1

    func run() async throws {
        let folder = NSTemporaryDirectory() + "twinlog-\(keep ? "run" : "demo")-\(getpid())"
        var options = LocalClusterOptions()
        options.logBytes = 64 << 20
        options.volumeBytes = 256 << 20
        if keep { options.nbdPorts = (10809, 10810) }
        let cluster = try LocalCluster(folder: folder, binaries: builtBinaries(), options: options)
        defer { cluster.remove() }
        for node in LocalCluster.nodes { try cluster.start(node) }
        try await cluster.waitUntilMirrored()
        if keep { try await keepUp(cluster) } else { try await show(cluster) }
    }

    private func keepUp(_ cluster: LocalCluster) async throws {
        try StandardOutput.line(
            """
            A cluster of two nodes is up, in \(cluster.folder)
              volume vol0 of 256 MiB     \(cluster.nbdURI(of: "alpha"))
              when beta owns it          \(cluster.nbdURI(of: "beta"))
              status                     \(builtBinaries())/twinlog --config \(cluster.configurationPath) status
              kill -9 the owner, start it again, hand over: see README.md
            Ctrl-C ends it.
            """)
        try StandardOutput.flush()
        // A Dispatch source would not hear of it: the main thread, which a signal comes to first, has left (dispatchMain).
        isInterrupted.store(false, ordering: .relaxed)
        for number in [SIGINT, SIGTERM, SIGHUP] {
            signal(number) { _ in isInterrupted.store(true, ordering: .relaxed) }
        }
        while !isInterrupted.load(ordering: .relaxed) { try await Task.sleep(for: .milliseconds(100)) }
        try StandardOutput.line("\nstopping")
        for node in LocalCluster.nodes { cluster.stop(node) }
    }

    private func show(_ cluster: LocalCluster) async throws {
        let screen = Screen()
        let status = cluster.state()
        try screen.line("two nodes are up, group g0 is \(status?.state ?? "?"), owned by \(status?.owner ?? "?")")
        if case .success(.status(let node)) = Result(catching: { try cluster.ask("alpha", .status) }) {
            try screen.line(
                "memory: \(node.persistence)\(node.persistence == "volatile" ? " (survives a crash of a process, not a loss of power)" : "")"
            )
        }
        let history = History(blockCount: 16384)
        let writers = (0..<connections).map { index in
            HistoryWriter(
                history: history, index: index, of: connections,
                addresses: LocalCluster.nodes.map { cluster.nbdAddress(of: $0) }, export: "vol0",
                on: MultiThreadedEventLoopGroup.singleton, depth: depth, seed: seed)
        }
        let running = Task {
            await withTaskGroup(of: Void.self) { tasks in for writer in writers { tasks.addTask { await writer.run() } }
            }
        }
        try await write(history, from: 0, to: 0.5, screen)
        let takeover = try await killOwner(cluster, history, screen)
        try await write(history, from: 0.5, to: 1, screen)
        for writer in writers { writer.stop() }
        await running.value
        try screen.endProgress()
        try await verify(cluster, history, takeover, screen)
    }

    private func write(_ history: History, from start: Double, to end: Double, _ screen: Screen) async throws {
        let began = Date()
        let length = seconds * (end - start)
        while true {
            let part = min(1, Date().timeIntervalSince(began) / length)
            try screen.progress(start + (end - start) * part, "\(history.acknowledgedWrites) writes acknowledged")
            if part >= 1 { return }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    private struct TakeoverTimes {
        var killed: String
        var survivor: String
        var published: Double
        var firstWrite: Double
    }

    private func killOwner(_ cluster: LocalCluster, _ history: History, _ screen: Screen) async throws -> TakeoverTimes
    {
        guard let owner = cluster.owner() else { throw HarnessError("nobody owns g0") }
        let survivor = owner == "alpha" ? "beta" : "alpha"
        let killed = Date()
        cluster.kill(owner)
        let before = history.acknowledgedWrites
        try screen.line("\(owner) is killed with SIGKILL after \(before) acknowledged writes")
        try await cluster.wait("taken over") { cluster.group(at: survivor)?.isOwner == true }
        let published = Date().timeIntervalSince(killed)
        // What the dead owner had answered is counted by now.
        let answered = history.acknowledgedWrites
        try await cluster.wait("accepting writes again") { history.acknowledgedWrites > answered }
        let first = Date().timeIntervalSince(killed)
        try screen.line(
            String(
                format: "%@ has taken over: published after %.2f s, writing again after %.2f s", survivor, published,
                first))
        try cluster.start(owner)
        try await cluster.waitUntilMirrored()
        try screen.line(
            String(format: "%@ is back and mirrors again after %.2f s", owner, Date().timeIntervalSince(killed)))
        return TakeoverTimes(killed: owner, survivor: survivor, published: published, firstWrite: first)
    }

    private func verify(_ cluster: LocalCluster, _ history: History, _ times: TakeoverTimes, _ screen: Screen)
        async throws
    {
        try await history.verify(
            through: cluster.nbdAddress(of: times.survivor), export: "vol0", on: MultiThreadedEventLoopGroup.singleton)
        try screen.line("every block read through \(times.survivor)")
        guard case .done = try cluster.ask(times.survivor, .drain(group: "g0"), timeoutMillis: 60_000) else {
            throw HarnessError("the log could not be drained")
        }
        try history.verify(medium: cluster.mediumPath())
        try screen.line("every block read from the medium after a drain")
        let events = Result { try cluster.ask(times.survivor, .events(after: 0, wait: false)) }
        if case .success(.events(let list)) = events {
            try screen.line("what \(times.survivor) says of it:")
            for event in list.suffix(8) { try screen.line("    \(event.time)  \(event.kind): \(event.message)") }
        }
        guard history.violations.isEmpty else {
            for violation in history.violations { try screen.line("LOST: \(violation)") }
            throw ExitCode(1)
        }
        try screen.line(
            String(
                format: "\nNothing lost: %d acknowledged writes, one SIGKILL of %@, %.2f s until %@ accepted writes.",
                history.acknowledgedWrites, times.killed, times.firstWrite, times.survivor))
    }
}

/// Lines, and on a terminal a progress bar below them.
final class Screen {
    private let isTerminal = StandardOutput.isTerminal
    private var hasBar = false
    private var lastTenth = -1

    func line(_ text: String) throws(OutputError) {
        try clearBar()
        try StandardOutput.line(text)
        try StandardOutput.flush()
    }

    func progress(_ part: Double, _ text: String) throws(OutputError) {
        guard isTerminal else {
            let tenth = Int(part * 10)
            if tenth > lastTenth {
                try StandardOutput.line("\(tenth * 10)% \(text)")
                try StandardOutput.flush()
            }
            lastTenth = max(lastTenth, tenth)
            return
        }
        let width = 40
        let filled = Int(part * Double(width))
        try StandardOutput.text(
            "\r[\(String(repeating: "#", count: filled))\(String(repeating: ".", count: width - filled))] \(Int(part * 100))% \(text)\u{1B}[K"
        )
        hasBar = true
    }

    func endProgress() throws(OutputError) {
        if hasBar { try StandardOutput.line("") }
        hasBar = false
    }

    private func clearBar() throws(OutputError) {
        if hasBar { try StandardOutput.text("\r\u{1B}[K") }
        hasBar = false
    }
}
