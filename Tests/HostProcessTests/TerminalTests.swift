// What programs print: lines for terminals of any width, and errors that scripts can read.

import Foundation
import Testing

@testable import HostProcess

struct TerminalTests {
    @Test("lines are no wider than the terminal, and lose nothing", arguments: [1, 2, 3, 7, 12, 40, 80])
    func wrap(columns: Int) {
        let text = "g0: mirrored  the owner's log holds  everything /a/very/long/path/that/has/no/place/to/break/at.img"
        let lines = Terminal.wrap(text, columns: columns, indent: 4)
        #expect(lines.allSatisfy { $0.count <= columns }, "\(lines)")
        #expect(lines.joined().filter { $0 != " " } == text.filter { $0 != " " })
    }

    @Test("a line that fits stays as it is; one that does not breaks between words and is indented below")
    func indent() {
        #expect(Terminal.wrap("one two  three", columns: 14) == ["one two  three"])
        #expect(Terminal.wrap("one two three", columns: 9, indent: 2) == ["one two", "  three"])
        #expect(Terminal.wrap("", columns: 9) == [""])
    }

    @Test("an error is one line of JSON, with every key")
    func report() throws {
        let line = ErrorReport(.noAnswer, "a \"quoted\"\nmessage \u{1B}").line
        #expect(!line.contains("\n"))
        let document = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: [String: Any]])
        let error = try #require(document["error"])
        #expect(error["code"] as? String == "no-answer" && error["next"] is NSNull)
        #expect(error["message"] as? String == "a \"quoted\"\nmessage \u{1B}")
    }

    @Test("the words for failures are what scripts know, with the exit codes of the table")
    func codes() {
        let exits = Dictionary(uniqueKeysWithValues: ErrorCode.allCases.map { ($0.rawValue, $0.exitCode) })
        #expect(
            exits == [
                "usage": 2, "configuration": 2, "output": 4, "no-answer": 1, "permission-denied": 1, "timeout": 1,
                "refused": 1, "no-owner": 1, "in-use": 1, "unreadable": 1, "corrupt": 1, "interrupted": 130,
                "failed": 1,
            ])
        let table = ProgramExit.table(with: [(3, "three")])
        #expect(
            table.split(separator: "\n").dropFirst().map { $0.split(separator: " ")[0] } == ["0", "1", "2", "3", "4"])
    }
}
