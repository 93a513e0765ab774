// Spans of time as people write them.

public enum TimeSpan {
    private static let longestCount: UInt64 = 3_600_000

    /// Milliseconds of `100ms`, `30s`; `nil` for anything else, for none at all, and for a number beyond 3,600,000.
    public static func parseMillis(_ text: String) -> UInt64? {
        let (suffix, factor): (String, UInt64) = text.hasSuffix("ms") ? ("ms", 1) : ("s", 1000)
        guard text.hasSuffix(suffix) else { return nil }
        let digits = text.dropLast(suffix.count)
        guard digits.utf8.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }),
            let count = UInt64(digits), count > 0, count <= longestCount
        else { return nil }
        return count * factor
    }
}
