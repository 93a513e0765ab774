// A configured address, listened on at every place that it means.

import ClusterConfiguration
import Glibc
public import NIOCore
internal import NodeNeeds

/// A node cannot listen where its configuration says.
public struct ListenError: Error, CustomStringConvertible {
    /// Of the configuration.
    public var key: String
    public var place: String
    public var reason: String
    public var description: String { "\(key): \(place) cannot be listened on: \(reason)" }
}

public enum Listening {
    /// Listens at every place of `address`. `localhost` means two, of which a machine may lack one. Errors are ``ListenError``s.
    public static func begin(
        on address: String, for key: String, eventLoop: any EventLoop,
        _ listen: (String) -> EventLoopFuture<some Sendable>
    ) -> EventLoopFuture<Void> {
        let places = ClusterConfiguration.places(of: address)
        let attempts = places.map { place in
            listen(place).map { _ in true }.flatMapErrorThrowing { error in
                let code = (error as? IOError)?.errnoCode
                if places.count > 1, code == EADDRNOTAVAIL || code == EAFNOSUPPORT { return false }
                throw ListenError(key: key, place: place, reason: code.map(ListenProblem.reason) ?? words(error))
            }
        }
        return EventLoopFuture.whenAllSucceed(attempts, on: eventLoop).flatMapThrowing { listens in
            guard listens.contains(true) else {
                throw ListenError(key: key, place: address, reason: "this machine has no loopback interface")
            }
        }
    }

    private static func words(_ error: any Error) -> String {
        if case .unknown(let host, _) = error as? SocketAddressError { "\(host) does not resolve" } else { "\(error)" }
    }
}
