// What all clients together may make this node keep: payload of writes from its first byte to the answer, and bytes of reads
// from the request until the client has taken them (S28). Half of the budget is divided: every connection has its share
// whatever others do, so small requests never wait for somebody else's large ones. The other half is lent, first come, first
// served, for what goes beyond a share.

internal import NIOCore
internal import StorageNode
internal import Synchronization

/// Thread-safe: connections live on several event loops.
final class ClientMemory: Sendable {
    /// The most that is lent, whatever the budget: a loop frees a client's buffers when it leaves, some 5 ms each 32 MiB, and all that is
    /// lent at once is freed in less than a heartbeat's interval.
    private static let maximumLentBytes = 128 << 20
    /// A connection has its share in requests that are carried out, in replies that are not sent, and in replies that are handed
    /// to the channel and counted no more.
    private static let sharesOfConnection = 3

    /// Somebody who waits for a loan.
    private struct Wait {
        let id: ObjectIdentifier
        let account: Placed<ClientAccount>
        var bytes: Int
    }

    private struct Lending {
        var bytes = 0
        var waiting = CircularBuffer<Wait>()
    }

    /// What a connection holds without asking anybody.
    let shareBytes: Int
    let lendableBytes: Int
    private let lending = Mutex(Lending())

    init(budgetBytes: Int, connections: Int) {
        shareBytes = budgetBytes / 2 / max(1, connections) / Self.sharesOfConnection
        lendableBytes = min(budgetBytes / 2, Self.maximumLentBytes)
    }

    var lentBytes: Int { lending.withLock { $0.bytes } }
    /// Somebody waits for what others hold.
    var isContended: Bool { lending.withLock { !$0.waiting.isEmpty } }

    /// One request may be larger than all that can be lent: it is let in alone.
    private func hasRoom(for bytes: Int, beside lent: Int) -> Bool { lent + bytes <= lendableBytes || lent == 0 }

    /// False if the account waits for it now.
    fileprivate func lend(_ bytes: Int, to id: ObjectIdentifier, _ account: Placed<ClientAccount>) -> Bool {
        lending.withLock { lending in
            guard lending.waiting.isEmpty, hasRoom(for: bytes, beside: lending.bytes) else {
                lending.waiting.append(Wait(id: id, account: account, bytes: bytes))
                return false
            }
            lending.bytes += bytes
            return true
        }
    }

    /// `waiting`: an account that needs no more than so many bytes for what it waits for.
    fileprivate func takeBack(_ bytes: Int, waiting: (id: ObjectIdentifier, bytes: Int)? = nil) {
        let granted = lending.withLock { lending in
            lending.bytes -= bytes
            if let waiting, let index = lending.waiting.firstIndex(where: { $0.id == waiting.id }) {
                lending.waiting[index].bytes = waiting.bytes
            }
            return grants(&lending)
        }
        for wait in granted { wait.account.tell { $0.granted(wait.bytes) } }
    }

    private func grants(_ lending: inout Lending) -> [Wait] {
        var granted: [Wait] = []
        while let first = lending.waiting.first, hasRoom(for: first.bytes, beside: lending.bytes) {
            lending.waiting.removeFirst()
            lending.bytes += first.bytes
            granted.append(first)
        }
        return granted
    }

    fileprivate func leave(_ id: ObjectIdentifier, borrowed bytes: Int) {
        lending.withLock { $0.waiting.removeAll { $0.id == id } }
        takeBack(bytes)
    }
}

/// One connection's part of ``ClientMemory``. Bound to the connection's event loop.
final class ClientAccount {
    private let memory: ClientMemory
    private let eventLoop: any EventLoop
    private(set) var heldBytes = 0
    private var wantedBytes = 0
    private var isClosed = false
    /// Called when what ``take(_:)`` had to wait for is held, perhaps from inside of another connection's work.
    var onGranted: (() -> Void)?

    init(_ memory: ClientMemory, on eventLoop: any EventLoop) {
        self.memory = memory
        self.eventLoop = eventLoop
    }

    var borrowedBytes: Int { max(0, heldBytes - memory.shareBytes) }
    var isWaiting: Bool { wantedBytes > 0 }

    private var wantedLoanBytes: Int { max(0, heldBytes + wantedBytes - memory.shareBytes) - borrowedBytes }

    /// Whether `bytes` are held now. If not, they are as soon as ``onGranted`` is called; nothing else may be taken before.
    func take(_ bytes: Int) -> Bool {
        let held = heldBytes + bytes
        // Who wants nothing waits for nothing, whatever it has borrowed.
        guard bytes > 0, held > memory.shareBytes else {
            heldBytes = held
            return true
        }
        precondition(!isWaiting, "a connection takes one request after another")
        wantedBytes = bytes
        guard memory.lend(wantedLoanBytes, to: ObjectIdentifier(self), Placed(here: self, on: eventLoop)) else {
            return false
        }
        heldBytes = held
        wantedBytes = 0
        return true
    }

    func giveBack(_ bytes: Int) {
        let borrowed = borrowedBytes
        heldBytes -= bytes
        let returned = borrowed - borrowedBytes
        if isWaiting {
            memory.takeBack(returned, waiting: (ObjectIdentifier(self), wantedLoanBytes))
        } else if returned > 0 {
            memory.takeBack(returned)
        }
    }

    /// The connection has ended.
    func close() {
        guard !isClosed else { return }
        isClosed = true
        onGranted = nil
        wantedBytes = 0
        memory.leave(ObjectIdentifier(self), borrowed: borrowedBytes)
        heldBytes = 0
    }

    /// `bytes` were lent, somewhat ago: what is not needed any more goes back.
    fileprivate func granted(_ bytes: Int) {
        guard !isClosed else { return memory.takeBack(bytes) }
        let borrowed = borrowedBytes
        heldBytes += wantedBytes
        wantedBytes = 0
        let unneeded = bytes - (borrowedBytes - borrowed)
        if unneeded > 0 { memory.takeBack(unneeded) }
        onGranted?()
    }
}
