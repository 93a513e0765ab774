// Text for terminals: how wide they are, lines that are wrapped to that, and one line that is shown anew in its place. None of it
// reaches a file or a pipe, where lines stay whole and no escape code is written.

internal import Glibc

public enum Terminal {
    /// Of one that does not say how wide it is.
    static let usualColumns = 80

    /// Of the terminal that `descriptor` is; `nil` if it is none.
    static func columns(of descriptor: CInt) -> Int? {
        guard isatty(descriptor) == 1 else { return nil }
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return usualColumns }
        return Int(size.ws_col)
    }

    /// `line` in parts of at most `columns` characters, all but the first indented. Breaks between words, or inside of one that is
    /// longer than a line.
    public static func wrap(_ line: String, columns: Int, indent: Int = 2) -> [String] {
        let indent = min(indent, columns / 2)
        var lines: [String] = []
        var current = ""
        for word in line.split(separator: " ", omittingEmptySubsequences: false) {
            if current.isEmpty, lines.isEmpty {
                current = String(word)
            } else if current.count + 1 + word.count <= columns {
                current += " " + word
            } else {
                lines.append(current)
                current = String(repeating: " ", count: indent) + word
            }
            while current.count > columns {
                lines.append(String(current.prefix(columns)))
                current = String(repeating: " ", count: indent) + current.dropFirst(columns)
            }
        }
        return lines + [current]
    }
}

/// A line on a terminal's standard error that is replaced by the next one, and taken away at the end; nothing anywhere else.
public struct TransientLine {
    public static var isShown: Bool { isatty(STDERR_FILENO) == 1 }
    private var isThere = false

    public init() {}

    /// Cut at the terminal's width: a line that wraps could not be taken away.
    public mutating func show(_ text: String) {
        guard let columns = Terminal.columns(of: STDERR_FILENO) else { return }
        StandardError.text("\r" + text.prefix(columns - 1) + "\u{1B}[K")
        isThere = true
    }

    public mutating func clear() {
        guard isThere else { return }
        StandardError.text("\r\u{1B}[K")
        isThere = false
    }
}
