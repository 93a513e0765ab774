// What a client asks for: VOLUME, or VOLUME@CLIENT from a client that names itself (S24). No volume's name holds an `@`.

internal import LogModel

struct NamedExport: Equatable {
    var volume: String
    /// One that comes again under the same name ends its older connection before it is served.
    var client: String?

    init(_ text: String) {
        volume = text
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, Name.isValid(String(parts[1])) else { return }
        volume = String(parts[0])
        client = String(parts[1])
    }
}
