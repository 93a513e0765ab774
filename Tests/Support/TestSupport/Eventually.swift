// Waiting for a condition, which no test does for luck.

/// Waits until `condition` holds; false after `seconds`. It suspends instead of blocking: the test runner's threads are few.
package func eventually(
    seconds: Int = 30, isolation: isolated (any Actor)? = #isolation, _ condition: () async throws -> Bool
) async throws -> Bool {
    for _ in 0..<seconds * 500 {
        if try await condition() { return true }
        try await Task.sleep(for: .milliseconds(2))
    }
    return try await condition()
}
