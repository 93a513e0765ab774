// events: what happened on the nodes, in each one's order.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import HostProcess
import LogModel

struct Events: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show what happened on the nodes.")
    @OptionGroup var global: GlobalOptions
    @Flag(help: "Go on with what happens, until interrupted.") var follow = false
    @Flag(help: "One JSON object a line.") var json = false

    func run() throws {
        let configuration = try global.load()
        var cursors: [NodeID: EventCursor] = [:]
        var asked = Answers()
        var answered = false
        repeat {
            var fresh: [[NodeEvent]] = []
            for node in configuration.nodes {
                let (new, failure) = cursors[node.id, default: EventCursor()].collect {
                    after throws(AdminClientError) in
                    try events(of: node, after: after)
                }
                fresh.append(new)
                asked.failures[node.id] = failure
                if failure == nil { answered = true }
            }
            for event in EventOrder.merge(fresh) { try show(event) }
            try StandardOutput.flush()
            if follow { try StandardOutput.wait(millis: 300) }
        } while follow
        if !answered { throw asked.nobody }
        asked.sayWhoIsSilent()
    }

    private func events(
        of node: ClusterConfiguration.Node, after: UInt64
    ) throws(AdminClientError) -> [NodeEvent] {
        let answer = try AdminClient.ask(
            .events(after: after, wait: false), at: node.adminPath, timeoutMillis: statusTimeoutMillis)
        guard case .events(let events) = answer else {
            throw AdminClientError(message: "\(node.adminPath): answered something else than events")
        }
        return events
    }

    private func show(_ event: NodeEvent) throws {
        if json {
            try StandardOutput.line(String(decoding: try AdminCodec.line(event).dropLast(), as: UTF8.self))
        } else {
            try StandardOutput.line(
                "\(event.time)  \(event.node)  \(event.group ?? "-")  \(event.kind): \(event.message)")
        }
    }
}
