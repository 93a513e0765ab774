import LogModel
import Testing

@testable import GroupEngine
@testable import StorageNode

struct OverlayTests {
    private let vol0 = VolumeID(name: "vol0")
    private let vol1 = VolumeID(name: "vol1")
    private let all = ByteRange(offset: 0, length: 1 << 40)

    private func records(of overlay: Overlay, _ volume: VolumeID) -> [LSN] {
        var records: [LSN] = []
        overlay.forEach(volume, all) { _, source in records.append(source.record) }
        return records
    }

    private func entry(_ volume: VolumeID, _ offset: UInt64, _ length: UInt64, at lsn: UInt64) -> OverlaidRange {
        OverlaidRange(
            volume: volume, range: ByteRange(offset: offset, length: length),
            source: LogSource(record: LSN(lsn), payload: nil))
    }

    @Test("S23: what is destaged is forgotten on every volume, and nothing newer, wherever it lies")
    func forgets() {
        var overlay = Overlay()
        overlay.insert(entry(vol0, 0, 4 << 30, at: 64))
        overlay.insert(entry(vol1, 0, 4096, at: 128))
        overlay.insert(entry(vol0, 1 << 30, 4096, at: 192))
        overlay.insert(entry(vol1, 8192, 4096, at: 256))
        #expect(records(of: overlay, vol0) == [LSN(64), LSN(192), LSN(64)])
        overlay.forget(below: LSN(192))
        #expect(records(of: overlay, vol0) == [LSN(192)] && records(of: overlay, vol1) == [LSN(256)])
        // A newer write may take the place of one that is forgotten.
        overlay.insert(entry(vol0, 0, 4096, at: 320))
        overlay.forget(below: LSN(192))
        #expect(records(of: overlay, vol0) == [LSN(320), LSN(192)])
        overlay.forget(below: LSN(384))
        #expect(records(of: overlay, vol0) == [] && records(of: overlay, vol1) == [])
    }
}
