// Errors of the layers below, as callers of this library see them.

internal import ClusterConfiguration
internal import GroupEngine
internal import PersistentMemory
internal import StorageNode
internal import TransportSecurity
internal import WriteLog

/// What `body` answers, with a pool's error as one of this library.
func translating<Value>(_ body: () throws(PoolError) -> Value) throws(TwinLogError) -> Value {
    do throws(PoolError) {
        return try body()
    } catch {
        throw TwinLogError(error)
    }
}

func translating<Value>(_ body: () throws(WriteLogError) -> Value) throws(TwinLogError) -> Value {
    do throws(WriteLogError) {
        return try body()
    } catch {
        throw TwinLogError(.system, error.description)
    }
}

func translating<Value>(_ body: () throws(ConfigurationError) -> Value) throws(TwinLogError) -> Value {
    do throws(ConfigurationError) {
        return try body()
    } catch {
        throw TwinLogError(.configuration, error.description)
    }
}

func translating<Value>(_ body: () throws(NodeError) -> Value) throws(TwinLogError) -> Value {
    do throws(NodeError) {
        return try body()
    } catch {
        throw TwinLogError(.system, error.description)
    }
}

func translating<Value>(_ body: () throws(TLSError) -> Value) throws(TwinLogError) -> Value {
    do throws(TLSError) {
        return try body()
    } catch {
        throw TwinLogError(.configuration, error.description)
    }
}

extension TwinLogError {
    init(_ refusal: VolumeRefusal) {
        let code: Code =
            switch refusal.code {
            case .unknownVolume: .unknownVolume
            case .ownedElsewhere: .servedElsewhere
            case .notReady: .notReady
            }
        self.init(code, refusal.message)
    }

    init(_ error: VolumeError) {
        switch error {
        case .outOfRange: self.init(.invalidValue, "the range is not inside of the volume")
        case .readFailed(let reason): self.init(.mediumFailed, reason)
        }
    }

    init(_ error: PoolError) {
        let code: Code =
            switch error.code {
            case .notAPool, .foreign, .newerFormat: .notThisPool
            case .truncated, .corrupt: .corrupt
            case .inUse: .inUse
            case .invalidValue: .invalidValue
            case .noSpace, .system, .noPersistence, .regionExists, .directoryFull: .system
            }
        self.init(code, error.advice)
    }
}
