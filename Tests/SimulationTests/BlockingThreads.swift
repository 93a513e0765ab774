// Threads for what blocks, in virtual time: a body of the engine runs on a real thread of its own, but only while the world waits for
// it. A call that takes time (of the medium, of the fence) hands the baton back and gets it again when that time has come, so
// that a batch or a takeover is cut, stopped and overtaken between any two of its calls, and a seed still gives one run.

import Glibc

/// Two sides hand one baton to and fro: only one of them runs at any time.
private final class Baton: @unchecked Sendable {
    // Sendable: semaphores are.
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { sem_init(semaphore, 0, 0) }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func give() { sem_post(semaphore) }

    func take() {
        while sem_wait(semaphore) != 0 { precondition(errno == EINTR, "sem_wait") }
    }
}

/// A thread that runs one body after another.
final class BlockingThread: @unchecked Sendable {
    // Sendable: whoever touches a field holds the baton.
    private let mine = Baton(), worlds = Baton()
    private var thread = pthread_t()
    private var body: (() -> Void)?
    private(set) var isIdle = true
    /// Tells the end of one wait from that of another.
    private(set) var waits: UInt64 = 0

    init() {
        let me = Unmanaged.passUnretained(self).toOpaque()
        let failure = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<BlockingThread>.fromOpaque(argument).takeUnretainedValue().loop()
                return nil
            }, me)
        precondition(failure == 0, "pthread_create: \(failure)")
    }

    private func loop() {
        while true {
            mine.take()
            guard let body else { return }
            body()
            self.body = nil
            isIdle = true
            worlds.give()
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
        mine.give()
        worlds.take()
    }

    /// From the body: the world goes on until it resumes this thread.
    func wait() {
        worlds.give()
        mine.take()
    }

    /// Precondition: idle.
    func end() {
        precondition(isIdle && body == nil)
        mine.give()
        pthread_join(thread, nil)
    }
}
