// What every transport of the verbs must do: the rules of RemoteMemory/Verbs.swift as cases that a transport's tests run, each over a
// fresh pair of queue pairs. A case throws a `Deviation` that says what the transport did.

internal import RemoteMemory

/// What a transport did that the contract forbids, or did not do.
package struct Deviation: Error, CustomStringConvertible {
    package var description: String
}

package struct VerbsCase: Sendable, CustomStringConvertible {
    package let description: String
    private let body: @Sendable (any RailRig) async throws -> Void

    init(_ rule: String, _ body: @escaping @Sendable (any RailRig) async throws -> Void) {
        description = rule
        self.body = body
    }

    /// Throws what the transport did wrong.
    package func run(on rig: any RailRig) async throws {
        try await body(rig)
        try await rig.on { ends in
            let deviations = ends.recorder.deviations + ends.targetRecorder.deviations
            try expect(deviations.isEmpty, "\(deviations)")
        }
    }
}

package enum VerbsConformance {
    package static let cases = execution + persistence + access + limits + endings
}

func expect(_ holds: Bool, _ deviation: @autoclosure () -> String) throws(Deviation) {
    guard holds else { throw Deviation(description: deviation()) }
}

/// `body` throws an error of `code`.
func expect(_ code: RemoteMemoryError.Code, _ what: String, _ body: () throws(RemoteMemoryError) -> some Any) throws {
    do throws(RemoteMemoryError) {
        _ = try body()
    } catch {
        return try expect(error.code == code, "\(what) fails with \(error.code): \(error)")
    }
    throw Deviation(description: "\(what) is accepted")
}

extension RailRig {
    func expectEventually(_ what: String, _ condition: @escaping @Sendable (RailEnds) -> Bool) async throws {
        guard try await !eventually(condition) else { return }
        let seen = try await on { ends in
            "completed \(ends.recorder.completed), failure \(ends.recorder.failure.map { "\($0)" } ?? "none")"
        }
        throw Deviation(description: "never \(what): \(seen)")
    }

    func completes(_ id: WorkRequestID) async throws {
        try await expectEventually("completed through \(id)") { $0.recorder.completed >= id }
        try await on { try expect($0.recorder.completed == id, "\($0.recorder.completed) is completed, not \(id)") }
    }

    func fails(_ code: RemoteMemoryError.Code) async throws {
        try await expectEventually("failed with \(code)") { $0.recorder.failure != nil }
        try await on { ends in
            try expect(ends.recorder.failure?.code == code, "it fails with \(ends.recorder.failure!)")
            try expect(ends.initiator.creditBytes == 0, "there is credit in the error state")
            try expect(code, "a post in the error state") { () throws(RemoteMemoryError) in try ends.flush() }
            try expect(code, "a message in the error state") { () throws(RemoteMemoryError) in try ends.send([1]) }
        }
    }

    /// What the target sends behind everything that it has sent so far is here.
    func isHeardFromTarget(_ mark: [UInt8]) async throws {
        try await on { try $0.target.send(mark) }
        try await expectEventually("heard from the target") { $0.recorder.messages.contains(mark) }
    }
}

func pattern(_ seed: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ seed &* 7 &+ 1) }
}
