// Events on disk: JSON, one a line, in a file beside the pool and, once that is full, in the one before it. Numbers go on where the
// files end, so they never begin again. What the files hold is untrusted (S21): a line that cannot be one is passed over, and one that
// a loss of power tore is cut off.

internal import AdminProtocol
internal import Foundation
internal import CHostSupport
internal import Glibc
internal import LogModel
internal import Synchronization

struct EventFileError: Error, Hashable, Sendable, CustomStringConvertible {
    var message: String
    var description: String { message }
}

/// Thread-safe. Every call blocks.
final class EventFile: Sendable {
    /// Of each of the two files.
    static let maximumBytes = 512 << 10
    static let maximumLineBytes = 16 << 10

    private struct State {
        /// -1: to be opened.
        var descriptor: CInt = -1
        var bytes = 0
    }

    let path: String
    private let node: String
    private let access: FileAccess
    private let state = Mutex(State())
    private var olderPath: String { path + ".1" }

    init(path: String, node: String, access: FileAccess = .ownerOnly) {
        self.access = access
        self.path = path
        self.node = node
    }

    deinit { state.withLock { if $0.descriptor >= 0 { Glibc.close($0.descriptor) } } }

    // MARK: Reading

    /// What both files hold, in order of number; `nil` if there are none.
    func read() throws(EventFileError) -> [NodeEvent]? {
        var events: [NodeEvent] = []
        var isFound = false
        for path in [olderPath, path] {
            guard let bytes = try contents(of: path) else { continue }
            isFound = true
            for line in bytes.split(separator: UInt8(ascii: "\n")) {
                guard let event = parse(line), event.sequence > events.last?.sequence ?? 0 else { continue }
                events.append(event)
            }
        }
        return isFound ? events : nil
    }

    private func contents(of path: String) throws(EventFileError) -> [UInt8]? {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw failure("cannot be opened", path)
        }
        defer { Glibc.close(descriptor) }
        // Ours ends within a line of its limit; the last of what is longer counts.
        let most = Self.maximumBytes + Self.maximumLineBytes
        var about = stat()
        guard fstat(descriptor, &about) == 0 else { throw failure("has no status", path) }
        guard about.st_mode & S_IFMT == S_IFREG else {
            throw EventFileError(message: "\(path): is not a file of events")
        }
        var bytes = [UInt8](repeating: 0, count: min(most, Int(about.st_size)))
        let count = pread(descriptor, &bytes, bytes.count, max(0, about.st_size - off_t(most)))
        guard count >= 0 else { throw failure("cannot be read", path) }
        return Array(bytes.prefix(count))
    }

    private func parse(_ line: ArraySlice<UInt8>) -> NodeEvent? {
        guard line.count <= Self.maximumLineBytes,
            case .success(let event) = Result(catching: { try AdminCodec.decode(NodeEvent.self, from: line) }),
            event.node == node, (1...NodeEvent.maximumSequence).contains(event.sequence)
        else { return nil }
        return event
    }

    // MARK: Writing

    /// Durable when it returns. What was written in part before an error is cut off again.
    func append(_ events: [NodeEvent]) throws(EventFileError) {
        var text: [UInt8] = []
        for event in events {
            do {
                text += try AdminCodec.line(event)
            } catch {
                throw EventFileError(message: "\(path): an event cannot be encoded: \(error)")
            }
        }
        try state.withLock { state throws(EventFileError) in try append(text, &state) }
    }

    private func append(_ text: [UInt8], _ state: inout State) throws(EventFileError) {
        if state.descriptor >= 0, state.bytes >= Self.maximumBytes { try startAnew(&state) }
        if state.descriptor < 0 { try open(&state) }
        var done = 0
        while done < text.count {
            let count = text.withUnsafeBytes {
                pwrite(
                    state.descriptor, $0.baseAddress! + done, $0.count - done, off_t(state.bytes) + off_t(done))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let error = failure("cannot be written", path)
                if ftruncate(state.descriptor, off_t(state.bytes)) < 0 { try close(&state) }
                throw error
            }
            done += count
        }
        state.bytes += text.count
        guard fdatasync(state.descriptor) == 0 else { throw failure("cannot be made durable", path) }
    }

    /// The full file takes the place of the older one.
    private func startAnew(_ state: inout State) throws(EventFileError) {
        try close(&state)
        guard rename(path, olderPath) == 0 else { throw failure("cannot be renamed", path) }
    }

    private func close(_ state: inout State) throws(EventFileError) {
        let result = Glibc.close(state.descriptor)
        state.descriptor = -1
        guard result == 0 else { throw failure("cannot be closed", path) }
    }

    /// Behind the last whole line.
    private func open(_ state: inout State) throws(EventFileError) {
        let kept = try contents(of: path)
        let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw failure("cannot be opened", path) }
        state.descriptor = descriptor
        if kept == nil { try give(descriptor) }
        var about = stat()
        guard fstat(descriptor, &about) == 0 else { throw failure("has no status", path) }
        let torn = (kept ?? []).reversed().prefix { $0 != UInt8(ascii: "\n") }.count
        state.bytes = max(0, Int(about.st_size) - torn)
        guard ftruncate(descriptor, off_t(state.bytes)) == 0 else { throw failure("cannot be cut", path) }
    }

    /// A file that is new.
    private func give(_ descriptor: CInt) throws(EventFileError) {
        let result = tl_host_set_access(descriptor, access.mode, access.group ?? .max)
        guard result >= 0 else {
            throw EventFileError(
                message: "\(path): cannot be given its mode and group: \(String(cString: strerror(-result)))")
        }
    }

    private func failure(_ what: String, _ path: String) -> EventFileError {
        EventFileError(message: "\(path): \(what): \(String(cString: strerror(errno)))")
    }
}
