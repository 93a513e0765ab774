// The certificates that a node shows on its wires, and what an operator should know of them.

public import ClusterConfiguration
public import Foundation
public import LogModel
public import TransportSecurity

/// Thread-safe.
public final class WireSecurity: Sendable {
    /// Of rails; `nil`: they have none, and need none (S27).
    let rails: TLSContexts?
    /// Of NBD clients.
    public let nbd: TLSContexts?
    /// Wires that anybody on the network can read.
    private let open: [String]

    /// How long before its end a certificate is spoken of.
    private static let notice: Double = 14 * 86_400

    /// Reads the files that the configuration names for `node`; blocks.
    public init(_ configuration: ClusterConfiguration, node id: NodeID) throws(TLSError) {
        let node = configuration.node(id)
        rails = if let files = configuration.railCertificates { try TLSContexts(files, onlyNewest: true) } else { nil }
        nbd = if let security = node?.nbdSecurity { try TLSContexts(security.files, onlyNewest: false) } else { nil }
        var open: [String] = []
        if configuration.railCertificates == nil, configuration.secretPath == nil {
            open += (node?.mirror ?? []).filter { TCPAddress($0)?.isLoopback == false }
        }
        if let node, node.nbdSecurity?.isRequired != true, TCPAddress(node.nbd)?.isLoopback == false {
            open.append(node.nbd)
        }
        self.open = open
    }

    /// Reads every file again; new connections use what is there now. Blocks. After an error what was read before is used on.
    public func reload() throws(TLSError) {
        try rails?.reload()
        try nbd?.reload()
    }

    public var hasCertificates: Bool { rails != nil || nbd != nil }

    /// What is wrong with the wires at `now`; `nil` if nothing is.
    public func problem(at now: Date = Date()) -> String? {
        var problems = [rails, nbd].compactMap { $0.flatMap { Self.expiry(of: $0, at: now) } }
        if !open.isEmpty {
            problems.append(
                "insecure: true: anybody on the network can read and change what crosses \(open.joined(separator: ", "))"
            )
        }
        return problems.isEmpty ? nil : problems.joined(separator: "; ")
    }

    private static func expiry(of contexts: TLSContexts, at now: Date) -> String? {
        let end = Date(timeIntervalSince1970: Double(contexts.expires))
        guard end.timeIntervalSince(now) < notice else { return nil }
        let verb = end <= now ? "has expired" : "expires"
        return
            "\(contexts.files.certificate): the certificate \(verb) on \(end.formatted(.iso8601)); a new one is read on SIGHUP"
    }
}
