// The signals of a daemon, one after another, as what they ask for. None of them ends the process by itself (S28).

internal import CHostSupport
internal import Glibc

public enum SignalRequest: Hashable, Sendable {
    /// SIGTERM, SIGINT, SIGQUIT (a terminal's), SIGPWR (the power fails).
    case stop
    /// SIGHUP.
    case reload
    /// Asks nothing of a daemon.
    case stray
}

/// Signals are the process's: there is one of these.
public struct DaemonSignals: Sendable {
    private let descriptor: CInt

    /// From here on signals are kept until ``next()`` asks for them.
    public init() throws(DaemonSignalsError) {
        let result = tl_process_signals()
        guard result >= 0 else { throw DaemonSignalsError(number: -result) }
        descriptor = result
    }

    /// Waits for the next one. Blocks; for one thread.
    public func next() -> (request: SignalRequest, name: String) {
        while true {
            var byte: UInt8 = 0
            // The writing end is never closed: what fails is interrupted.
            guard read(descriptor, &byte, 1) == 1 else { continue }
            let number = CInt(byte)
            return (Self.request(of: number), Self.name(of: number))
        }
    }

    private static func request(of number: CInt) -> SignalRequest {
        switch number {
        case SIGTERM, SIGINT, SIGQUIT, SIGPWR: .stop
        case SIGHUP: .reload
        default: .stray
        }
    }

    private static func name(of number: CInt) -> String {
        tl_process_signal_name(number).map { "SIG" + String(cString: $0) } ?? "signal \(number)"
    }
}

public struct DaemonSignalsError: Error, Hashable, Sendable, CustomStringConvertible {
    public var number: Int32
    public var description: String { "signals cannot be received: \(String(cString: strerror(number)))" }
}
