// The public library: `import TwinLog` gives pools, logs, media, recovery and nodes to a storage server that embeds them.
@_exported public import ClusterConfiguration
@_exported public import GroupEngine
@_exported public import LogModel
@_exported public import NodeAssembly
@_exported public import PersistentMemory
@_exported public import Recovery
@_exported public import StorageMedium
@_exported public import StorageNode
@_exported public import WriteLog
