// A folder of its own for each test, on the memory file system or on a disk, removed afterwards.

import Glibc
import LogModel
import PersistentMemory
import TestSupport
import Testing

/// Where `make test-pmem` has mounted persistent memory, in its guest; elsewhere nil, and tests use the memory file system.
let pmemFolder: String? = getenv("TWINLOG_PMEM_FOLDER").map { String(cString: $0) }
let memoryFolder = pmemFolder ?? "/dev/shm"
/// The guest's processor is emulated, dozens of times slower: long tests do less there.
let inGuest = pmemFolder != nil
/// What pools are found to be in a test's folder.
let persistenceHere: Persistence = pmemFolder == nil ? .volatile : .pmem

func write(_ bytes: [UInt8], to path: String, at offset: Int = 0) throws {
    let file = try #require(fopen(path, access(path, F_OK) == 0 ? "r+" : "w"))
    defer { fclose(file) }
    try #require(fseek(file, offset, SEEK_SET) == 0)
    try #require(fwrite(bytes, 1, bytes.count, file) == bytes.count)
}

let mebibyte: UInt64 = 1 << 20

let alpha = PoolIdentity(uuid: UUID128(high: 1, low: 2), cluster: "demo", node: NodeID("alpha"))

func makePool(_ path: String, sizeBytes: UInt64 = 2 * mebibyte) throws -> Pool {
    let pool = try Pool.create(path: path, sizeBytes: sizeBytes, identity: alpha, persistence: .auto)
    try #require(pool.persistence == persistenceHere)
    return pool
}

/// Opens the pool expecting a refusal, and checks that the refusal left every byte as it was.
func refusal(of path: String, cluster: String = "demo", node: String = "alpha") throws -> PoolError {
    let before = try contents(of: path)
    let error = try #require(throws: PoolError.self) {
        try Pool.open(path: path, expecting: (cluster, NodeID(node)), persistence: .auto)
    }
    #expect(try contents(of: path) == before)
    #expect(error.path == path)
    return error
}
