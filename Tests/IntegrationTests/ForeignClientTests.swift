// Programs that others wrote against the NBD protocol, from Debian's packages, all of them in one table: what each is asked, what it
// must say, and that the export then holds what it should, byte for byte. `ClientToolTests` has them across takeovers.

import ClusterHarness
import Foundation
import LogModel
import NBDClient
import NIOCore
import Testing

struct ForeignClient: Sendable {
    var package: String
    /// Prints the version in its first line.
    var version: String
    /// For bash, in a folder of its own. $URI is the export, $PORT its server's on 127.0.0.1; $MODEL is a file with the bytes
    /// that the export must hold, and the script changes both alike. What it compares, it compares with $MODEL.
    var asks: String
    var says: [String] = []
    /// For bash: prints why the machine does not let the program work; nothing if it does.
    var unusable = ""

    static let all: [ForeignClient] = [
        ForeignClient(
            package: "qemu-utils", version: "qemu-io --version",
            asks: """
                for image in "$URI" "$MODEL"; do
                  qemu-io -d unmap -f raw \\
                    -c 'write -P 0x11 0 64k' -c 'write -P 0x22 4097 513' -c 'writev -P 0x33 1M 4k 8k 512' \\
                    -c 'write -f -P 0x44 2M 3M' -c 'write -z 3M 64k' -c 'write -z -u 4M 64k' -c 'discard 3200k 64k' \\
                    -c 'aio_write -P 0x55 6M 128k' -c 'aio_write -P 0x66 7M 1M' -c 'aio_flush' -c 'flush' "$image"
                done
                qemu-io -r -f raw -c 'read -P 0x11 0 4097' -c 'read -P 0x22 4097 513' -c 'read -P 0x11 4610 1k' \\
                  -c 'read -P 0x44 2M 1M' -c 'read -P 0 3M 64k' -c 'read -P 0 3200k 64k' -c 'read -P 0 4M 64k' \\
                  -c 'aio_read -P 0x55 6M 128k' -c 'aio_read -P 0x66 7M 1M' -c 'aio_flush' "$URI"
                """),
        ForeignClient(
            package: "qemu-utils", version: "qemu-img --version",
            asks: """
                qemu-img info -f raw "$URI"
                seq 100000 400000 | dd of=new bs=1M seek=9 status=none
                seq 1 2 30001 | dd of=new bs=1M conv=notrunc status=none
                truncate -s 64M new
                qemu-img convert -n -f raw -O raw new "$URI"
                cp new "$MODEL"
                qemu-img convert -f raw -O qcow2 "$URI" back
                qemu-img compare -f raw -F qcow2 "$MODEL" back
                qemu-img compare -f raw -F raw "$MODEL" "$URI"
                qemu-img map -f raw --output=json "$URI" >map
                /usr/bin/python3 - "$MODEL" map <<'END'
                import json, sys
                model, extents = open(sys.argv[1], "rb").read(), json.load(open(sys.argv[2]))
                assert sum(extent["length"] for extent in extents) == len(model)
                for extent in extents:
                    bytes = model[extent["start"]:extent["start"] + extent["length"]]
                    assert not extent["zero"] or not any(bytes), extent
                assert any(extent["zero"] for extent in extents), "holes are told"
                END
                """,
            says: ["virtual size: 64 MiB", "Images are identical"]),
        ForeignClient(
            package: "libnbd-bin", version: "nbdinfo --version",
            asks: """
                nbdinfo "$URI"
                [ "$(nbdinfo --size "$URI")" = 67108864 ]
                for what in connect read write flush fua trim zero fast-zero cache df multi-conn; do
                  nbdinfo --can $what "$URI" || { echo "cannot $what"; exit 1; }
                done
                for what in read-only rotational; do
                  if nbdinfo --is $what "$URI"; then echo "is $what"; exit 1; fi
                done
                nbdinfo --map --json "$URI" >map
                nbdinfo --map --totals "$URI"
                /usr/bin/python3 - "$MODEL" map <<'END'
                import json, sys
                model, extents = open(sys.argv[1], "rb").read(), json.load(open(sys.argv[2]))
                assert sum(extent["length"] for extent in extents) == len(model)
                for extent in extents:
                    bytes = model[extent["offset"]:extent["offset"] + extent["length"]]
                    assert not extent["type"] & 2 or not any(bytes), extent
                END
                nbdinfo --list "nbd://127.0.0.1:$PORT"
                if nbdinfo "nbd://127.0.0.1:$PORT/nosuch"; then echo 'found what there is not'; exit 1; fi
                """,
            says: [
                "newstyle-fixed", "structured packets", "export-size: 67108864", "block_size_minimum: 1",
                "export=\"vol0\"",
            ]),
        ForeignClient(
            package: "libnbd-bin", version: "nbdcopy --version",
            asks: """
                seq 500000 900000 | dd of=new bs=1M seek=20 status=none
                truncate -s 64M new
                nbdcopy --flush new "$URI"
                cp new "$MODEL"
                nbdcopy "$URI" back
                cmp "$MODEL" back
                nbdcopy --synchronous --request-size=65536 "$URI" slowly
                cmp "$MODEL" slowly
                seq 300000 | dd of=new bs=1M seek=40 conv=notrunc status=none
                nbdcopy --connections=4 --requests=32 --flush --allocated new "$URI"
                cp new "$MODEL"
                nbdcopy --connections=4 --requests=32 "$URI" back
                cmp "$MODEL" back
                """),
        ForeignClient(
            package: "libnbd-bin", version: "nbdfuse --version",
            asks: """
                mkdir mount
                nbdfuse -P pid mount/disk "$URI" &
                trap 'fusermount3 -u -z mount || true' EXIT
                until [ -e pid ]; do kill -0 $!; sleep 0.05; done
                [ "$(stat -c %s mount/disk)" = 67108864 ]
                cmp mount/disk "$MODEL"
                for file in mount/disk "$MODEL"; do
                  seq 77777 | dd of="$file" bs=12345 seek=100 conv=notrunc,fsync status=none
                done
                cmp mount/disk "$MODEL"
                fusermount3 -u mount
                trap - EXIT
                wait
                """,
            unusable: """
                mkdir probe
                nbdfuse -P probing probe/disk "$URI" 2>why &
                until [ -e probing ]; do
                  # What stands in the export's way is no excuse.
                  kill -0 $! 2>/dev/null || { grep -m1 '^fuse' why || true; exit; }
                  sleep 0.05
                done
                fusermount3 -u probe
                wait
                """),
        ForeignClient(
            package: "fio", version: "fio --version",
            asks: """
                fio --name=t --ioengine=nbd --uri="$URI" --rw=randwrite --bs=4k --offset=32m --size=16m --iodepth=16 \\
                  --randseed=7 --verify=pattern --verify_pattern=0x5a --do_verify=1 --verify_fatal=1 --fsync=256
                qemu-io -f raw -c 'write -P 0x5a 32M 16M' "$MODEL"
                """,
            says: ["err= 0"]),
        ForeignClient(
            package: "python3-libnbd", version: "/usr/bin/python3 -c 'import nbd; print(nbd.NBD().get_version())'",
            asks: """
                /usr/bin/python3 - "$URI" "$MODEL" <<'END'
                import errno, nbd, sys
                uri, path = sys.argv[1:]
                model = open(path, "r+b")
                def change(offset, bytes):
                    model.seek(offset)
                    model.write(bytes)
                def held(offset, length):
                    model.seek(offset)
                    return model.read(length)

                listing = nbd.NBD()
                listing.set_opt_mode(True)
                listing.connect_tcp(*uri.split("/")[2].split(":"))
                names = []
                listing.opt_list(lambda name, description: names.append(name))
                assert names == ["vol0"], names
                listing.opt_abort()

                export = nbd.NBD()
                export.set_request_structured_replies(True)
                export.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
                export.connect_uri(uri)
                assert export.get_protocol() == "newstyle-fixed" and export.get_structured_replies_negotiated()
                assert export.get_size() == 64 << 20 and not export.is_read_only()
                assert export.get_block_size(nbd.SIZE_MINIMUM) == 1

                change(9 << 20, b"nine" * 50000)
                export.pwrite(b"nine" * 50000, 9 << 20, nbd.CMD_FLAG_FUA)
                for flags, offset in (0, 0), (nbd.CMD_FLAG_NO_HOLE, 10000), (nbd.CMD_FLAG_FUA, 20000):
                    change((9 << 20) + offset, bytes(5000))
                    export.zero(5000, (9 << 20) + offset, flags)
                change((9 << 20) + 100001, bytes(20001))
                export.trim(20001, (9 << 20) + 100001, nbd.CMD_FLAG_FUA)
                try:
                    export.zero(4096, (9 << 20) + 40000, nbd.CMD_FLAG_FAST_ZERO)
                    change((9 << 20) + 40000, bytes(4096))
                except nbd.Error as error:
                    assert error.errnum == errno.ENOTSUP, error
                export.cache(1 << 20, 9 << 20)
                export.flush()

                # Chunks in any order and number; with DF a single one.
                def structured(length, offset, flags):
                    found, chunks = bytearray(length), []
                    def take(bytes, at, status, error):
                        chunks.append(status)
                        assert status in (nbd.READ_DATA, nbd.READ_HOLE), status
                        if status == nbd.READ_DATA:
                            found[at - offset:at - offset + len(bytes)] = bytes
                    export.pread_structured(length, offset, take, flags)
                    assert bytes(found) == held(offset, length), (offset, length, flags)
                    return chunks
                structured(2 << 20, 8 << 20, 0)
                assert len(structured(60000, (9 << 20) + 500, nbd.CMD_FLAG_DF)) == 1

                # What is told to be zeros is, over all of the export; one extent if one is asked for.
                def extents(length, offset, flags=0):
                    told = []
                    def take(context, at, entries, error):
                        assert context == nbd.CONTEXT_BASE_ALLOCATION
                        told.extend(zip(entries[::2], entries[1::2]))
                    export.block_status(length, offset, take, flags)
                    return told
                offset = 0
                while offset < 64 << 20:
                    for length, state in extents((64 << 20) - offset, offset):
                        if state & nbd.STATE_ZERO:
                            assert not any(held(offset, length)), (offset, length)
                        offset += length
                assert len(extents(64 << 20, 0, nbd.CMD_FLAG_REQ_ONE)) == 1

                # What libnbd itself would not send is refused, and the connection goes on.
                export.set_strict_mode(0)
                refused = [
                    (errno.EINVAL, lambda: export.pread(4096, 64 << 20)),
                    (errno.ENOSPC, lambda: export.pwrite(bytes(4096), (64 << 20) - 512)),
                    (errno.EINVAL, lambda: export.trim(4096, 64 << 20)),
                    (errno.EINVAL, lambda: export.flush(nbd.CMD_FLAG_DF)),
                ]
                for number, request in refused:
                    try:
                        request()
                        raise SystemExit("not refused: %d" % number)
                    except nbd.Error as error:
                        assert error.errnum == number, error

                # Many at once, and the answers in whatever order.
                writes = {}
                for index in range(64):
                    data = bytes([index + 1]) * 3000
                    change((16 << 20) + index * 3000, data)
                    payload = nbd.Buffer.from_bytearray(bytearray(data))
                    writes[export.aio_pwrite(payload, (16 << 20) + index * 3000)] = payload
                while writes:
                    for cookie in list(writes):
                        if export.aio_command_completed(cookie):
                            del writes[cookie]
                    if writes:
                        export.poll(-1)
                assert export.pread(64 * 3000, 16 << 20) == held(16 << 20, 64 * 3000)
                export.shutdown()
                END
                """),
        ForeignClient(
            package: "nbd-client", version: "nbd-client --version",
            asks: "nbd-client -l 127.0.0.1 \"$PORT\"", says: ["vol0"]),
    ]
}

extension Cluster {
    @Suite(.serialized) struct ForeignClientTests {
        private static let port = Result { try (LocalCluster.freePort(), LocalCluster.freePort()) }

        @Test("Clients of others: each does what it is asked, and the export holds what it must")
        func everyClient() async throws {
            var options = LocalClusterOptions.patient
            options.nbdPorts = try Self.port.get()
            try await withCluster(options) { cluster in
                let owner = try cluster.roles().owner
                let model = cluster.folder + "/model"
                try succeed("truncate", "-s", "\(options.volumeBytes)", model)
                for (number, client) in ForeignClient.all.enumerated() {
                    let folder = "\(cluster.folder)/client-\(number)"
                    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
                    try use(client, on: owner, cluster, model: model, in: folder)
                    try await compare(owner, cluster, with: model, after: client)
                }
                try cluster.drain()
                try succeed("cmp", model, cluster.mediumPath())
            }
        }

        private func use(
            _ client: ForeignClient, on owner: String, _ cluster: LocalCluster, model: String, in folder: String
        ) throws {
            guard case .tcp(let address) = cluster.nbdAddress(of: owner) else {
                throw HarnessError("\(owner) serves no TCP")
            }
            let environment = ["URI=\(cluster.nbdURI(of: owner))", "PORT=\(address.port)", "MODEL=\(model)"]
            func bash(_ script: String) throws -> Finished {
                try run(
                    ["env"] + environment + ["bash", "-euo", "pipefail", "-c", script], folder: folder, seconds: 120)
            }
            let version = try bash(client.version)
            #expect(version.code == 0, "\(client.package) is missing: \(version.output)")
            let name = "\(client.package), \(version.output.prefix { $0 != "\n" })"
            let why = try bash(client.unusable).output
            guard why.isEmpty else {
                print("skipped: \(name): \(why)")
                return
            }
            print("foreign client: \(name)")
            let result = try bash(client.asks)
            #expect(result.code == 0 && !result.output.contains("verification failed"), "\(name): \(result.output)")
            for words in client.says { #expect(result.output.contains(words), "\(name): \(result.output)") }
        }

        /// All of the export, through the client of this project.
        private func compare(
            _ owner: String, _ cluster: LocalCluster, with model: String, after client: ForeignClient
        ) async throws {
            let expected = try Data(contentsOf: URL(fileURLWithPath: model), options: .alwaysMapped)
            let connection = try await cluster.connect(to: owner)
            let step = 1 << 20
            for offset in stride(from: 0, to: expected.count, by: step) {
                let bytes = try await connection.read(offset: UInt64(offset), length: step)
                let isEqual = expected[offset..<offset + step] == Data(bytes.readableBytesView)
                #expect(isEqual, "\(client.version): the export from \(offset) on")
            }
            await connection.disconnect()
        }
    }
}
