// Certificates for tests, by the `openssl` program.

internal import Foundation
package import LogModel

/// An authority with a folder of its own.
package final class TestAuthority: Sendable {
    private let folder: Folder

    package init() throws {
        folder = try Folder()
        try openssl(
            ["req", "-x509", "-subj", "/CN=authority", "-days", "30", "-keyout", file("ca.key"), "-out", authorities]
                + Self.newKey)
    }

    /// Its certificate.
    package var authorities: String { folder.file("ca.pem") }

    package func file(_ name: String) -> String { folder.file(name) }

    /// A certificate with these names, such as `DNS:localhost` or `URI:…`, for `days` from now.
    package func issue(_ name: String, names: [String], days: Int = 30) throws -> CertificateFiles {
        let files = CertificateFiles(
            certificate: file("\(name).pem"), key: file("\(name).key"), authorities: authorities)
        let request = file("\(name).csr"), extensions = file("\(name).ext")
        try "subjectAltName=\(names.joined(separator: ","))\n".write(
            toFile: extensions, atomically: false, encoding: .utf8)
        try openssl(["req", "-subj", "/CN=\(name)", "-keyout", files.key, "-out", request] + Self.newKey)
        try openssl([
            "x509", "-req", "-in", request, "-CA", authorities, "-CAkey", file("ca.key"), "-CAcreateserial", "-days",
            "\(days)", "-extfile", extensions, "-out", files.certificate,
        ])
        return files
    }

    private static let newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

    private func openssl(_ arguments: [String]) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = FileHandle.nullDevice
        process.standardError = output
        try process.run()
        let said = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw OpenSSLFailure(message: String(decoding: said, as: UTF8.self))
        }
    }

    private struct OpenSSLFailure: Error { let message: String }
}
