// Ctrl-C while a command waits: it is left in order, and ends as a shell expects of a program that was interrupted.

internal import Glibc
internal import Synchronization

public enum Interruption {
    private static let isAsked = Atomic(false)

    /// From here on SIGINT only asks; whoever waits looks at ``hasCome``. Who was started with it ignored, as a shell does in the
    /// background, is not asked.
    public static func watch() {
        isAsked.store(false, ordering: .relaxed)
        let earlier = signal(SIGINT) { _ in Interruption.isAsked.store(true, ordering: .relaxed) }
        if unsafeBitCast(earlier, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self) { signal(SIGINT, SIG_IGN) }
    }

    public static var hasCome: Bool { isAsked.load(ordering: .relaxed) }

    /// Ends the process by the signal itself, so that a shell's loop or script ends with it.
    static func end() -> Never {
        signal(SIGINT, SIG_DFL)
        raise(SIGINT)
        Glibc.exit(ProgramExit.interrupted)
    }
}
