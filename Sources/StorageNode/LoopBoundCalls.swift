// Calls between event loops: what lives on a loop is called there and nowhere else, and the answer comes back.

package import NIOCore

/// An object and the event loop that it lives on, for whoever is elsewhere. On its own loop a call is a plain call.
package struct Placed<Value: AnyObject>: Sendable {
    package let eventLoop: any EventLoop
    private let bound: NIOLoopBoundBox<Value>

    /// `value` is from now on used on `eventLoop` alone, whoever made it.
    package init(_ value: sending Value, on eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        bound = NIOLoopBoundBox.makeBoxSendingValue(value, eventLoop: eventLoop)
    }

    /// Of an object that lives on `eventLoop` already. There.
    package init(here value: Value, on eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        bound = NIOLoopBoundBox(value, eventLoop: eventLoop)
    }

    /// On its loop.
    package var value: Value { bound.value }

    package func tell(_ body: @escaping @Sendable (Value) -> Void) {
        let bound = bound
        if eventLoop.inEventLoop { body(bound.value) } else { eventLoop.execute { body(bound.value) } }
    }

    /// `done` is called on `home`, which is where this is called.
    package func ask<Answer: Sendable>(
        from home: any EventLoop, _ body: @escaping @Sendable (Value, @escaping (Answer) -> Void) -> Void,
        _ done: @escaping (Answer) -> Void
    ) {
        guard !eventLoop.inEventLoop else { return body(value, done) }
        let back = NIOLoopBound(done, eventLoop: home)
        let bound = bound
        eventLoop.execute { body(bound.value) { answer in home.execute { back.value(answer) } } }
    }
}

extension Array {
    /// Asks each of them; `done` is told their answers in their order when all have come. On `home`.
    package func ask<Value: AnyObject, Answer: Sendable>(
        from home: any EventLoop, _ body: @escaping @Sendable (Value, @escaping (Answer) -> Void) -> Void,
        _ done: @escaping ([Answer]) -> Void
    ) where Element == Placed<Value> {
        guard !isEmpty else { return done([]) }
        var answers = [Answer?](repeating: nil, count: count)
        var waiting = count
        for (index, placed) in enumerated() {
            placed.ask(from: home, body) { answer in
                answers[index] = answer
                waiting -= 1
                if waiting == 0 { done(answers.compactMap(\.self)) }
            }
        }
    }
}
