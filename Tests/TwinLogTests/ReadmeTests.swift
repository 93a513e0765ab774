// The README's examples: compiled and run here, and held against the page.

import ClusterHarness
import Foundation
import NIOCore
import Testing
import TwinLog

struct ReadmeTests {
    @Test("README: a log of its own")
    func log() async throws {
        try await withFolder { folder in
            let path = folder + "/log.pool"
            // README
            let log = try await Log.create(path: path, capacityBytes: 16 << 20)
            let position = try await log.append(Array("a record".utf8))  // durable; many tasks append at once
            await log.close()

            let again = try await Log.open(path: path)  // the same after a crash: what `append` returned for is there
            for try await record in again.read(from: position) {
                print(record.position, String(decoding: record.bytes, as: UTF8.self))
            }
            try await again.trim(to: again.end)  // until then a full log refuses, and loses nothing
            // end
            #expect(again.recovery.records == 1 && again.head == again.end)
            await again.close()
        }
    }

    @Test("README: a log in two processes")
    func mirroredLog() async throws {
        try await withFolder { folder in
            let path = folder + "/log.pool", mirrorPath = folder + "/mirror.pool"
            let secret = [UInt8](repeating: 7, count: 32), port = try LocalCluster.freePort()
            // README
            let mirror = try await LogMirror.start(
                path: mirrorPath, capacityBytes: 16 << 20, at: "127.0.0.1:\(port)", secret: secret)  // in one process
            let log = try await MirroredLog.create(
                path: path, capacityBytes: 16 << 20, mirror: "127.0.0.1:\(port)", secret: secret)  // in the other
            let position = try await log.append(Array("a record".utf8))  // durable in both
            try await log.trim(to: position)  // given up in both
            // end
            #expect(log.isMirrored && log.head == position)
            await log.close()
            await mirror.close()
        }
    }

    @Test("README: a node inside of a storage server")
    func node() async throws {
        try await withFolder { folder in
            let logger = quiet
            try clusterText().write(toFile: folder + "/cluster.yaml", atomically: true, encoding: .utf8)
            // README
            let node = try await Node.start(.file("\(folder)/cluster.yaml"), as: "alpha", logger: logger)
            let volume = try await node.volume("vol0")  // waits for a recovery
            try await volume.write(ByteBuffer(string: "a write"), at: 4096)  // durable in both logs
            let bytes = try await volume.read(at: 4096, count: 7)
            for group in try await node.status().groups { print(group.name, group.state, group.reason ?? "") }
            try await node.stop()  // hands over, destages, gives everything back
            // end
            #expect(String(buffer: bytes) == "a write")
        }
    }

    @Test("README: the page has these examples, word for word")
    func page() throws {
        let here = try String(contentsOfFile: #filePath, encoding: .utf8)
        let compiled = here.components(separatedBy: "// README\n").dropFirst()
            .map { words(of: $0.components(separatedBy: "// end")[0]) }
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appending(path: "../..")
        let page = try String(contentsOf: root.appending(path: "README.md"), encoding: .utf8)
        let shown = page.components(separatedBy: "```swift\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
        #expect(shown.map(words) == Array(compiled.prefix(shown.count)) && shown.count == 3)
        for example in shown { #expect(example.split(separator: "\n", omittingEmptySubsequences: false).count <= 16) }
    }

    /// Lines are broken and aligned differently.
    private func words(of text: String) -> [Substring] { text.split(whereSeparator: \.isWhitespace) }
}
