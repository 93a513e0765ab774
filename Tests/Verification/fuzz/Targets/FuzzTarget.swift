// Every parser of TwinLog that reads bytes which others have written, as a function of those bytes (S21). A target returns
// for any input; it traps where a promise is broken, so that the fuzzer and the replay of the corpus both see it.

enum FuzzTarget: String, CaseIterable {
    /// A pool's file: superblock, directory, slots; then what its log says.
    case pool
    /// The scan of arbitrary ring bytes, with any head, size and seed.
    case scan
    /// Two copies of a log, one of them damaged, healed from the other.
    case heal
    /// A part of a log beside what a peer sent of it, healed as destage and scrub do.
    case part
    /// The NBD handshake and requests, as a server reads them, and replies, as a client does.
    case nbd
    /// Frames and greetings of a rail.
    case frame
    /// Messages between two nodes.
    case peer
    /// Requests and answers of the admin socket.
    case admin
    /// The configuration file.
    case configuration

    func run(_ bytes: UnsafeRawBufferPointer) {
        switch self {
        case .pool: fuzzPool(bytes)
        case .scan: fuzzScan(bytes)
        case .heal: fuzzHeal(bytes)
        case .part: fuzzPart(bytes)
        case .nbd: fuzzNBD(bytes)
        case .frame: fuzzFrame(bytes)
        case .peer: fuzzPeer(bytes)
        case .admin: fuzzAdmin(bytes)
        case .configuration: fuzzConfiguration(bytes)
        }
    }
}

/// Takes an input apart, from its beginning. Reads past the end give zeros.
struct FuzzInput {
    private(set) var rest: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

    var isEmpty: Bool { rest.isEmpty }

    mutating func number<Number: FixedWidthInteger>(_ type: Number.Type = Number.self) -> Number {
        var value: Number = 0
        for (index, byte) in take(MemoryLayout<Number>.size).enumerated() {
            value |= Number(truncatingIfNeeded: UInt64(byte) << UInt64(8 * index))
        }
        return value
    }

    mutating func take(_ count: Int) -> UnsafeRawBufferPointer {
        let taken = UnsafeRawBufferPointer(rebasing: rest.prefix(count))
        rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        return taken
    }
}
