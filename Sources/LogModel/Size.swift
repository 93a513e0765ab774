// Sizes as people write them.

public enum Size {
    public static let kibibyte: UInt64 = 1024
    public static let mebibyte: UInt64 = 1024 * 1024
    public static let gibibyte: UInt64 = 1024 * 1024 * 1024

    /// Parses `4096`, `64KiB`, `128MiB`, `1GiB`; `nil` for anything else or on overflow.
    public static func parse(_ text: String) -> UInt64? {
        let units: [(String, UInt64)] = [("KiB", kibibyte), ("MiB", mebibyte), ("GiB", gibibyte)]
        for (suffix, factor) in units where text.hasSuffix(suffix) {
            guard let count = number(text.dropLast(suffix.count)) else { return nil }
            let (bytes, overflow) = count.multipliedReportingOverflow(by: factor)
            return overflow ? nil : bytes
        }
        return number(text[...])
    }

    /// The shortest exact form: `128MiB`, `1536KiB`, `4097`.
    public static func format(_ bytes: UInt64) -> String {
        if bytes == 0 { return "0" }
        if bytes % gibibyte == 0 { return "\(bytes / gibibyte)GiB" }
        if bytes % mebibyte == 0 { return "\(bytes / mebibyte)MiB" }
        if bytes % kibibyte == 0 { return "\(bytes / kibibyte)KiB" }
        return "\(bytes)"
    }

    private static func number(_ text: Substring) -> UInt64? {
        guard !text.isEmpty, text.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else {
            return nil
        }
        return UInt64(text)
    }

    /// What follows an error of a file that cannot grow: the limit that its process has for it, in bytes.
    public static func fileLimit(_ bytes: UInt64) -> String {
        bytes == .max ? "" : " (this process may write files of at most \(bytes) bytes: ulimit -f)"
    }
}
