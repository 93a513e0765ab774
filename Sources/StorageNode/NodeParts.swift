// What a node is put together from.

package import ClusterProtocol
package import Coordination
package import GroupEngine
package import LogModel
package import NIOCore

/// The adapters behind the contracts that a node knows.
package struct NodeParts {
    package var process: ProcessIdentity
    package var coordinator: any Coordinator
    /// Blocks.
    package var readSecret: @Sendable () throws(SecretError) -> ClusterSecret
    package var fence: any Fence
    package var media: any MediumGuard
    package var archives: any LogArchives
    package var transport: any Transport
    /// The rails of the groups on an event loop. Called there.
    package var rails: @Sendable (any EventLoop) -> any GroupRails
    /// What is wrong with the node's wires, for `status`.
    package var wireProblem: () -> String? = { nil }
    /// Limits that a test can wait for.
    package var settings: (inout GroupSettings) -> Void = { _ in }

    package init(
        process: ProcessIdentity, coordinator: any Coordinator,
        readSecret: @escaping @Sendable () throws(SecretError) -> ClusterSecret, fence: any Fence,
        media: any MediumGuard, archives: any LogArchives, transport: any Transport,
        rails: @escaping @Sendable (any EventLoop) -> any GroupRails
    ) {
        self.process = process
        self.coordinator = coordinator
        self.readSecret = readSecret
        self.fence = fence
        self.media = media
        self.archives = archives
        self.transport = transport
        self.rails = rails
    }
}
