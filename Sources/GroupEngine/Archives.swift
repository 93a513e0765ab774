// Where logs are kept that are set aside. A contract: adapters carry it out.

package import LogModel
package import PersistentMemory

/// Keeps logs that are set aside. Thread-safe; blocks.
package protocol LogArchives: Sendable {
    /// Archives the region's log up to `end`; durable when it returns. One that is not prunable stays until an operator removes it.
    /// Answers where it is kept.
    func archive(_ region: Region, upTo end: LSN, isPrunable: Bool) throws(ArchiveError) -> String
}

/// A log could not be archived, so its region was not touched.
package struct ArchiveError: Error, CustomStringConvertible {
    package var description: String
    package init(_ description: String) { self.description = description }
}
