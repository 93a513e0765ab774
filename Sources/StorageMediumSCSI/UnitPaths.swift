// Which way leads to an address.

internal import LogModel

enum UnitPaths {
    /// Nothing is opened. `initiator`: the name that iSCSI targets know this node by.
    static func path(to address: UnitAddress, for use: UnitUse, initiator: String) -> any UnitPath {
        switch address {
        case .iscsi(let address): ISCSIDevice(address, initiator: initiator)
        case .device(let path): BlockDevice(path: path, for: use)
        }
    }
}
