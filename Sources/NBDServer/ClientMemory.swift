// What all clients together may make this node keep: payload of writes from its first byte to the answer, and bytes of reads
// from the request until the client has taken them (S28). Half of the budget is divided: every connection has its share
// whatever others do, so small requests never wait for somebody else's large ones. The other half is lent, first come, first
// served, for what goes beyond a share.

internal import NIOCore

final class ClientMemory {
    /// The most that is lent, whatever the budget: the loop frees a client's buffers when it leaves, some 5 ms each 32 MiB, and all that is
    /// lent at once is freed in less than a heartbeat's interval.
    private static let maximumLentBytes = 128 << 20
    /// A connection has its share in requests that are carried out, in replies that are not sent, and in replies that are handed
    /// to the channel and counted no more.
    private static let sharesOfConnection = 3

    /// What a connection holds without asking anybody.
    let shareBytes: Int
    let lendableBytes: Int
    private(set) var lentBytes = 0
    private var waiting = CircularBuffer<ClientAccount>()

    init(budgetBytes: Int, connections: Int) {
        shareBytes = budgetBytes / 2 / max(1, connections) / Self.sharesOfConnection
        lendableBytes = min(budgetBytes / 2, Self.maximumLentBytes)
    }

    /// Somebody waits for what others hold.
    var isContended: Bool { !waiting.isEmpty }

    /// One request may be larger than all that can be lent: it is let in alone.
    private func hasRoom(for bytes: Int) -> Bool { lentBytes + bytes <= lendableBytes || lentBytes == 0 }

    fileprivate func lend(_ bytes: Int, to account: ClientAccount) -> Bool {
        guard waiting.isEmpty, hasRoom(for: bytes) else {
            waiting.append(account)
            return false
        }
        lentBytes += bytes
        return true
    }

    fileprivate func takeBack(_ bytes: Int) {
        lentBytes -= bytes
        while let first = waiting.first, hasRoom(for: first.wantedLoanBytes) {
            waiting.removeFirst()
            lentBytes += first.wantedLoanBytes
            first.grant()
        }
    }

    fileprivate func leave(_ account: ClientAccount) {
        waiting.removeAll { $0 === account }
        takeBack(account.borrowedBytes)
    }
}

/// One connection's part of ``ClientMemory``.
final class ClientAccount {
    private let memory: ClientMemory
    private(set) var heldBytes = 0
    private var wantedBytes = 0
    /// Called when what ``take(_:)`` had to wait for is held, from inside of another connection's work.
    var onGranted: (() -> Void)?

    init(_ memory: ClientMemory) { self.memory = memory }

    var borrowedBytes: Int { max(0, heldBytes - memory.shareBytes) }
    var isWaiting: Bool { wantedBytes > 0 }

    fileprivate var wantedLoanBytes: Int { max(0, heldBytes + wantedBytes - memory.shareBytes) - borrowedBytes }

    /// Whether `bytes` are held now. If not, they are as soon as ``onGranted`` is called; nothing else may be taken before.
    func take(_ bytes: Int) -> Bool {
        let held = heldBytes + bytes
        guard held > memory.shareBytes else {
            heldBytes = held
            return true
        }
        precondition(!isWaiting, "a connection takes one request after another")
        wantedBytes = bytes
        guard memory.lend(wantedLoanBytes, to: self) else { return false }
        heldBytes = held
        wantedBytes = 0
        return true
    }

    func giveBack(_ bytes: Int) {
        let borrowed = borrowedBytes
        heldBytes -= bytes
        let returned = borrowed - borrowedBytes
        if returned > 0 || isWaiting { memory.takeBack(returned) }
    }

    /// The connection has ended.
    func close() {
        onGranted = nil
        wantedBytes = 0
        memory.leave(self)
        heldBytes = 0
    }

    fileprivate func grant() {
        heldBytes += wantedBytes
        wantedBytes = 0
        onGranted?()
    }
}
