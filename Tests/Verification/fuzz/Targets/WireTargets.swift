// What arrives from sockets and in the configuration file: every codec, on bytes that nobody vouches for.

import ClusterConfiguration
import ClusterProtocol
import Foundation
import NIOCore

@testable import AdminProtocol
@testable import NBDProtocol
@testable import RemoteMemoryTCP

// MARK: NBD

func fuzzNBD(_ bytes: UnsafeRawBufferPointer) {
    var input = FuzzInput(bytes)
    let choice: UInt8 = input.number()
    // In pieces, as a socket delivers.
    let pieceBytes = Int(input.number(UInt8.self)) + 1
    if choice & 1 == 0 { serve(input.rest, pieceBytes, choice) } else { readReplies(input.rest, choice) }
}

private func serve(_ bytes: UnsafeRawBufferPointer, _ pieceBytes: Int, _ choice: UInt8) {
    let policy: NBDServerHandshake.TLSPolicy = choice & 8 != 0 ? .allowed : choice & 16 != 0 ? .required : .off
    var handshake = NBDServerHandshake(tls: policy), input = ByteBuffer(), rest = FuzzInput(bytes), steps = 0
    do {
        while !rest.isEmpty {
            input.writeBytes(rest.take(pieceBytes))
            while !handshake.isTransmission, let step = try handshake.next(&input) {
                steps += 1
                precondition(steps <= 2 * bytes.count + 8, "each step consumes bytes")
                switch step {
                case .find: _ = handshake.answer(answer(choice))
                case .list: _ = handshake.answerList(["vol0", "vol1"])
                case .close: return
                case .startTLS: precondition(policy != .off && handshake.isSecure && !handshake.isStructured)
                case .send: break
                }
            }
            precondition(!handshake.isTransmission || policy != .required || handshake.isSecure)
            while handshake.isTransmission, let request = try NBDRequest.read(&input) {
                check(request, handshake, choice)
            }
        }
    } catch {}
}

private func answer(_ choice: UInt8) -> NBDServerHandshake.Answer {
    choice & 2 != 0
        ? .refused(.policy, "owned by beta")
        : .export(export(choice))
}

private func export(_ choice: UInt8) -> NBDExportInfo {
    NBDExportInfo(sizeBytes: 1 << 20, flags: choice & 4 != 0 ? [.hasFlags, .readOnly] : [.hasFlags, .sendFlush])
}

/// What is not refused lies inside of the export.
private func check(_ request: NBDRequest, _ handshake: NBDServerHandshake, _ choice: UInt8) {
    let transmission = NBDTransmission(
        export: export(choice), isStructured: handshake.isStructured, reportsAllocation: handshake.reportsAllocation)
    if let problem = request.problem(in: transmission) {
        precondition(problem.code != .none && !problem.text(for: request, in: transmission).isEmpty)
        return
    }
    guard request.command != .disconnect else { return }
    precondition(request.offset <= 1 << 20 && UInt64(request.length) <= (1 << 20) - request.offset)
}

private func readReplies(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    var input = ByteBuffer(bytes: bytes)
    do {
        while true {
            let before = input.readableBytes
            guard try NBDServerMessage.read(&input, simpleReadBytes: { _ in Int(choice >> 1) * 8 }) != nil else {
                return
            }
            precondition(input.readableBytes < before, "each message consumes bytes")
        }
    } catch {}
}

// MARK: Rails

func fuzzFrame(_ bytes: UnsafeRawBufferPointer) {
    var input = FuzzInput(bytes)
    let isSealed = input.number(UInt8.self) & 1 != 0
    if let greeting = try? Greeting(input.rest) {
        precondition((try? Greeting(greeting.encoded)) == greeting, "what is understood can be said again")
    }
    guard input.rest.count >= FrameHeader.byteCount else { return }
    var buffer = ByteBuffer(bytes: input.rest)
    if isSealed {
        let checksum = frameChecksum(UnsafeRawBufferPointer(rebasing: input.rest[..<(FrameHeader.byteCount - 4)]))
        buffer.setInteger(checksum, at: FrameHeader.byteCount - 4, endianness: .little)
    }
    guard let header = try? FrameHeader(peeking: buffer) else { return }
    precondition(header.payloadBytes <= 1 << 20 && header.readBytes <= 1 << 20)
    var again = ByteBuffer()
    header.write(to: &again)
    precondition((try? FrameHeader(peeking: again)) == header)
}

func fuzzPeer(_ bytes: UnsafeRawBufferPointer) {
    guard let message = try? PeerMessage(Array(bytes)) else { return }
    precondition((try? PeerMessage(message.encoded)) == message)
}

// MARK: Text

func fuzzAdmin(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count <= AdminRequest.maximumBytes else { return }
    if let request = try? AdminCodec.decode(AdminRequest.self, from: bytes) {
        precondition((try? AdminCodec.decode(AdminRequest.self, from: AdminCodec.line(request))) == request)
    }
    if let response = try? AdminCodec.decode(AdminResponse.self, from: bytes) {
        // A time that is no number does not decode, so what decodes can be told again.
        precondition((try? AdminCodec.decode(AdminResponse.self, from: AdminCodec.line(response))) == response)
    }
}

func fuzzConfiguration(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count <= 64 << 10, let text = String(validating: bytes, as: UTF8.self) else { return }
    do throws(ConfigurationError) {
        let configuration = try ClusterConfiguration.parse(text, file: "fuzz.yaml", baseDirectory: "/nowhere")
        for group in configuration.groups {
            precondition(configuration.node(group.home) != nil && configuration.node(group.mirror) != nil)
        }
    } catch {
        precondition(error.file == "fuzz.yaml" && !error.reason.isEmpty)
    }
}
