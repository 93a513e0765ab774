// wait: for scripts, until a group is as they need it.

import AdminProtocol
import ArgumentParser
import ClusterConfiguration
import Foundation
import HostProcess
import LogModel

struct Wait: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Wait until a group is mirrored, has a certain owner, or is drained.",
        discussion: """
            Exit code 0 as soon as it is so, 1 with the reason if it is not when the time is over. `drained`: what was in the log \
            when the command began is on the medium.
            """)

    private static let pauseMillis = 200

    @OptionGroup var global: GlobalOptions
    @OptionGroup var answer: AnswerOptions
    @Argument(help: "The group.") var group: String
    @Option(
        name: .customLong("for"),
        help: ArgumentHelp("What to wait for.", valueName: "mirrored|owner=NODE|drained"))
    var condition: WaitCondition
    @Option(help: "How long, such as 500ms or 30s.") var timeout = WaitLimit(millis: 30_000)

    func run() throws {
        let configuration = try global.load()
        let target = try configuration.checked(group: group)
        if case .owner(let name) = condition { _ = try configuration.checked(node: name, of: target) }
        let began = ContinuousClock.now
        let deadline = began + .milliseconds(timeout.millis)
        Interruption.watch()
        var mark = DrainMark()
        var line = TransientLine()
        while true {
            let view = ClusterView(configuration)
            let told = view.told(of: target)
            let holds = condition.holds(view.ownersWord(on: target), &mark)
            let now = ContinuousClock.now
            guard !holds, now < deadline else {
                line.clear()
                return try finish(told, holds: holds, after: now - began)
            }
            guard !Interruption.hasCome else {
                line.clear()
                throw Failure(.interrupted, "left before \(condition.outcome(of: group))")
            }
            line.show("waiting until \(condition.outcome(of: group)): \(told.situation)")
            Thread.sleep(forTimeInterval: min(.milliseconds(Self.pauseMillis), deadline - now) / .seconds(1))
        }
    }

    private func finish(_ told: GroupStatus, holds: Bool, after time: Duration) throws {
        let document = WaitAnswer(
            group: group, condition: condition.text, holds: holds, owner: told.owner, state: told.state,
            reason: told.reason, seconds: time / .seconds(1))
        let failure = Failure(
            .timeout,
            "not so after \(timeout.text): \(condition.outcome(of: group)); \(told.situation)",
            next: global.command("status"))
        try answer.show(
            document, holds ? condition.outcome(of: group) : "", failure: holds ? nil : failure)
    }
}

enum WaitCondition: ExpressibleByArgument {
    case mirrored
    case owner(String)
    case drained

    init?(argument: String) {
        let ownerPrefix = "owner="
        switch argument {
        case "mirrored": self = .mirrored
        case "drained": self = .drained
        case _ where argument.hasPrefix(ownerPrefix) && argument != ownerPrefix:
            self = .owner(String(argument.dropFirst(ownerPrefix.count)))
        default: return nil
        }
    }

    var text: String {
        switch self {
        case .mirrored: "mirrored"
        case .owner(let node): "owner=\(node)"
        case .drained: "drained"
        }
    }

    func outcome(of group: String) -> String {
        switch self {
        case .mirrored: "\(group) is mirrored"
        case .owner(let node): "\(node) owns \(group)"
        case .drained: "\(group) is drained"
        }
    }

    /// By the owner's word: what others say of the group is older.
    func holds(_ owner: GroupStatus?, _ mark: inout DrainMark) -> Bool {
        guard let owner else { return false }
        return switch self {
        case .mirrored: owner.state == "mirrored"
        case .owner(let node): owner.owner == node && owner.state != "handing-over"
        case .drained: mark.isReached(by: owner)
        }
    }
}

/// The end of the log when it was first seen.
struct DrainMark {
    private var mark: (epoch: UInt64?, tailLSN: UInt64)?

    /// Another owner's log may end elsewhere: it is looked at anew.
    mutating func isReached(by owner: GroupStatus) -> Bool {
        guard let headLSN = owner.log.headLSN, let ownersTail = owner.log.tailLSN else { return false }
        let tailLSN = mark.flatMap { $0.epoch == owner.epoch ? $0.tailLSN : nil } ?? ownersTail
        mark = (owner.epoch, tailLSN)
        return headLSN >= tailLSN
    }
}

struct WaitLimit: ExpressibleByArgument, CustomStringConvertible {
    var millis: UInt64
    var text: String

    init(millis: UInt64) {
        self.millis = millis
        text = millis % 1000 == 0 ? "\(millis / 1000)s" : "\(millis)ms"
    }

    init?(argument: String) {
        guard let millis = TimeSpan.parseMillis(argument) else { return nil }
        self.init(millis: millis)
    }

    var description: String { text }
}

private struct WaitAnswer: Encodable {
    var group: String
    var condition: String
    var holds: Bool
    var owner: String?
    var state: String
    var reason: String?
    var seconds: Double

    private enum CodingKeys: String, CodingKey {
        case group
        case condition = "for"
        case holds, owner, state, reason, seconds
    }

    /// Every key is always there, `null` if there is nothing.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(group, forKey: .group)
        try container.encode(condition, forKey: .condition)
        try container.encode(holds, forKey: .holds)
        try container.encode(owner, forKey: .owner)
        try container.encode(state, forKey: .state)
        try container.encode(reason, forKey: .reason)
        try container.encode(seconds, forKey: .seconds)
    }
}
