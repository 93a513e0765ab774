// Where and how results were measured: without that no number of them says anything.

import Foundation
import Glibc

struct RunDescription: Encodable {
    let machine: Machine
    /// As it can be repeated: without the files that the results go to.
    let command: String
    /// Of the beginning, in UTC.
    let date: String
    /// Of the last minute before the beginning: processes that ran or wanted to. Beside other work rates are the scheduler's.
    let load: Double?

    /// Here and now.
    init() {
        machine = Machine()
        command = Self.command(CommandLine.arguments)
        date = ISO8601DateFormatter().string(from: Date())
        load = Machine.text("/proc/loadavg")?.split(separator: " ").first.flatMap { Double($0) }
    }

    static func command(_ arguments: [String]) -> String {
        var words = ["twinlog-perf"]
        var isOutput = false
        for argument in arguments.dropFirst() {
            if isOutput {
                isOutput = false
            } else if ["--json", "--html"].contains(argument) {
                isOutput = true
            } else if !argument.hasPrefix("--json="), !argument.hasPrefix("--html=") {
                words.append(quoted(argument))
            }
        }
        return words.joined(separator: " ")
    }

    private static func quoted(_ word: String) -> String {
        let isPlain = !word.isEmpty && word.allSatisfy { $0.isLetter || $0.isNumber || "-_./:,=+@%".contains($0) }
        return isPlain ? word : "'" + word.replacing("'", with: "'\\''") + "'"
    }
}

struct Machine: Encodable {
    /// "unknown" where the kernel does not tell.
    let processor: String
    /// Those that this process may use.
    let cores: Int
    let kernel: String
    /// Of the first core's frequency; `nil` where the machine has none, as most virtual ones.
    let governor: String?

    fileprivate init() {
        let model = Self.text("/proc/cpuinfo")?.split(separator: "\n").first { $0.hasPrefix("model name") }
        processor =
            model?.split(separator: ":", maxSplits: 1).last.map { String($0).trimmingCharacters(in: .whitespaces) }
            ?? "unknown"
        cores = ProcessInfo.processInfo.activeProcessorCount
        kernel = "Linux " + (Self.text("/proc/sys/kernel/osrelease") ?? "unknown")
        governor = Self.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    }

    /// `nil` if the file is not there.
    fileprivate static func text(_ path: String) -> String? {
        FileManager.default.contents(atPath: path).map {
            String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }
}
