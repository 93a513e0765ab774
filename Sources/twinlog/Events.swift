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
                do throws(AdminClientError) {
                    fresh.append(try new(of: node, &cursors[node.id, default: EventCursor()]))
                    answered = true
                } catch {
                    asked.failures[node.id] = error
                }
            }
            for event in EventOrder.merge(fresh) { try show(event) }
            try StandardOutput.flush()
            if follow { try StandardOutput.wait(millis: 300) }
        } while follow
        if !answered { throw asked.nobody }
    }

    private func new(
        of node: ClusterConfiguration.Node, _ cursor: inout EventCursor
    ) throws(AdminClientError) -> [NodeEvent] {
        var all: [NodeEvent] = []
        while true {
            let answer = try AdminClient.ask(
                .events(after: cursor.after, wait: false), at: node.adminPath, timeoutMillis: statusTimeoutMillis)
            guard case .events(let events) = answer else {
                throw AdminClientError(message: "\(node.adminPath): answered something else than events")
            }
            let fresh = cursor.take(events)
            if fresh.isEmpty { return all }
            all += fresh
        }
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
