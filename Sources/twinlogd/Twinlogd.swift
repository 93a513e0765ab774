// twinlogd: runs one node in the foreground. Flags and wiring; the node is in StorageNode.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import Dispatch
import HostProcess
import LogModel
import Logging
import NBDServer
import NIOCore
import NIOPosix
import StorageNode

@main
struct Twinlogd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlogd", abstract: "Run one node of a TwinLog cluster in the foreground.",
        version: TwinLogVersion.current)

    @Option(help: "The cluster's configuration file.")
    var config: String
    @Option(help: "The name of this node in it.")
    var node: String
    @Option(help: "How long a stop may take before what is left stays in the log.")
    var stopTimeout: String = "30s"
    @Flag(help: "Log more.")
    var verbose = false

    static func main() { runAsProgram() }

    func validate() throws {
        guard Self.seconds(stopTimeout) != nil else {
            throw ValidationError("--stop-timeout: '\(stopTimeout)' is not a time, such as 30s")
        }
    }

    static func seconds(_ text: String) -> Int64? {
        if text.hasSuffix("ms") { return Int64(text.dropLast(2)).map { max(1, $0 / 1000) } }
        return Int64(text.hasSuffix("s") ? text.dropLast() : text[...])
    }

    func run() throws {
        LoggingSystem.bootstrap { StreamLogHandler.standardError(label: $0) }
        var logger = Logger(label: "twinlogd.\(node)")
        logger.logLevel = verbose ? .debug : .info
        do {
            try Daemon(
                configuration: ClusterConfiguration.load(path: config), node: NodeID(node), logger: logger,
                stopTimeout: .seconds(Self.seconds(stopTimeout) ?? 30)
            ).run()
        } catch let error as ConfigurationError {
            throw DaemonError(message: error.description, exitCode: ProgramExit.usage)
        }
    }
}
