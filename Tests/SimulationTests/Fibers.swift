// For what blocks, in virtual time: a body of the engine runs on a stack of its own, but only while the world waits for it. A call that takes
// time (of the medium, of the fence) goes back to the world and is resumed when that time has come, so that a batch or a takeover
// is cut, stopped and overtaken between any two of its calls, and a seed still gives one run.

import CFibers

/// What runs one body after another.
final class Fiber {
    private var fiber: OpaquePointer?
    private var body: (() -> Void)?
    private(set) var isIdle = true
    /// Tells the end of one wait from that of another.
    private(set) var waits: UInt64 = 0

    init() {
        fiber = fiber_create(
            { argument in
                guard let argument else { return }
                Unmanaged<Fiber>.fromOpaque(argument).takeUnretainedValue().loop()
            }, Unmanaged.passUnretained(self).toOpaque())
        precondition(fiber != nil, "no memory for a fiber")
    }

    private func loop() {
        while let body {
            body()
            self.body = nil
            isIdle = true
            fiber_wait(fiber)
        }
    }

    /// From the world: begins `body`; returns when it waits or has ended.
    func start(_ body: @escaping () -> Void) {
        precondition(isIdle)
        isIdle = false
        self.body = body
        resume()
    }

    /// From the world: the wait is over.
    func resume() {
        waits += 1
        fiber_resume(fiber)
    }

    /// From the body: the world goes on until it resumes this fiber.
    func wait() { fiber_wait(fiber) }

    /// Gives its stack back. Precondition: idle.
    func end() {
        precondition(isIdle && body == nil)
        // The loop ends, and with it what its stack refers to.
        if waits > 0 { fiber_resume(fiber) }
        fiber_destroy(fiber)
    }
}
