// Which member of etcd is asked, and as whom. The member that answered last is asked first; each has the time of one try. What is asked
// may be asked twice: transactions compare what they replace, so the second does no harm.

internal import Coordination
internal import Foundation

/// Why etcd gave no answer.
enum EtcdError: Error {
    /// No member was reached.
    case unreached(String)
    /// At least one member was asked and did not say what came of it: it may have been carried out, or may still be.
    case unanswered(String)
    /// Not carried out, and never will be.
    case refused(String)
}

/// Not thread-safe. Its calls block, up to two tries for each endpoint.
struct EtcdClient {
    private let settings: EtcdSettings
    private var current = 0
    private var connection: EtcdConnection?
    private var token: String?
    private var history = EtcdHistory()
    /// What is being asked may have reached a member that did not say what came of it: whatever another one answers, it may take effect.
    private var mayBeSent = false

    init(_ settings: EtcdSettings) { self.settings = settings }

    mutating func range(_ request: RangeRequest) throws(EtcdError) -> RangeAnswer {
        try ask("/v3/kv/range", request)
    }

    mutating func transact(_ request: TransactionRequest) throws(EtcdError) -> TransactionAnswer {
        try ask("/v3/kv/txn", request)
    }

    private mutating func ask<Answer: DatedAnswer>(
        _ path: String, _ request: some Encodable
    ) throws(EtcdError) -> Answer {
        let body = try Self.encoded(request)
        var problems: [String] = []
        mayBeSent = false
        for _ in settings.endpoints {
            do throws(EtcdError) {
                return try askCurrent(path, body)
            } catch {
                switch error {
                case .refused(let problem):
                    problems.append(problem)
                    throw mayBeSent ? .unanswered(problems.joined(separator: "; ")) : error
                case .unanswered(let problem):
                    mayBeSent = true
                    problems.append(problem)
                case .unreached(let problem): problems.append(problem)
                }
                leaveCurrent()
            }
        }
        let problem = problems.joined(separator: "; ")
        throw mayBeSent ? .unanswered(problem) : .unreached(problem)
    }

    private var endpoint: EtcdSettings.Endpoint { settings.endpoints[current] }

    private mutating func leaveCurrent() {
        connection?.close()
        connection = nil
        current = (current + 1) % settings.endpoints.count
    }

    private mutating func askCurrent<Answer: DatedAnswer>(
        _ path: String, _ body: Data
    ) throws(EtcdError) -> Answer {
        var answer = try postLoggedIn(body, to: path)
        if answer.status != 200, Self.isStaleToken(answer) {
            token = nil
            answer = try postLoggedIn(body, to: path)
        }
        guard answer.status == 200 else { throw refusal(answer) }
        let decoded: Answer = try decoded(answer)
        if let problem = history.problem(after: decoded.header) { throw .unanswered("\(endpoint): \(problem)") }
        return decoded
    }

    // MARK: Login

    private mutating func postLoggedIn(_ body: Data, to path: String) throws(EtcdError) -> HTTPAnswer {
        if token == nil, let login = settings.login { token = try logIn(login) }
        return try post(body, to: path)
    }

    private mutating func logIn(_ login: EtcdSettings.Login) throws(EtcdError) -> String {
        let password: String
        do throws(SecretError) {
            password = try login.password()
        } catch {
            throw .refused(error.message)
        }
        let request = try Self.encoded(LoginRequest(name: login.user, password: password))
        // Nothing was asked yet that could have come into effect.
        do throws(EtcdError) {
            let answer = try post(request, to: "/v3/auth/authenticate")
            guard answer.status == 200 else { throw refusal(answer) }
            let login: LoginAnswer = try decoded(answer)
            return login.token
        } catch {
            if case .unanswered(let problem) = error { throw .unreached(problem) }
            throw error
        }
    }

    /// Tokens end after some minutes, with a restart of the member, and with each change of users. Such a request was not carried out.
    private static func isStaleToken(_ answer: HTTPAnswer) -> Bool {
        guard let refusal = try? decoder.decode(Refusal.self, from: Data(answer.body)) else { return false }
        return refusal.code == unauthenticated || refusal.message.contains("revision of auth store is old")
    }

    // MARK: One request

    /// A connection that was kept may have ended meanwhile, before the member read anything or after: it is made anew, once.
    private mutating func post(_ body: Data, to path: String) throws(EtcdError) -> HTTPAnswer {
        if let kept = connection, kept.isOpen {
            do throws(ConnectionError) {
                return try post(body, to: path, over: kept)
            } catch {
                if case .noAnswer = error { throw .unanswered("\(endpoint): \(error)") }
                mayBeSent = true
            }
        }
        let fresh: EtcdConnection
        do throws(ConnectionError) {
            fresh = try EtcdConnection(to: endpoint, settings)
        } catch {
            let problem = "\(endpoint): \(error)"
            throw mayBeSent ? .unanswered(problem) : .unreached(problem)
        }
        connection = fresh
        do throws(ConnectionError) {
            return try post(body, to: path, over: fresh)
        } catch {
            throw .unanswered("\(endpoint): \(error)")
        }
    }

    private func post(
        _ body: Data, to path: String, over connection: EtcdConnection
    ) throws(ConnectionError) -> HTTPAnswer {
        try connection.post(body, to: path, token: token, withinMillis: settings.tryMillis)
    }

    // MARK: What is sent and what is believed

    private static let decoder: JSONDecoder = {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return decoder
    }()

    private static func encoded(_ request: some Encodable) throws(EtcdError) -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        do {
            return try encoder.encode(request)
        } catch {
            throw .refused("a request cannot be encoded: \(error)")
        }
    }

    private func decoded<Answer: Decodable>(_ answer: HTTPAnswer) throws(EtcdError) -> Answer {
        do {
            return try Self.decoder.decode(Answer.self, from: Data(answer.body))
        } catch {
            throw .unanswered("\(endpoint): this is no answer of etcd: \(error)")
        }
    }

    private static let unauthenticated = 16
    /// Invalid argument, not found, permission denied, resource exhausted, failed precondition, unimplemented, unauthenticated: codes of gRPC
    /// that mean that nothing was done. After all others it may have been.
    private static let definiteCodes: Set<Int> = [3, 5, 7, 8, 9, 12, unauthenticated]

    private func refusal(_ answer: HTTPAnswer) -> EtcdError {
        guard let refusal = try? Self.decoder.decode(Refusal.self, from: Data(answer.body)) else {
            return .unanswered("\(endpoint): HTTP status \(answer.status)")
        }
        let problem = "\(endpoint): \(refusal.message.prefix(200))"
        return Self.definiteCodes.contains(refusal.code) ? .refused(problem) : .unanswered(problem)
    }
}

/// What is known of etcd's past. Answers are linearizable and asked for one after another, so their revisions never fall: one that does comes
/// from an etcd that lost something, or is another one (S20).
struct EtcdHistory {
    private var cluster: UInt64?
    private var revision: Revision = 0

    /// Why an answer with this header is not believed; `nil`: it is.
    mutating func problem(after header: AnswerHeader) -> String? {
        if let cluster, cluster != header.clusterId.value {
            return "belongs to another etcd (cluster id \(header.clusterId.value), not \(cluster))"
        }
        guard header.revision.value >= revision else {
            return
                "this etcd is at revision \(header.revision.value) and was at \(revision) before: it lost something (S20); restart the node once that is settled"
        }
        cluster = header.clusterId.value
        revision = header.revision.value
        return nil
    }
}
