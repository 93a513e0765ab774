// Texts for the other side's terminal and for logs, that may quote what the other side sent.

public enum NBDText {
    /// The specification's limit of a string.
    public static let maximumBytes = 4096

    /// `text` with control and other invisible characters written out, cut to `limit` bytes between characters.
    public static func printable(_ text: String, limit: Int = maximumBytes) -> String {
        var out = ""
        var bytes = 0
        for scalar in text.unicodeScalars {
            let piece = isPrintable(scalar) ? String(scalar) : "\\u{\(String(scalar.value, radix: 16))}"
            bytes += piece.utf8.count
            guard bytes <= limit else { break }
            out += piece
        }
        return out
    }

    private static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
        default: true
        }
    }
}
