// Opening a pool for a look, and saying what to do when that is not possible.

import Glibc
import LogModel
import PersistentMemory

/// Opens the pool beside other readers, never beside a node; not a byte of it changes. With `writing` exclusively.
func openPool(_ path: String, writing: Bool = false) throws(Failure) -> Pool {
    do throws(PoolError) {
        return try Pool.open(path: path, expecting: nil, persistence: .auto, readOnly: !writing)
    } catch {
        throw Failure(error)
    }
}

extension Failure {
    init(_ error: PoolError) {
        switch error.code {
        case .inUse:
            let holder = processHolding(error.path).map { ": process \($0) has it open" } ?? ""
            self.init(
                .inUse, "\(error.path): in use\(holder); stop the node first, this tool looks only into pools that rest"
            )
        case .newerFormat: self.init(.unreadable, "\(error); use the twinlog-recover of the version that wrote it")
        case .truncated, .corrupt:
            self.init(.unreadable, "\(error); leave it as it is and use the pool of the group's other node")
        default: self.init(.unreadable, error.description)
        }
    }
}

/// A process that has the file open, as `PID (name)`; `nil` if none can be seen. Only for a message: it decides nothing.
func processHolding(_ path: String) -> String? {
    var wanted = stat()
    guard stat(path, &wanted) == 0 else { return nil }
    for pid in entries(of: "/proc") where pid.allSatisfy(\.isNumber) && pid != "\(getpid())" {
        for descriptor in entries(of: "/proc/\(pid)/fd") {
            var found = stat()
            guard stat("/proc/\(pid)/fd/\(descriptor)", &found) == 0 else { continue }
            if found.st_ino == wanted.st_ino && found.st_dev == wanted.st_dev { return "\(pid) (\(name(of: pid)))" }
        }
    }
    return nil
}

private func name(of pid: String) -> String {
    guard let file = fopen("/proc/\(pid)/comm", "r") else { return "?" }
    defer { fclose(file) }
    var text = [CChar](repeating: 0, count: 64)
    guard fgets(&text, Int32(text.count), file) != nil else { return "?" }
    return String(decoding: text.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

private func entries(of folder: String) -> [String] {
    guard let stream = opendir(folder) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
            pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if !name.hasPrefix(".") { names.append(name) }
    }
    return names
}
