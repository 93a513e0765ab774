// Who may open a file that a node makes: its mode and, where different users run the nodes of a cluster, the group that they share.

public struct FileAccess: Hashable, Sendable {
    /// Permission bits of a file or a socket.
    public var mode: UInt32
    /// The number of the group that it is given to; `nil`: it gets the one that the system chooses.
    public var group: UInt32?

    public init(mode: UInt32, group: UInt32? = nil) {
        self.mode = mode
        self.group = group
    }

    /// Nobody but the user of the node (S22).
    public static let ownerOnly = FileAccess(mode: 0o600)
    /// What a group without a mode means.
    public static let sharedMode: UInt32 = 0o660

    /// Of a folder of such files: who may read or write them may enter it, and what others make in it gets its group.
    public var folderMode: UInt32 {
        let entering = (mode >> 2 | mode >> 1) & 0o111
        return mode | entering | (group == nil ? 0 : 0o2000)
    }

    /// Of a file among them that holds a secret (S22).
    public var secret: FileAccess { FileAccess(mode: mode & 0o660, group: group) }
}
