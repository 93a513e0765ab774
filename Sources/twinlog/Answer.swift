// How a command answers: a sentence for people, or one JSON document for scripts. What failed is in the same document.

import AdminProtocol
import ArgumentParser
import HostProcess

struct AnswerOptions: ParsableArguments {
    @Flag(help: "Answer as JSON, errors too.") var json = false

    /// Prints `document`, or `text`; then ends the program if there is a failure.
    func show(_ document: some Encodable, _ text: String, failure: Failure? = nil) throws {
        guard json else {
            if !text.isEmpty { try StandardOutput.line(text) }
            if let failure { throw failure }
            return
        }
        let error = failure.map { ErrorReport($0) }
        try StandardOutput.line(try AdminCodec.pretty(Document(body: document, error: error)))
        if var failure {
            failure.isInAnswer = true
            throw failure
        }
    }
}

/// The keys of `body`, and `error` beside them if something failed.
private struct Document<Body: Encodable>: Encodable {
    var body: Body
    var error: ErrorReport?

    private enum CodingKeys: CodingKey { case error }

    func encode(to encoder: any Encoder) throws {
        try body.encode(to: encoder)
        guard let error else { return }
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(error, forKey: .error)
    }
}

/// What came of a command on a group.
struct GroupAnswer: Encodable {
    /// Stable words.
    enum Result: String, Encodable {
        case handedOver = "handed-over"
        case takenOver = "taken-over"
        case drained
        case decided
        /// Nothing was changed.
        case dryRun = "dry-run"
    }

    var group: String
    var node: String
    var result: Result
    /// What it cost, or would cost.
    var consequences: [String]?
}

/// What every command takes that destroys something.
struct DecisionOptions: ParsableArguments {
    @Flag(help: "Say what would be done and lost, change nothing.") var dryRun = false
    @Flag(help: "Do not ask.") var yes = false

    func confirm(_ rule: Confirmation.Rule, _ consequences: [String], _ answer: AnswerOptions) throws(Unconfirmed) {
        try Confirmation(program: "twinlog", rule, isGiven: yes, isQuiet: answer.json).ask(consequences)
    }
}
