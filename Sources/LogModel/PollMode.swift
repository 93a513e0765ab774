// Whether an event loop looks for the next arrival before it sleeps.

public enum PollMode: Hashable, Sendable, CustomStringConvertible {
    case off
    /// While that pays, and nobody else wants the processor.
    case auto
    /// For so long after every arrival.
    case always(micros: UInt64)

    public static let maximumMicros: UInt64 = 1000

    /// `off`, `auto`, or a time from `1us` to ``maximumMicros``.
    public static func parse(_ text: String) -> PollMode? {
        switch text {
        case "off": return .off
        case "auto": return .auto
        default:
            guard text.hasSuffix("us"), text.first?.isNumber == true, let micros = UInt64(text.dropLast(2)),
                (1...maximumMicros).contains(micros)
            else { return nil }
            return .always(micros: micros)
        }
    }

    public var description: String {
        switch self {
        case .off: "off"
        case .auto: "auto"
        case .always(let micros): "\(micros)us"
        }
    }
}
