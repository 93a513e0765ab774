import ClusterProtocol
import LogModel
import Testing

/// What may be shipped to a mirror that lacks a part of the log (S5, S14, S26).
struct CatchUpMachineTests {
    private static let end = LSN(64 << 20)

    private func begun(durable: UInt64 = 0, head: UInt64 = 0) -> CatchUp? {
        CatchUp(durable: LSN(durable), startOfRecord: nil, head: LSN(head), end: Self.end)
    }

    @Test("A3: nothing that rested in the log may be shipped before it was checked")
    func checkedFirst() throws {
        var catchUp = try #require(begun())
        #expect(catchUp.checked == .zero)
        #expect(catchUp.next(head: .zero, shipped: .zero) == .check(from: .zero))
        #expect(catchUp.next(head: .zero, shipped: .zero) == .wait, "one part at a time")
        #expect(catchUp.didCheck(upTo: LSN(4 << 20), isDamaged: false, head: .zero) == .goOn)
        #expect(catchUp.checked == LSN(4 << 20))
    }

    @Test("a mirror that lacks nothing needs no catch-up; what is on the medium is not checked")
    func nothingToDo() throws {
        #expect(begun(durable: Self.end.rawValue) == nil)
        #expect(begun(head: Self.end.rawValue) == nil)
        var rest = try #require(begun(durable: 64, head: 1 << 20))
        #expect(rest.next(head: LSN(2 << 20), shipped: .zero) == .check(from: LSN(2 << 20)))
    }

    @Test("a catch-up that begins in a record checks all of it")
    func insideOfARecord() {
        let inside = CatchUp(durable: LSN(1024), startOfRecord: LSN(512), head: .zero, end: Self.end)
        #expect(inside?.checked == LSN(512))
        let unknown = CatchUp(durable: LSN(1024), startOfRecord: nil, head: LSN(64), end: Self.end)
        #expect(unknown?.checked == LSN(64))
    }

    @Test("A3: damage is healed before anything behind it is shipped, and once only")
    func damage() throws {
        var catchUp = try #require(begun())
        _ = catchUp.next(head: .zero, shipped: .zero)
        #expect(catchUp.didCheck(upTo: LSN(640), isDamaged: true, head: .zero) == .heal)
        #expect(catchUp.checked == LSN(640) && catchUp.next(head: .zero, shipped: LSN(640)) == .wait)
        catchUp.didHeal(at: LSN(640))
        #expect(catchUp.next(head: .zero, shipped: LSN(640)) == .check(from: LSN(640)))
        #expect(catchUp.didCheck(upTo: LSN(640), isDamaged: true, head: .zero) == .stop, "it does not stay healed")
    }

    @Test("a healing that was cut is tried again")
    func interrupted() throws {
        var catchUp = try #require(begun())
        _ = catchUp.next(head: .zero, shipped: .zero)
        _ = catchUp.didCheck(upTo: LSN(640), isDamaged: true, head: .zero)
        catchUp.didHeal(at: nil)
        _ = catchUp.next(head: .zero, shipped: .zero)
        #expect(catchUp.didCheck(upTo: LSN(640), isDamaged: true, head: .zero) == .heal)
    }

    @Test("damage that is on the medium meanwhile is passed")
    func damageBelowTheHead() throws {
        var catchUp = try #require(begun())
        _ = catchUp.next(head: .zero, shipped: .zero)
        #expect(catchUp.didCheck(upTo: LSN(640), isDamaged: true, head: LSN(1280)) == .goOn)
        #expect(catchUp.next(head: LSN(1280), shipped: .zero) == .check(from: LSN(1280)))
    }

    @Test("what is checked stays a window ahead of what is shipped, and ends")
    func window() throws {
        var catchUp = try #require(begun())
        _ = catchUp.next(head: .zero, shipped: .zero)
        _ = catchUp.didCheck(upTo: LSN(CatchUp.aheadBytes), isDamaged: false, head: .zero)
        #expect(catchUp.next(head: .zero, shipped: .zero) == .wait)
        #expect(catchUp.next(head: .zero, shipped: LSN(64)) == .check(from: LSN(CatchUp.aheadBytes)))
        _ = catchUp.didCheck(upTo: Self.end, isDamaged: false, head: .zero)
        #expect(catchUp.next(head: .zero, shipped: LSN(64)) == .done)
    }
}
