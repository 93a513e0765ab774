// twinlog-perf: measures one thing at a time, and beside each the least that it could cost: its floor.

import ArgumentParser
import HostProcess
import LogModel

@main
struct Perf: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlog-perf", abstract: "Measure TwinLog beside its floors, in one run.",
        discussion: ProgramExit.table(),
        version: TwinLogVersion.current,
        subcommands: [
            AppendCommand.self, MirrorCommand.self, VolumeCommand.self, RecoverCommand.self, TakeoverCommand.self,
            FloorCommand.self, CompareCommand.self, MirrorPartnerCommand.self, EngineCommand.self,
        ])

    static func main() { runAsProgram() }
}
