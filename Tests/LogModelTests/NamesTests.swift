import LogModel
import Testing

@Suite struct NamesTests {
    @Test func namesAreWhatFilesAndWiresCanCarry() {
        #expect(Name.isValid("alpha"))
        #expect(Name.isValid("vol0.img_1-2"))
        #expect(!Name.isValid(""))
        #expect(!Name.isValid(".hidden"))
        #expect(!Name.isValid("-flag"))
        #expect(!Name.isValid("a/b"))
        #expect(!Name.isValid("ä"))
        #expect(Name.isValid(String(repeating: "x", count: 63)))
        #expect(!Name.isValid(String(repeating: "x", count: 64)))
    }

    @Test func uuidsSurviveTheirText() {
        let uuid = UUID128(high: 0x0123_4567_89ab_cdef, low: 0x0000_0000_0000_0001)
        #expect(uuid.description == "0123456789abcdef0000000000000001")
        #expect(UUID128(uuid.description) == uuid)
        #expect(UUID128("0123") == nil)
        #expect(UUID128("0123456789abcdef000000000000000g") == nil)
    }

    @Test func sizesAreExact() {
        #expect(Size.parse("4096") == 4096)
        #expect(Size.parse("64KiB") == 65536)
        #expect(Size.parse("1GiB") == 1 << 30)
        #expect(Size.parse("1GB") == nil)
        #expect(Size.parse("-1") == nil)
        #expect(Size.parse("99999999999999999999GiB") == nil)
        #expect(Size.format(128 << 20) == "128MiB")
        #expect(Size.format(4097) == "4097")
        #expect(Size.parse(Size.format(1536 << 10)) == 1536 << 10)
    }

    @Test func volumeIDsDoNotDependOnOrder() {
        #expect(VolumeID(name: "vol0") == VolumeID(name: "vol0"))
        #expect(VolumeID(name: "vol0") != VolumeID(name: "vol1"))
    }
}
