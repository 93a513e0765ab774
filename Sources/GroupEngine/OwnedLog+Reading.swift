// What the log has of a range that is read: checked before it is answered with (S26), and put over what the medium has (S23).

internal import LogModel
internal import NIOCore
internal import PersistentMemory
internal import WriteLog

enum OverlayCheck {
    case sound
    /// There is more to check.
    case unfinished
    case damaged(DamagedRange)
}

extension OwnedLog {
    /// One record of the greatest size: a fraction of a millisecond of the loop.
    private static let checkedBytesPerTurn: UInt64 = 1 << 20

    /// Checks the records of which the overlay has bytes of `range`, each once: later rot is found by the scrub and the destager. Failed
    /// memory is not looked at; whoever answers asks for that.
    func checkOverlay(_ volume: VolumeID, _ range: ByteRange) -> OverlayCheck {
        guard log.region.memoryFault == nil else { return .sound }
        var checkedBytes: UInt64 = 0
        for record in overlay.unchecked(volume, range) {
            guard checkedBytes < Self.checkedBytesPerTurn else { return .unfinished }
            switch log.check(at: record) {
            case .damaged(let end): return .damaged(DamagedRange(from: record, to: end))
            case .sound(let end):
                overlay.didCheck(record)
                checkedBytes += end - record
            }
        }
        return .sound
    }

    /// Puts what the log has of `range` over what `buffer` holds of it.
    func copyOverlay(_ volume: VolumeID, _ range: ByteRange, into buffer: inout ByteBuffer) {
        let base = buffer.readerIndex
        overlay.forEach(volume, range) { part, source in
            let place = base + Int(part.offset - range.offset)
            guard let payload = source.payload else {
                buffer.setRepeatingByte(0, count: Int(part.length), at: place)
                return
            }
            var at = place
            log.withBytes(from: payload, to: payload + part.length) { bytes in
                at += buffer.setBytes(bytes, at: at)
            }
        }
    }
}
