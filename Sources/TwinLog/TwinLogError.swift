// What goes wrong, in one type: a code for programs, a sentence for people that names the file or the volume, and what to do.

/// Thrown by everything here that fails.
public struct TwinLogError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What a program decides by.
    public enum Code: String, Hashable, Sendable {
        /// A value that the caller gave is out of its range. Nothing was done.
        case invalidValue
        /// Another opener, in this process or another, holds the pool.
        case inUse
        /// The pool is of a later version, of somebody else, or no pool at all. It was not touched.
        case notThisPool
        /// Records that were promised are missing or damaged, or the pool's own structure is. Nothing was changed.
        case corrupt
        /// The pool's memory met an uncorrectable error. Nothing appended from now on counts.
        case memoryFailed
        /// The file system, or what is asked of it, failed.
        case system
        /// The log has no room: trim, then append again. Nothing was appended.
        case full
        /// The log, node or volume is closed.
        case closed
        /// The task was cancelled while it waited: what it asked for may still be carried out.
        case cancelled
        /// The partner was not there in time: what was asked for may still be carried out. Of an append, the record is in this log.
        case partnerLost
        /// The partner refuses this log: it holds another one, or one that goes on elsewhere.
        case partnerRefused
        /// The configuration is wrong; the message has a line for each problem.
        case configuration
        /// No volume of this name.
        case unknownVolume
        /// Another node serves the volume; the message names it. Of a request that was under way, the outcome is unknown.
        case servedElsewhere
        /// Not now: the node starts, replays or stops.
        case notReady
        /// The medium did not answer a read.
        case mediumFailed
    }

    /// The kind of failure.
    public let code: Code
    /// A sentence: what failed, where, and what to do about it where that is known.
    public let message: String
    public var description: String { "\(code.rawValue): \(message)" }

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    static let cancelled = TwinLogError(
        .cancelled, "the task was cancelled; what it asked for may still be carried out")
}
