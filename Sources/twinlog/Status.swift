// status: the cluster at a glance, once or again and again; and who uses it.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import HostProcess

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show the cluster, as all of its nodes tell it.")
    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @Flag(help: "Again and again, until interrupted.") var watch = false
    @Flag(help: "Who uses the volumes, and what that costs.") var clients = false

    static let takeoverImpossible: Int32 = 3

    func run() throws {
        let configuration = try global.load()
        if clients { return try showClients(of: configuration) }
        if watch { try follow(configuration) }
        let view = ClusterView(configuration)
        let status = view.status
        try answer.show(status, text(of: status), failure: view.silence)
        if !status.isTakeoverPossibleEverywhere { throw ExitCode(Self.takeoverImpossible) }
    }

    private func follow(_ configuration: ClusterConfiguration) throws -> Never {
        while true {
            let status = ClusterView(configuration).status
            if StandardOutput.isTerminal { try StandardOutput.text("\u{1B}[2J\u{1B}[H") }
            try answer.show(status, text(of: status))
            if !answer.json, !StandardOutput.isTerminal { try StandardOutput.line() }
            try StandardOutput.flush()
            try StandardOutput.wait(millis: 1000)
        }
    }

    private func text(of status: ClusterStatus) -> String {
        StatusTable(columns: StandardOutput.columns).render(status)
    }
}

extension Status {
    func validate() throws {
        guard !(clients && watch) else { throw ValidationError("--clients and --watch are not possible together") }
    }

    private func showClients(of configuration: ClusterConfiguration) throws {
        let asked = askAll(.clients, of: configuration)
        let nodes = asked.responses.compactMap { response -> NodeClients? in
            guard case .clients(let clients) = response else { return nil }
            return clients
        }.sorted { $0.name < $1.name }
        guard !nodes.isEmpty else { throw asked.nobody }
        try answer.show(["nodes": nodes], ClientTable(columns: StandardOutput.columns).render(nodes))
        asked.sayWhoIsSilent()
    }
}
