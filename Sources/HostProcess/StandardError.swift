// What a program says beside its output. A write that fails has nobody left to be told, and harms nothing.

internal import Glibc

public enum StandardError {
    public static func line(_ text: String) { Self.text(text + "\n") }

    public static func text(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while !rest.isEmpty {
                let count = write(STDERR_FILENO, rest.baseAddress, rest.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return }
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
            }
        }
    }
}
