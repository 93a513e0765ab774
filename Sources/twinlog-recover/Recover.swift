// twinlog-recover: looks into pools that no process uses, and brings a surviving log to the medium when both servers
// are gone. Reads only, unless an option says otherwise.

import ArgumentParser
import HostProcess
import LogModel

@main
struct Recover: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlog-recover", abstract: "Look into a pool, and rescue what its logs hold.",
        discussion: "Pools are opened read-only unless an option says otherwise.\n" + ToolExit.table,
        version: TwinLogVersion.current,
        subcommands: [Inspect.self, Scan.self, Dump.self, ReplayCommand.self, Compare.self, HealCommand.self])

    static func main() { runAsProgram(otherwise: ToolExit.refused.rawValue, json: true) }
}
