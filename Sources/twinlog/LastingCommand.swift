// A command that lasts as long as what it waits for. It is asked on a thread of its own; meanwhile the group's status says what it
// waits for, and Ctrl-C leaves it.

import AdminProtocol
import ClusterConfiguration
import Dispatch
import Foundation
import HostProcess
import LogModel
import Synchronization

struct LastingCommand {
    /// Longer than a drain of the largest log on a slow disk that is worth to be waited for without a look.
    private static let limitMillis = 120_000
    /// How soon Ctrl-C is seen.
    private static let glanceMillis = 100
    /// On a terminal the line is replaced; elsewhere each stays, so there are fewer.
    private static let repeatSeconds = 10

    let configuration: ClusterConfiguration
    let group: ClusterConfiguration.Group
    let node: ClusterConfiguration.Node
    /// A script that wants one JSON document is not told anything beside it.
    let isQuiet: Bool
    let statusCommand: String

    init(
        on node: ClusterConfiguration.Node, of group: ClusterConfiguration.Group,
        _ configuration: ClusterConfiguration, _ global: GlobalOptions, _ answer: AnswerOptions
    ) {
        self.configuration = configuration
        self.group = group
        self.node = node
        isQuiet = answer.json
        statusCommand = global.command("status")
    }

    /// Returns when the node has done it. `next` helps if it refuses.
    func carryOut(_ request: AdminRequest, orElse next: String? = nil) throws {
        switch try wait(for: ask(request)) {
        case .success(.done): return
        case .success(.refused(let reason)):
            throw Failure(.refused, "\(node.id) refuses: \(reason)", next: next ?? statusCommand)
        case .success(.status), .success(.clients), .success(.events), .success(.configuration):
            throw Failure(.failed, "\(node.id) answered something else than was asked")
        case .failure(let error) where error.kind == .timeout:
            throw Failure(
                .timeout,
                "\(node.id) has not answered for \(Self.limitMillis / 1000) s; if it has the command, it goes on with it. \(situation)",
                next: statusCommand)
        case .failure(let error):
            throw Failure(error.code, "\(node.id): \(error). \(situation)", next: statusCommand)
        }
    }

    private func ask(_ request: AdminRequest) -> PendingAnswer {
        let pending = PendingAnswer()
        let path = node.adminPath
        Thread.detachNewThread {
            do throws(AdminClientError) {
                pending.end(.success(try AdminClient.ask(request, at: path, timeoutMillis: Self.limitMillis)))
            } catch {
                pending.end(.failure(error))
            }
        }
        return pending
    }

    private func wait(for pending: PendingAnswer) throws(Failure) -> Result<AdminResponse, AdminClientError> {
        Interruption.watch()
        let began = ContinuousClock.now
        var line = TransientLine()
        defer { line.clear() }
        var toldSeconds = 0
        while true {
            if let answer = pending.wait(millis: Self.glanceMillis) { return answer }
            guard !Interruption.hasCome else {
                throw Failure(
                    .interrupted, "\(node.id) goes on with it; `\(statusCommand)` says what becomes of it",
                    next: statusCommand)
            }
            let seconds = Int((ContinuousClock.now - began).components.seconds)
            guard seconds > toldSeconds else { continue }
            tell("waiting for \(node.id), \(seconds) s: \(situation)", &line, isFirst: toldSeconds == 0, seconds)
            toldSeconds = seconds
        }
    }

    private func tell(_ text: String, _ line: inout TransientLine, isFirst: Bool, _ seconds: Int) {
        if TransientLine.isShown {
            line.show(text)
        } else if !isQuiet, isFirst || seconds % Self.repeatSeconds == 0 {
            StandardError.line("twinlog: \(text)")
        }
    }

    /// What `status` says of the group now.
    private var situation: String { ClusterView(configuration).told(of: group).situation }
}

/// What a thread asks for and another one waits for.
private final class PendingAnswer: Sendable {
    private let answer = Mutex<Result<AdminResponse, AdminClientError>?>(nil)
    private let hasEnded = DispatchSemaphore(value: 0)

    func end(_ result: Result<AdminResponse, AdminClientError>) {
        answer.withLock { $0 = result }
        hasEnded.signal()
    }

    /// `nil`: not yet.
    func wait(millis: Int) -> Result<AdminResponse, AdminClientError>? {
        guard hasEnded.wait(timeout: .now() + .milliseconds(millis)) == .success else { return nil }
        return answer.withLock { $0 }
    }
}

extension AdminClientError {
    var code: ErrorCode { kind == .permissionDenied ? .permissionDenied : .noAnswer }
}

extension GroupStatus {
    /// Its state, and what it waits for.
    var situation: String {
        if let reason { return "\(name) is \(state): \(reason)" }
        return "\(name) is \(state)" + (log.usedBytes.map { "; \(Size.format($0)) of its log are in use" } ?? "")
    }
}
