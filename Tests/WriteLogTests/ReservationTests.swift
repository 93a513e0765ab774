// The steps of an append one by one, through the C interface: what a producer that stops between them does to others.

import CLogCore
import Testing

struct ReservationTests {
    final class Steps {
        let memory: UnsafeMutableRawBufferPointer
        let persist: UnsafeMutablePointer<tl_persist>
        var ring: tl_ring
        let log: OpaquePointer

        init(ringBytes: Int = 16384, start: UInt64 = 0) throws {
            memory = .allocate(byteCount: ringBytes, alignment: 4096)
            memory.initializeMemory(as: UInt8.self, repeating: 0)
            persist = .allocate(capacity: 1)
            tl_persist_init(persist, TL_PERSIST_LINES, memory.baseAddress, ringBytes)
            ring = tl_ring(
                bytes: UnsafePointer(memory.baseAddress!.assumingMemoryBound(to: UInt8.self)), size: UInt64(ringBytes),
                incarnation: 1, seed: 42)
            var created: OpaquePointer?
            try #require(tl_log_create(&created, persist, &ring, start) == 0)
            log = try #require(created)
        }

        deinit {
            tl_log_destroy(log)
            persist.deallocate()
            memory.deallocate()
        }

        var published: UInt64 { tl_log_published(log) }
    }

    static let payload = [UInt8](repeating: 9, count: 100)

    static func withWrite<Result>(_ body: (inout tl_write) -> Result) -> Result {
        payload.withUnsafeBytes { bytes in
            var write = tl_write()
            write.kind = TL_KIND_DATA
            write.payload = bytes.baseAddress
            write.length = UInt64(bytes.count)
            return body(&write)
        }
    }

    @Test(.disabled(if: inGuest, "64 MiB of appends are minutes there"))
    func nobodyReservesAWindowAboveAStoppedProducer() throws {
        // Half of the ring is free then: its slots, of which there are fewer, are what is full.
        let steps = try Steps(ringBytes: 128 << 20)
        let large = [UInt8](repeating: 3, count: 1 << 20)
        large.withUnsafeBytes { bytes in
            var write = tl_write()
            write.kind = TL_KIND_DATA
            write.payload = bytes.baseAddress
            write.length = UInt64(bytes.count)
            var stopped = tl_reservation(), place = tl_reservation()
            #expect(tl_log_reserve(steps.log, &write, &stopped) == TL_LOG_DONE)
            while tl_log_append(steps.log, &write, &place) == TL_LOG_DONE {}
            #expect(tl_log_append(steps.log, &write, &place) == TL_LOG_FULL)
            #expect(tl_log_append_data(steps.log, bytes.baseAddress, 100, 0, 0, 1).end > 0, "a small one still fits")
            #expect((62 << 20...64 << 20).contains(tl_log_tail(steps.log)) && steps.published == 0)
            tl_log_store(steps.log, &write, &stopped)
            tl_log_publish(steps.log, &stopped)
            #expect(steps.published == tl_log_tail(steps.log))
            #expect(tl_log_append(steps.log, &write, &place) == TL_LOG_DONE)
        }
    }

    @Test func aStoppedProducerBlocksOnlyWhatLiesAboveIt() throws {  // S1
        let steps = try Steps()
        Self.withWrite { write in
            var places = [tl_reservation](repeating: tl_reservation(), count: 5)
            for index in places.indices { #expect(tl_log_reserve(steps.log, &write, &places[index]) == TL_LOG_DONE) }
            // All but the second are stored and published, in another order than reserved.
            for index in [4, 0, 3, 2] {
                tl_log_store(steps.log, &write, &places[index])
                tl_log_publish(steps.log, &places[index])
                let expected = index == 4 ? 0 : places[0].end
                #expect(steps.published == expected)
            }
            // A crash now: the writes above the hole are torn, not delivered.
            var scan = tl_scan_begin(&steps.ring, 0, 0)
            var found = tl_scanned_write()
            #expect(tl_scan_next(&scan, &found) && found.end == places[0].end)
            #expect(!tl_scan_next(&scan, &found))
            #expect(scan.verdict == TL_VERDICT_TORN && scan.first_bad == places[1].start)
            // It goes on: everything is published at once.
            tl_log_store(steps.log, &write, &places[1])
            #expect(steps.published == places[0].end)
            tl_log_publish(steps.log, &places[1])
            #expect(steps.published == places[4].end)
        }
    }

    @Test func whatNobodyPublishesIsNamed() throws {
        let steps = try Steps(start: 16384 - 512)
        Self.withWrite { write in
            var range = tl_range()
            #expect(!tl_log_unpublished(steps.log, &range), "nothing is reserved")
            var places = [tl_reservation](repeating: tl_reservation(), count: 6)
            // Twice around, so that slots hold what an earlier lap left.
            for _ in 0..<40 {
                for index in places.indices {
                    #expect(tl_log_reserve(steps.log, &write, &places[index]) == TL_LOG_DONE)
                }
                func unpublished() -> [UInt64]? {
                    tl_log_unpublished(steps.log, &range) ? [range.start, range.end] : nil
                }
                func publish(_ index: Int) {
                    tl_log_store(steps.log, &write, &places[index])
                    tl_log_publish(steps.log, &places[index])
                }
                #expect(unpublished() == [places[0].start, places[5].end], "up to the tail")
                publish(5)
                #expect(unpublished() == [places[0].start, places[5].start], "up to what is published above")
                publish(2)
                #expect(unpublished() == [places[0].start, places[2].start])
                publish(0)
                #expect(unpublished() == [places[1].start, places[2].start], "the one that is missing, exactly")
                publish(1)
                #expect(unpublished() == [places[3].start, places[5].start], "two neighbours")
                publish(4)
                publish(3)
                #expect(unpublished() == nil)
                tl_log_set_reclaim(steps.log, places[5].end)
            }
        }
        #expect(steps.published > 2 * 16384)
    }

    @Test func othersRunIntoFullNeverOverAStoppedProducer() throws {  // S6
        let steps = try Steps()
        Self.withWrite { write in
            var stopped = tl_reservation()
            #expect(tl_log_reserve(steps.log, &write, &stopped) == TL_LOG_DONE)
            var place = tl_reservation()
            var appended = 0
            while appended < 1000, tl_log_append(steps.log, &write, &place) == TL_LOG_DONE { appended += 1 }
            #expect((20..<90).contains(appended))
            #expect(steps.published == 0)
            #expect(tl_log_tail(steps.log) <= 16384 - 4096)
            tl_log_store(steps.log, &write, &stopped)
            tl_log_publish(steps.log, &stopped)
            #expect(steps.published == tl_log_tail(steps.log))
        }
    }

    @Test func slotsOfEarlierLapsAreNeverMistaken() throws {
        let steps = try Steps(start: 640)
        Self.withWrite { write in
            var a = tl_reservation(), b = tl_reservation()
            for _ in 0..<2000 {
                #expect(tl_log_reserve(steps.log, &write, &a) == TL_LOG_DONE)
                #expect(tl_log_reserve(steps.log, &write, &b) == TL_LOG_DONE)
                for place in [b, a] {
                    var place = place
                    #expect(steps.published == a.start)
                    tl_log_store(steps.log, &write, &place)
                    tl_log_publish(steps.log, &place)
                }
                #expect(steps.published == b.end)
                tl_log_set_reclaim(steps.log, b.end)
            }
        }
    }

    @Test func anAppendDrainsExactlyOnce() throws {  // S2
        let steps = try Steps(start: 16384 - 64)
        let recorder = try #require(tl_recorder_create())
        defer { tl_recorder_destroy(recorder) }
        steps.persist.pointee.recorder = recorder
        Self.withWrite { write in
            var place = tl_reservation()
            #expect(tl_log_append(steps.log, &write, &place) == TL_LOG_DONE)  // pad, payload, two headers
        }
        let kinds = (0..<tl_recorder_count(recorder)).map { tl_recorder_operation(recorder, $0).kind }
        #expect(kinds.count(where: { $0 == TL_OPERATION_DRAIN }) == 1)
        #expect(kinds.last == TL_OPERATION_DRAIN)
    }

    @Test func impossibleRingsAreRefused() throws {
        let steps = try Steps()
        var created: OpaquePointer?
        for (size, start) in [(8192, 0), (16385, 0), (16384, 32)] as [(UInt64, UInt64)] {
            var ring = steps.ring
            ring.size = size
            #expect(tl_log_create(&created, steps.persist, &ring, start) != 0)
        }
    }
}
