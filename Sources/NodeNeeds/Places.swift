// Whether a node could listen where its configuration says: on an address of this machine, or on a socket in a folder.

internal import ClusterConfiguration
internal import Glibc
internal import LogModel

public enum ListenProblem {
    /// What an error number of `bind` and `listen` means.
    public static func reason(_ number: CInt) -> String {
        switch number {
        case EADDRINUSE: "another process listens there"
        case EADDRNOTAVAIL: "it is not an address of this machine"
        case EEXIST: "something else than a socket is there"
        default: String(cString: strerror(number))
        }
    }
}

enum Places {
    /// Why nobody could listen on `address`, HOST:PORT. A socket is bound for a moment and never listens.
    static func problem(of address: String, isRunning: Bool) -> String? {
        let places = ClusterConfiguration.places(of: address)
        var failures: [(place: String, number: CInt)] = []
        for place in places {
            guard let number = bindFailure(place), !(isRunning && number == EADDRINUSE) else { continue }
            failures.append((place, number))
        }
        // Of the two places of `localhost` a machine may lack one.
        let isMissing = { (number: CInt) in number == EADDRNOTAVAIL || number == EAFNOSUPPORT }
        let counted = failures.count < places.count ? failures.filter { !isMissing($0.number) } : failures
        guard let first = counted.first else { return nil }
        return "\(first.place) cannot be listened on: \(ListenProblem.reason(first.number))"
    }

    private static func bindFailure(_ place: String) -> CInt? {
        guard let address = TCPAddress(place) else { return EINVAL }
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE
        hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(address.host, String(address.port), &hints, &found) == 0, let found
        else { return EINVAL }
        defer { freeaddrinfo(found) }
        let socket = Glibc.socket(
            found.pointee.ai_family, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { return errno }
        defer { close(socket) }
        // As the node does: what an earlier process left in TIME_WAIT is no obstacle.
        var isReused: CInt = 1
        setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &isReused, socklen_t(MemoryLayout<CInt>.size))
        return bind(socket, found.pointee.ai_addr, found.pointee.ai_addrlen) == 0 ? nil : errno
    }

    /// Why nobody could listen on a socket at `path`. `isRunning`: the node has it already.
    static func socketProblem(at path: String, isRunning: Bool) -> String? {
        if let problem = Folders.problem(makingIn: path) { return "unix:\(path) cannot be listened on: \(problem)" }
        var about = stat()
        guard lstat(path, &about) == 0, !isRunning else { return nil }
        guard about.st_mode & S_IFMT == S_IFSOCK else {
            return "unix:\(path) cannot be listened on: \(ListenProblem.reason(EEXIST))"
        }
        return isTaken(path) ? "unix:\(path) cannot be listened on: \(ListenProblem.reason(EADDRINUSE))" : nil
    }

    /// Somebody listens there, or this user may not know.
    static func isTaken(_ path: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        guard path.utf8.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
        withUnsafeMutableBytes(of: &address.sun_path) { space in
            for (index, byte) in path.utf8.enumerated() { space[index] = byte }
        }
        let socket = Glibc.socket(
            AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
        guard socket >= 0 else { return false }
        defer { close(socket) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
                    || (errno != ENOENT && errno != ECONNREFUSED)
            }
        }
    }
}
