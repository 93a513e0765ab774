/// What a pool has room for, for those who plan one without opening it.
public enum PoolLimits {
    /// Logs of groups, one region each.
    public static let maximumLogs = 32
}
