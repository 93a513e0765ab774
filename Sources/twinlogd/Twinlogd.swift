// twinlogd: runs one node in the foreground. Flags and wiring; the node is in StorageNode.

import ArgumentParser
import ClusterConfiguration
import Glibc
import HostProcess
import LogModel
import Logging
import NIOCore
import NodeLog

@main
struct Twinlogd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlogd", abstract: "Run one node of a TwinLog cluster in the foreground.",
        discussion: ProgramExit.table(),
        version: TwinLogVersion.current)

    @Option(help: "The cluster's configuration file.")
    var config: String
    @Option(help: "The name of this node in it.")
    var node: String
    @Option(help: "How long a stop may take before what is left stays in the log.")
    var stopTimeout: String = "30s"
    @Option(help: "How the log is written: text or json; else as the configuration says.")
    var logFormat: String?
    @Flag(help: "Log more than the configuration says.")
    var verbose = false

    static func main() { runAsProgram() }

    func validate() throws {
        guard Self.seconds(stopTimeout) != nil else {
            throw ValidationError("--stop-timeout: '\(stopTimeout)' is not a time, such as 30s")
        }
        if let logFormat, !Self.formats.contains(logFormat) {
            throw ValidationError("--log-format: '\(logFormat)' is not one of \(Self.formats.joined(separator: ", "))")
        }
    }

    private static let formats = LogQueue.Format.allCases.map(\.rawValue)

    static func seconds(_ text: String) -> Int64? {
        if text.hasSuffix("ms") { return Int64(text.dropLast(2)).map { max(1, $0 / 1000) } }
        return Int64(text.hasSuffix("s") ? text.dropLast() : text[...])
    }

    func run() throws {
        let configuration = try load()
        let log = LogQueue(
            descriptor: STDERR_FILENO, format: format(configuration), level: verbose ? .debug : level(configuration))
        defer { log.flush(atMostMillis: 1000) }
        LoggingSystem.bootstrap { QueuedLogHandler(label: $0, queue: log) }
        try Daemon(
            configuration: configuration, node: NodeID(node), log: log, logger: Logger(label: "twinlogd.\(node)"),
            stopTimeout: .seconds(Self.seconds(stopTimeout) ?? 30), readLevel: { try level(load()) }
        ).run()
    }

    private func load() throws -> ClusterConfiguration {
        do {
            return try ClusterConfiguration.load(path: config)
        } catch {
            throw DaemonError(message: error.description, exitCode: ProgramExit.usage)
        }
    }

    private func format(_ configuration: ClusterConfiguration) -> LogQueue.Format {
        LogQueue.Format(rawValue: logFormat ?? configuration.log.format) ?? .text
    }

    private func level(_ configuration: ClusterConfiguration) -> Logger.Level {
        Logger.Level(rawValue: configuration.log.level) ?? .info
    }
}
