/// The version of TwinLog, as every tool's `--version` says it.
public enum TwinLogVersion {
    public static let current = "0.1.0"
}
