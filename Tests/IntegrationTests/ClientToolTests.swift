// Clients that others wrote, from Debian's packages, by what a cluster does beneath them: across takeovers, on both nodes, with the data
// in the log and on the medium. What each can ask of one export is in `ForeignClientTests`.

import AdminProtocol
import ClusterHarness
import Foundation
import LogModel
import Testing

extension Cluster {
    @Suite(.serialized) struct ClientToolTests {
        private static let tcp: LocalClusterOptions = {
            var options = LocalClusterOptions.patient
            do { options.nbdPorts = (try LocalCluster.freePort(), try LocalCluster.freePort()) } catch {}
            return options
        }()

        @Test(arguments: [false, true]) func nbdinfoSeesWhatIsOffered(_ overTCP: Bool) async throws {
            try await withCluster(overTCP ? Self.tcp : .patient) { cluster in
                let (owner, mirror) = try cluster.roles()
                let info = try succeed("nbdinfo", cluster.nbdURI(of: owner))
                for line in [
                    "export-size: \(64 << 20)", "can_flush: true", "can_fua: true", "can_trim: true", "can_zero: true",
                    "can_multi_conn: true", "is_read_only: false", "block_size_minimum: 1",
                ] {
                    #expect(info.contains(line), "\(line) in\n\(info)")
                }
                let list = try succeed("nbdinfo", "--list", cluster.nbdURI(of: owner, volume: ""))
                #expect(list.contains("vol0"), "\(list)")
                let elsewhere = try run("qemu-img", "info", cluster.nbdURI(of: mirror))  // nbdinfo hides the reason
                #expect(elsewhere.code != 0 && elsewhere.output.contains(owner), "names the owner: \(elsewhere.output)")
                let unknown = try run("nbdinfo", cluster.nbdURI(of: owner, volume: "nosuch"))
                #expect(unknown.code != 0, "\(unknown.output)")
            }
        }

        @Test("base:allocation: what is told to be zeros reads as zeros, in the log and on the medium")
        func qemuImgMapsAnExport() async throws {
            try await withCluster { cluster in
                let uri = cluster.nbdURI(of: try cluster.roles().owner)
                try succeed(
                    "qemu-io", "-f", "raw", "-c", "write -P 0x11 1M 1M", "-c", "write -P 0x22 8M 64k",
                    "-c", "discard 1280k 256k", uri)
                func expectMap(_ place: Comment) throws {
                    let map = try succeed("qemu-img", "map", "-f", "raw", "--output=json", uri)
                    struct Extent: Decodable { var start, length: Int; var zero: Bool }
                    let extents = try JSONDecoder().decode([Extent].self, from: Data(map.utf8))
                    #expect(extents.reduce(0) { $0 + $1.length } == 64 << 20, place)
                    let data = extents.filter { !$0.zero }.map { $0.start..<$0.start + $0.length }
                    for written in [1 << 20..<1280 << 10, 1536 << 10..<2 << 20, 8 << 20..<8 << 20 + 64 << 10] {
                        #expect(
                            data.contains { $0.contains(written.lowerBound) && $0.upperBound >= written.upperBound },
                            place)
                    }
                    #expect(
                        !data.contains { $0.overlaps(1280 << 10..<1536 << 10) || $0.overlaps(16 << 20..<64 << 20) },
                        place)
                }
                try expectMap("in the log")
                try cluster.drain()
                try expectMap("on the medium")
                try succeed("nbdinfo", "--map", uri)
            }
        }

        @Test func nbdcopyCopiesThereAndBackAcrossATakeover() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let image = cluster.folder + "/image", back = cluster.folder + "/back"
                try succeed("bash", "-c", "head -c 67108864 /dev/urandom > \(image)")
                try succeed("nbdcopy", "--flush", image, cluster.nbdURI(of: owner))
                cluster.kill(owner)
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                try succeed("nbdcopy", cluster.nbdURI(of: mirror), back)
                try succeed("cmp", image, back)
            }
        }

        @Test func fioVerifiesAcrossATakeover() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                func fio(_ node: String, _ extra: String...) throws {
                    let job =
                        [
                            "fio", "--name=t", "--ioengine=nbd", "--uri=\(cluster.nbdURI(of: node))", "--rw=randwrite",
                            "--bsrange=512-64k", "--bs_unaligned=1", "--size=32m", "--iodepth=16", "--randseed=7",
                            "--verify=crc32c", "--verify_fatal=1", "--output=\(cluster.folder)/fio.json",
                            "--output-format=json",
                        ] + extra
                    let shell = job.map { "'\($0)'" }.joined(separator: " ")
                    let result = try run("bash", "-c", shell, folder: cluster.folder, seconds: 120)
                    #expect(result.code == 0, "\(result.output)")
                }
                try fio(owner, "--do_verify=0")
                cluster.kill(owner)
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                try fio(mirror, "--verify_only")
                try cluster.start(owner)
                try await cluster.waitUntilMirrored()
                try fio(mirror)
            }
        }

        static let whyNoFileSystem: Comment? = {
            let probe = """
                for tool in nbdfuse losetup mkfs.ext4 e2fsck fusermount3; do
                  command -v $tool >/dev/null || { echo "no $tool"; exit; }
                done
                unshare -m true 2>/dev/null || { echo "no right to mount"; exit; }
                [ -c /dev/fuse ] || { echo "no /dev/fuse"; exit; }
                losetup --find >/dev/null 2>&1 || echo "no loop device"
                """
            do {
                let why = try run("bash", "-c", probe).output.trimmingCharacters(in: .whitespacesAndNewlines)
                return why.isEmpty ? nil : "\(why): a file system cannot be mounted from an export here"
            } catch {
                return "\(error)"
            }
        }()

        @Test(.enabled(if: whyNoFileSystem == nil, whyNoFileSystem ?? ""))
        func filesThatWereSyncedSurviveATakeover() async throws {
            try await withCluster { cluster in
                let (owner, mirror) = try cluster.roles()
                let mount = Mount(cluster)
                defer { mount.end() }
                try await mount.attach(owner)
                try succeed("mkfs.ext4", "-q", "-F", mount.device)
                try mount.mount()
                try succeed(
                    "bash", "-c",
                    """
                    cd \(mount.root) && mkdir d && for i in $(seq 40); do
                      head -c $((i * 7001)) /dev/urandom > d/file-$i && sync d/file-$i
                    done && sync d && sha256sum d/* > \(cluster.folder)/sums
                    """)
                cluster.kill(owner)
                mount.end()
                try await cluster.wait("taken over") { cluster.group(at: mirror)?.isOwner == true }
                try await mount.attach(mirror)
                try mount.mount()
                try succeed("bash", "-c", "cd \(mount.root) && sha256sum --quiet -c \(cluster.folder)/sums")
                try succeed("umount", mount.root)
                try succeed("e2fsck", "-f", "-n", mount.device)
            }
        }
    }
}

/// An export as a file (nbdfuse), as a block device (loop), as a file system.
private final class Mount {
    private let cluster: LocalCluster
    private var number = 0
    private var fuse: String { "\(cluster.folder)/fuse\(number)" }
    private(set) var device = ""
    let root: String

    init(_ cluster: LocalCluster) {
        self.cluster = cluster
        root = cluster.folder + "/root"
    }

    func attach(_ node: String) async throws {
        number += 1
        try succeed("mkdir", "-p", fuse, root)
        // It stays in the foreground, and ends when it is unmounted. When its server dies with requests in flight it may
        // end on an assertion of its own (libnbd 1.14); by then only the survivor's answers count.
        let nbdfuse = Process()
        nbdfuse.executableURL = URL(fileURLWithPath: "/usr/bin/nbdfuse")
        nbdfuse.arguments = ["-P", fuse + ".pid", fuse + "/disk", cluster.nbdURI(of: node)]
        nbdfuse.standardInput = FileHandle.nullDevice
        try nbdfuse.run()
        try await cluster.wait("attached by nbdfuse") { FileManager.default.fileExists(atPath: fuse + ".pid") }
        device = try succeed("losetup", "--show", "--direct-io=on", "-f", fuse + "/disk")
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    func mount() throws { try succeed("mount", device, root) }

    /// Takes everything down, whatever state it is in.
    func end() {
        guard number > 0, !device.isEmpty else { return }
        do {
            try run("bash", "-c", "umount -l \(root); losetup -d \(device); fusermount3 -u -z \(fuse)")
        } catch {
            print("\(fuse): \(error)")
        }
        device = ""
    }
}
