// What the connections of a server have in common, on whichever event loop they live.

internal import Logging

struct NBDCommons: Sendable {
    let limits: NBDServerLimits
    let security: NBDServerSecurity?
    let logger: Logger
    let memory: ClientMemory
    let places: ClientPlaces

    init(_ limits: NBDServerLimits, _ security: NBDServerSecurity?, _ logger: Logger) {
        self.limits = limits
        self.security = security
        self.logger = logger
        memory = ClientMemory(budgetBytes: limits.memoryBytes, connections: limits.connections)
        places = ClientPlaces(limit: limits.connections)
    }
}
