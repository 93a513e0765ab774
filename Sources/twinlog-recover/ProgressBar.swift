// A line on a terminal's standard error that says how far the work is; nothing anywhere else.

import HostProcess

struct ProgressBar {
    private let title: String
    private let isShown = TransientLine.isShown
    private var line = TransientLine()
    private var lastPercent: UInt64?
    private static let width: UInt64 = 40

    init(_ title: String) { self.title = title }

    mutating func show(_ done: UInt64, of total: UInt64) {
        guard isShown, total > 0 else { return }
        let percent = UInt64(Double(min(done, total)) / Double(total) * 100)
        guard percent != lastPercent else { return }
        lastPercent = percent
        let filled = Int(percent * Self.width / 100)
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: Int(Self.width) - filled)
        line.show("\(title) [\(bar)] \(percent)%")
    }

    /// Takes the line away again.
    mutating func clear() {
        line.clear()
        lastPercent = nil
    }
}
