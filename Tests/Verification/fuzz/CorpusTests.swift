// Every input of the corpus, through the same functions that the fuzzer calls: what once broke something stays mended, and
// no input takes long.

import Foundation
import Testing

/// One after the other: the targets of a process share its files.
@Suite(.serialized) struct CorpusTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
        "corpus")

    private func inputs(_ target: FuzzTarget) throws -> [URL] {
        try FileManager.default.contentsOfDirectory(
            at: Self.folder.appendingPathComponent(target.rawValue), includingPropertiesForKeys: nil
        ).sorted { $0.path < $1.path }
    }

    @Test(arguments: FuzzTarget.allCases)
    func everyInputIsDealtWith(target: FuzzTarget) throws {  // S21
        let inputs = try inputs(target)
        #expect(!inputs.isEmpty, "the corpus of \(target) is missing")
        for input in inputs {
            let bytes = try Data(contentsOf: input)
            let began = ContinuousClock.now
            bytes.withUnsafeBytes { target.run($0) }
            // A hundred times what the slowest takes here: unbounded work would be beyond any such limit.
            #expect(ContinuousClock.now - began < .seconds(20), "\(input.lastPathComponent)")
        }
    }

    @Test(arguments: FuzzTarget.allCases)
    func theEmptyInputToo(target: FuzzTarget) {
        target.run(UnsafeRawBufferPointer(start: nil, count: 0))
    }
}
