// A node's events, asked for part by part: what is not taken stays where it is, and no queue grows.

struct EventSequence: AsyncSequence, Sendable {
    let start: UInt64
    /// The first events after a number, waited for a while; `nil` if there will be none any more.
    let ask: @Sendable (UInt64) async -> [NodeEvent]?

    func makeAsyncIterator() -> Iterator { Iterator(last: start, ask: ask) }

    struct Iterator: AsyncIteratorProtocol {
        fileprivate var last: UInt64
        fileprivate let ask: @Sendable (UInt64) async -> [NodeEvent]?
        private var part: ArraySlice<NodeEvent> = []

        fileprivate init(last: UInt64, ask: @escaping @Sendable (UInt64) async -> [NodeEvent]?) {
            self.last = last
            self.ask = ask
        }

        mutating func next() async -> NodeEvent? { await next(isolation: nil) }

        mutating func next(isolation actor: isolated (any Actor)?) async -> NodeEvent? {
            while part.isEmpty {
                guard let found = await ask(last) else { return nil }
                part = found[...]
            }
            let event = part.removeFirst()
            last = event.number
            return event
        }
    }
}
