// The floor of many appends at once: one plain C thread an end, with the same copies and checksums, and no log. Perf/CStreamFloor.

import CStreamFloor
import Foundation
import Glibc
import HostProcess
import LogModel
import PersistentMemory

enum StreamFloor {
    /// `region`: what this end keeps what it sends in.
    static func measure(
        port: UInt16, _ region: Region, size: Int, depth: Int, seconds: Double
    ) throws(PerfError) -> (Repeat, LatencyHistogram) {
        let connection = try BlockingSocket.connect(port: port)
        let begin = monotonicNanos()
        let nanos = UInt64(seconds * 1e9)
        let ended = Ended(Pace(begin: begin, nanos: nanos))
        let count = sf_run(
            connection.descriptor, sf_ring(region), UInt32(size), UInt32(depth), nanos,
            { context, now, nanos in Unmanaged<Ended>.fromOpaque(context!).takeUnretainedValue().note(now, nanos) },
            Unmanaged.passUnretained(ended).toOpaque())
        guard count >= 0 else { throw PerfError("the stream floor: \(String(cString: strerror(Int32(-count))))") }
        let elapsed = Double(monotonicNanos() - begin) / 1e9
        return (
            Repeat(operations: UInt64(count), seconds: elapsed, p50: ended.histogram.p50, pace: ended.pace),
            ended.histogram
        )
    }

    private final class Ended {
        var histogram = makeHistogram()
        var pace: Pace

        init(_ pace: Pace) { self.pace = pace }

        func note(_ now: UInt64, _ nanos: UInt64) {
            histogram.note(nanos)
            pace.note(now)
        }
    }
}

/// The answering side, on a thread of this process.
struct StreamFloorServer {
    let port: UInt16

    /// Serves one connection after another, as long as the process lives.
    static func start(_ region: Region) throws(PerfError) -> StreamFloorServer {
        let (listener, port) = try BlockingSocket.listen()
        Thread.detachNewThread {
            do throws(PerfError) {
                while true {
                    let connection = try listener.accept()
                    let result = sf_serve(connection.descriptor, sf_ring(region))
                    guard result == 0 || result == -ECONNRESET else {
                        throw PerfError("the stream floor: \(String(cString: strerror(-result)))")
                    }
                }
            } catch {
                StandardError.line("twinlog-perf: \(error.message)")
            }
        }
        return StreamFloorServer(port: port)
    }
}

extension sf_ring {
    fileprivate init(_ region: Region) {
        self.init(
            base: region.ringBase.assumingMemoryBound(to: UInt8.self), bytes: region.ringBytes,
            persist: UnsafePointer(region.mapping.persist))
    }
}
