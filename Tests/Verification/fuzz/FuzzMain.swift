// The entry of the fuzzer's executable: libFuzzer brings its own `main` and calls this with one input after another.
// TWINLOG_FUZZ_TARGET names the target; see `make fuzz`.

import Glibc

private let target: FuzzTarget = {
    let name = getenv("TWINLOG_FUZZ_TARGET").map { String(cString: $0) } ?? ""
    guard let target = FuzzTarget(rawValue: name) else {
        let names = FuzzTarget.allCases.map(\.rawValue).joined(separator: ", ")
        let message = "TWINLOG_FUZZ_TARGET is '\(name)', not one of \(names)\n"
        write(STDERR_FILENO, message, message.utf8.count)
        exit(2)
    }
    return target
}()

@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    target.run(UnsafeRawBufferPointer(start: start, count: count))
    return 0
}
