// The process fence: it kills the right process, confirms its end, and never says "gone" of what it cannot see (S18).

import Glibc
import LogModel
import TestSupport
import Testing

@testable import Coordination

struct ProcessFenceTests {
    let node = NodeID("alpha")

    /// Runs `body` beside a child that sleeps for a minute, and answers by which signal the child ended before its
    /// test did: 0 if it was alive to the end.
    func withVictim(_ body: (ProcessIdentity) async throws -> Void) async throws -> CInt {
        var child = pid_t()
        var words: [UnsafeMutablePointer<CChar>?] = ["sleep", "60"].map { (word: String) in strdup(word) } + [nil]
        try #require(posix_spawn(&child, "/bin/sleep", nil, nil, &words, environ) == 0)
        words.forEach { free($0) }
        var failure: (any Error)?
        do {
            let boot = String(
                decoding: try contents(ofProc: "/proc/sys/kernel/random/boot_id").dropLast(), as: UTF8.self)
            try await body(ProcessIdentity(node: node, pid: child, startTicks: try startTicks(of: child), bootID: boot))
        } catch {
            failure = error
        }
        var status: CInt = 0
        let hasEnded = waitpid(child, &status, WNOHANG) == child
        if !hasEnded {
            // Whatever the body did: the child does not outlive the test.
            kill(child, SIGKILL)
            while waitpid(child, nil, 0) < 0 && errno == EINTR {}
        }
        if let failure { throw failure }
        return hasEnded ? status & 0x7f : 0
    }

    /// Field 22. The name of `sleep` has no space.
    func startTicks(of pid: pid_t) throws -> UInt64 {
        let text = String(decoding: try contents(ofProc: "/proc/\(pid)/stat"), as: UTF8.self)
        return try #require(UInt64(text.split(separator: " ")[21]))
    }

    @Test func thisProcessKnowsItself() throws {
        let me = try ProcessIdentity.current(node: node)
        #expect(me.node == node)
        #expect(me.pid == getpid())
        #expect(me.startTicks > 0)
        #expect(me.bootID.utf8.count == 36)
        #expect(try ProcessIdentity.current(node: node) == me)
        #expect(try ProcessFence.liveness(of: me) == .alive)
    }

    @Test func aRunningProcessIsKilledAndItsEndConfirmed() async throws {  // S18
        let signal = try await withVictim { victim in
            #expect(try ProcessFence.liveness(of: victim) == .alive)
            try ProcessFence.kill(victim, timeoutMillis: 30_000)
            #expect(try ProcessFence.liveness(of: victim) == .gone)
            // Again, of a zombie or of nobody: the same answer.
            try ProcessFence.kill(victim, timeoutMillis: 30_000)
        }
        #expect(signal == SIGKILL)
    }

    /// A stopped owner answers nothing and would go on writing when it is continued: the reason for fences.
    @Test func aStoppedProcessIsAliveAndCanBeKilled() async throws {  // S18
        let signal = try await withVictim { victim in
            try #require(kill(victim.pid, SIGSTOP) == 0)
            #expect(
                try await eventually {
                    let status = String(decoding: try contents(ofProc: "/proc/\(victim.pid)/stat"), as: UTF8.self)
                    return status.contains(") T ")
                })
            #expect(try ProcessFence.liveness(of: victim) == .alive)
            try ProcessFence.kill(victim, timeoutMillis: 30_000)
            #expect(try ProcessFence.liveness(of: victim) == .gone)
        }
        #expect(signal == SIGKILL)
    }

    @Test func anotherProcessOfTheSamePidIsSpared() async throws {  // S18
        let signal = try await withVictim { victim in
            var earlier = victim
            earlier.startTicks -= 1
            var otherBoot = victim
            otherBoot.bootID = "00000000-0000-0000-0000-000000000000"
            for stranger in [earlier, otherBoot] {
                #expect(try ProcessFence.liveness(of: stranger) == .gone)
                try ProcessFence.kill(stranger, timeoutMillis: 30_000)
                #expect(try ProcessFence.liveness(of: victim) == .alive)
            }
        }
        #expect(signal == 0)
    }

    @Test func aProcessThatNeverWasIsGone() throws {
        var nobody = try ProcessIdentity.current(node: node)
        // Above the highest pid that Linux gives (2^22).
        nobody.pid = (1 << 22) + 1
        #expect(try ProcessFence.liveness(of: nobody) == .gone)
        try ProcessFence.kill(nobody, timeoutMillis: 1000)
    }

    /// Two hosts that share the coordinator's directory: the fence of one does not reach the other, and says so.
    @Test func aProcessOfAnotherHostIsNotSaidToBeGone() throws {  // S16, S18
        var other = try ProcessIdentity.current(node: node)
        other.bootID = "another boot"
        // This host, booted again since: whatever ran before has ended.
        #expect(try ProcessFence.liveness(of: other) == .gone)
        try ProcessFence.kill(other, timeoutMillis: 1000)
        other.hostID = "another host"
        #expect(try ProcessFence.liveness(of: other) == .elsewhere)
        let error = #expect(throws: FenceError.self) { try ProcessFence.kill(other, timeoutMillis: 1000) }
        #expect(error?.message.contains("another host") == true)
    }

    @Test("S18: a process that /proc hides from this user is not said to be gone, nor its death confirmed")
    func hiddenProcess() async throws {
        let folder = try Folder()
        let signal = try await withVictim { victim in
            #expect(try ProcessFence.liveness(of: victim, shownBy: folder.path) == .elsewhere)
            let error = #expect(throws: FenceError.self) {
                try ProcessFence.kill(victim, timeoutMillis: 1000, shownBy: folder.path)
            }
            #expect(error?.message.contains("hidepid") == true)
            #expect(try ProcessFence.liveness(of: victim) == .alive)
            try ProcessFence.kill(victim, timeoutMillis: 30_000)
            // Its own child, so it is a zombie now: the pid is taken, by a process that has ended.
            try ProcessFence.kill(victim, timeoutMillis: 1000, shownBy: folder.path)
        }
        #expect(signal == SIGKILL)
    }

    /// A pid from a damaged record: pids up to zero mean something else to the system, never a process to kill.
    @Test(arguments: [0, -1, .min] as [Int32]) func aPidThatIsNoneKillsNobody(pid: Int32) throws {  // S18, S21
        var nobody = try ProcessIdentity.current(node: node)
        nobody.pid = pid
        #expect(throws: FenceError.self) { try ProcessFence.kill(nobody, timeoutMillis: 1000) }
        #expect(try ProcessFence.liveness(of: ProcessIdentity.current(node: node)) == .alive)
    }

    /// With no descriptor left, nothing can be seen of any process; that is not its death.
    @Test func withoutDescriptorsNobodyIsSaidToBeGone() async throws {  // S18
        for spare in 0...2 {
            await #expect(processExitsWith: .success) { [spare = spare as Int] in
                let me = try ProcessIdentity.current(node: NodeID("alpha"))
                var parent = me
                parent.pid = getppid()
                parent.startTicks += 1
                // Not the process of this identity; but that can be said only of what was looked at.
                // The other threads of this process, which tell the test's outcome, keep their own table and their limit.
                // Swift's Glibc has no unshare(2).
                let unshare = unsafeBitCast(
                    try #require(dlsym(nil, "unshare")), to: (@convention(c) (CInt) -> CInt).self)
                try #require(unshare(0x400) == 0)  // CLONE_FILES
                let resource = __rlimit_resource_t(7)  // RLIMIT_NOFILE
                var before = rlimit()
                try #require(getrlimit(resource, &before) == 0)
                var limit = rlimit(rlim_cur: 64, rlim_max: before.rlim_max)
                try #require(setrlimit(resource, &limit) == 0)
                var taken: [CInt] = []
                while case let next = open("/dev/null", O_RDONLY), next >= 0 { taken.append(next) }
                for descriptor in taken.prefix(spare) { close(descriptor) }
                let seen = Result { try ProcessFence.liveness(of: me) }
                let killed = Result { try ProcessFence.kill(parent, timeoutMillis: 1000) }
                for descriptor in taken.dropFirst(spare) { close(descriptor) }
                try #require(setrlimit(resource, &before) == 0)
                switch spare {
                case 0:
                    #expect(throws: FenceError.self) { try seen.get() }
                    #expect(throws: FenceError.self) { try killed.get() }
                case 1:
                    // Room for the pidfd, none for a look at the process behind it.
                    #expect(try seen.get() == .alive)
                    #expect(throws: FenceError.self) { try killed.get() }
                default:
                    #expect(try seen.get() == .alive)
                    try killed.get()
                }
            }
        }
    }

    @Test func theBootClockAdvances() async throws {
        let before = BootClock.now
        #expect(try await eventually { BootClock.now > before })
    }
}

/// Files of /proc have no size.
func contents(ofProc path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"))
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let got = bytes.withUnsafeMutableBytes { fread($0.baseAddress, 1, 4096, file) }
    return Array(bytes.prefix(got))
}
