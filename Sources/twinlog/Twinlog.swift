// twinlog: what an operator sees and does.

import ArgumentParser
import HostProcess
import LogModel

@main
struct Twinlog: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "twinlog", abstract: "Watch and steer a TwinLog cluster.",
        discussion: ProgramExit.table(with: [
            (Status.takeoverImpossible, "status: a group could not be taken over right now")
        ]),
        version: TwinLogVersion.current,
        subcommands: [
            Status.self, Wait.self, Handover.self, Takeover.self, Drain.self, Events.self, CheckConfig.self,
            ForgetCoordinator.self, ConfirmDead.self, InitKeys.self, LogLevel.self,
        ])

    @OptionGroup var global: GlobalOptions

    static func main() { runAsProgram(json: true, arrange: arrange) }

    /// `--config FILE` may stand before the subcommand or after it.
    private static func arrange(_ arguments: [String]) -> [String] {
        guard let first = arguments.first else { return arguments }
        if first == "--config", arguments.count > 2 {
            return [arguments[2]] + arguments.dropFirst(3) + ["--config", arguments[1]]
        }
        if first.hasPrefix("--config="), arguments.count > 1 {
            return [arguments[1]] + arguments.dropFirst(2) + [first]
        }
        return arguments
    }
}
