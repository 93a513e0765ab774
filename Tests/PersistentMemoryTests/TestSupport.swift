// Seeded randomness, an independent checksum, and child processes for tests.

import Glibc
import Testing

/// Whether the thread or the address sanitizer is in this process.
let isSanitized = dlsym(nil, "__tsan_init") != nil || dlsym(nil, "__asan_init") != nil

/// CRC32C, one bit at a time: shares nothing with the library's.
func bitwiseCRC32C(_ bytes: [UInt8]) -> UInt32 {
    var crc = ~UInt32(0)
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? (crc >> 1) ^ 0x82F6_3B78 : crc >> 1 }
    }
    return ~crc
}

/// A child that lives until its standard input is closed.
final class ChildProcess {
    private let output: UnsafeMutablePointer<FILE>
    private var input: Int32
    private let process: pid_t

    init(_ program: String, _ arguments: [String]) throws {
        var toChild: [Int32] = [0, 0]
        var fromChild: [Int32] = [0, 0]
        try #require(pipe(&toChild) == 0)
        try #require(pipe(&fromChild) == 0)
        for end in toChild + fromChild { try #require(fcntl(end, F_SETFD, FD_CLOEXEC) == 0) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
        posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        var child = pid_t()
        let failure = posix_spawn(&child, program, &actions, nil, &words, environ)
        words.forEach { free($0) }
        posix_spawn_file_actions_destroy(&actions)
        close(toChild[0])
        close(fromChild[1])
        try #require(failure == 0)
        process = child
        input = toChild[1]
        output = try #require(fdopen(fromChild[0], "r"))
    }

    func readLine() -> String? {
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, 256, output) != nil else { return nil }
        return String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Closes its input and waits for its end.
    func end() {
        guard input >= 0 else { return }
        close(input)
        input = -1
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    }

    deinit {
        end()
        fclose(output)
    }
}
