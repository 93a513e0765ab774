import LogModel
import Testing

@Suite struct AddressTests {
    @Test(arguments: [
        ("127.0.0.1:7101", "127.0.0.1", 7101), ("localhost:0", "localhost", 0), ("[::1]:65535", "::1", 65535),
        ("a.example.org:10809", "a.example.org", 10809),
    ])
    func comesOutAsItWentIn(text: String, host: String, port: Int) throws {
        let address = try #require(TCPAddress(text))
        #expect(address == TCPAddress(host: host, port: port) && address.description == text)
        #expect(Endpoint(text) == .tcp(address))
    }

    @Test(arguments: [
        "", ":", ":7", "host", "host:", "host:-1", "host:+1", "host:65536", "host:x", "host:７", "[]:7", "::1:7",
        "[::1]",
    ])
    func isNoAddress(text: String) {
        #expect(TCPAddress(text) == nil && Endpoint(text) == nil)
    }

    @Test func aSocketIsAPath() {
        #expect(Endpoint("unix:/run/a:1") == .unix(path: "/run/a:1"))
        #expect(Endpoint("unix:/run/a:1")?.description == "unix:/run/a:1")
    }
}
