// swift-log's handler on a LogQueue. Its level is the queue's, for all loggers.

public import Logging

public struct QueuedLogHandler: LogHandler {
    private let label: String
    private let queue: LogQueue
    public var metadata: Logger.Metadata = [:]

    public init(label: String, queue: LogQueue) {
        self.label = label
        self.queue = queue
    }

    public var logLevel: Logger.Level {
        get { queue.level }
        set { queue.level = newValue }
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { $1 }
        let about = all.map { (key: $0.key, value: "\($0.value)") }.sorted { $0.key < $1.key }
        queue.append(
            LogLine(
                level: event.level, label: label, message: "\(event.message)", metadata: about,
                cause: LogCause(
                    file: event.file, line: event.line,
                    subject: about.map { "\($0.key)=\($0.value)" }.joined(separator: " "))))
    }
}
