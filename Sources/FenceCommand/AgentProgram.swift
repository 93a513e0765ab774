// One run of a fence agent: options on its standard input, an exit code, and no more time than it is given. The agent is the leader of a process
// group, which is killed when it ends or its time is over, so that nothing of it goes on.

internal import CHostSupport
internal import Glibc

/// How a run ended.
enum AgentExit: Hashable {
    case code(Int32)
    case signal(Int32)
    case timedOut
}

struct AgentAnswer: Hashable {
    var exit: AgentExit
    /// The beginning of what it wrote to its outputs.
    var output: String
}

struct AgentError: Error, CustomStringConvertible {
    var description: String

    init(_ what: String, _ number: CInt) { description = "\(what): \(String(cString: strerror(number)))" }
}

struct AgentProgram {
    /// Enough for a sentence in an event.
    static let keptOutputBytes = 512
    /// A socket takes it without a reader.
    static let maximumInputBytes = 32 << 10

    /// The program, a path or a name in PATH, and its arguments.
    let words: [String]

    /// Blocks, up to `timeoutMillis`.
    func run(input: String, timeoutMillis: UInt64) throws(AgentError) -> AgentAnswer {
        var (ours, agents): (CInt, CInt) = (-1, -1)
        try Self.makeSockets(&ours, &agents)
        defer { close(ours) }
        let spawned = Result { () throws(AgentError) in try spawn(withInput: agents) }
        close(agents)
        var running = RunningAgent(pid: try spawned.get(), output: ours)
        Self.send(input, to: ours)
        return try running.wait(timeoutMillis: timeoutMillis)
    }

    /// Of one pair: what is written to the agent, and what it writes.
    private static func makeSockets(_ ours: inout CInt, _ agents: inout CInt) throws(AgentError) {
        var pair: [CInt] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) == 0 else {
            throw AgentError("no socket for the agent", errno)
        }
        (ours, agents) = (pair[0], pair[1])
    }

    /// An agent that reads nothing has ended, or ends by its time. Its input ends here.
    private static func send(_ input: String, to socket: CInt) {
        let bytes = Array(input.utf8)
        _ = Glibc.send(socket, bytes, bytes.count, CInt(MSG_NOSIGNAL))
        shutdown(socket, Int32(SHUT_WR))
    }

    private func spawn(withInput socket: CInt) throws(AgentError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for descriptor in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] {
            posix_spawn_file_actions_adddup2(&actions, socket, descriptor)
        }
        // Whatever a library left open: an agent that outlives this process must not hold a medium's session or a client's connection.
        let closing = tl_host_close_from(&actions, STDERR_FILENO + 1)
        guard closing == 0 else { throw AgentError("the agent would inherit descriptors", -closing) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // A group of its own; no signal blocked or ignored as it is here.
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        defer { for argument in arguments { free(argument) } }
        arguments.append(nil)
        var pid: pid_t = 0
        let result = posix_spawnp(&pid, words[0], &actions, &attributes, arguments, environ)
        guard result == 0 else { throw AgentError("\(words[0]) cannot be started", result) }
        return pid
    }
}

/// Bound to one thread. Ended and reaped when ``wait(timeoutMillis:)`` returns.
private struct RunningAgent {
    let pid: pid_t
    let output: CInt
    private var kept: [UInt8] = []

    init(pid: pid_t, output: CInt) {
        self.pid = pid
        self.output = output
    }

    mutating func wait(timeoutMillis: UInt64) throws(AgentError) -> AgentAnswer {
        let ended = tl_host_pidfd_open(pid)
        guard ended >= 0 else {
            _ = reap()
            throw AgentError("the agent cannot be watched", -ended)
        }
        defer { close(ended) }
        let deadline = tl_host_boot_nanos() + timeoutMillis * 1_000_000
        var hasEnded = false
        var isOpen = true
        while !hasEnded {
            let now = tl_host_boot_nanos()
            guard now < deadline else { break }
            var watched = [pollfd(fd: ended, events: Int16(POLLIN), revents: 0)]
            if isOpen { watched.append(pollfd(fd: output, events: Int16(POLLIN), revents: 0)) }
            let left = CInt(clamping: (deadline - now) / 1_000_000 + 1)
            guard poll(&watched, nfds_t(watched.count), left) >= 0 || errno == EINTR else { break }
            hasEnded = watched[0].revents != 0
            if isOpen, watched[1].revents != 0 { isOpen = takeOutput() }
        }
        if hasEnded, isOpen { _ = takeOutput() }
        let exit = reap()
        return AgentAnswer(exit: hasEnded ? exit : .timedOut, output: text)
    }

    /// What is there now; false at its end. More than is kept is read and dropped, so that the agent does not wait for a reader.
    private mutating func takeOutput() -> Bool {
        var bytes = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(output, &bytes, bytes.count, CInt(MSG_DONTWAIT))
            if count < 0 { return errno == EAGAIN || errno == EINTR }
            if count == 0 { return false }
            kept += bytes.prefix(min(count, AgentProgram.keptOutputBytes - kept.count))
        }
    }

    /// The group is killed before its leader is reaped: until then its number is not given to another.
    private func reap() -> AgentExit {
        kill(-pid, SIGKILL)
        var status: CInt = 0
        while waitpid(pid, &status, 0) < 0 {
            // Somebody else reaped it: how it ended is not known, which is no success.
            guard errno == EINTR else { return .signal(SIGKILL) }
        }
        let signal = status & 0x7f
        return signal == 0 ? .code((status >> 8) & 0xff) : .signal(signal)
    }

    /// One line.
    private var text: String {
        String(decoding: kept, as: UTF8.self).split(whereSeparator: \.isNewline).joined(separator: " / ")
    }
}
