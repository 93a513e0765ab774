// Times as status and events say them.

package import Foundation

extension Date {
    /// ISO 8601 in UTC, with milliseconds.
    package var statusText: String {
        formatted(.iso8601.year().month().day().time(includingFractionalSeconds: true).timeZone(separator: .omitted))
    }
}
