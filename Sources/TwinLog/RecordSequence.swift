// The records of a log from a position on, copied out one at a time.

internal import LogModel

struct RecordSequence: AsyncSequence, Sendable {
    /// The record at or behind a position.
    let next: @Sendable (LSN) throws(TwinLogError) -> LogRecord?
    let start: LSN

    func makeAsyncIterator() -> Iterator { Iterator(position: start, find: next) }

    struct Iterator: AsyncIteratorProtocol {
        fileprivate var position: LSN
        fileprivate let find: @Sendable (LSN) throws(TwinLogError) -> LogRecord?

        mutating func next() async throws(TwinLogError) -> LogRecord? { try await next(isolation: nil) }

        mutating func next(isolation actor: isolated (any Actor)?) async throws(TwinLogError) -> LogRecord? {
            guard let record = try find(position) else { return nil }
            position = record.end.lsn
            return record
        }
    }
}
