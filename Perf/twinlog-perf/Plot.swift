// Lines over two axes, as a picture in SVG that takes its colours from the page around it.

import Foundation

struct Plot {
    struct Line {
        var name: String
        /// By which all plots of a page draw it alike.
        var colour: Int
        /// Each is drawn by itself: nothing was measured between them.
        var stretches: [[(x: Double, y: Double)]]
        var points: [(x: Double, y: Double)] { stretches.flatMap(\.self) }
    }

    struct Tick {
        var place: Double
        var label: String
    }

    var title: String
    var xTitle: String
    var yTitle: String
    var lines: [Line]
    var xTicks: [Tick]
    var isLogarithmic = false
    /// Marks each point and says its value: for lines of few points.
    var hasMarks = true
    /// Of a value, for people.
    var format: (Double) -> String

    private static let width = 470.0, height = 250.0
    private static let left = 62.0, right = 446.0, top = 30.0, bottom = 208.0

    /// `nil` if there is nothing to draw.
    var svg: String? {
        let values = lines.flatMap(\.points).map(\.y).filter { $0 > 0 }
        guard let least = values.min(), let most = values.max(), let first = xTicks.first, let last = xTicks.last
        else { return nil }
        let yTicks = isLogarithmic ? Self.decades(least, most) : Self.steps(most)
        let yRange = scaled(yTicks.first ?? 0)...scaled(yTicks.last ?? most)
        func x(_ value: Double) -> Double {
            let width = last.place - first.place
            return Self.left + (width > 0 ? (value - first.place) / width : 0.5) * (Self.right - Self.left)
        }
        func y(_ value: Double) -> Double {
            let part = (scaled(value) - yRange.lowerBound) / (yRange.upperBound - yRange.lowerBound)
            return Self.bottom - part * (Self.bottom - Self.top)
        }
        return """
            <svg viewBox="0 0 \(Int(Self.width)) \(Int(Self.height))" role="img">
            <title>\(title.escapedForXML)</title>
            <text class="heading" x="0" y="14">\(title.escapedForXML)</text>
            \(yTicks.map { grid($0, y($0)) }.joined(separator: "\n"))
            \(xTicks.map { below($0, x($0.place)) }.joined(separator: "\n"))
            <text class="axis" x="\(Self.number((Self.left + Self.right) / 2))" y="\(Int(Self.height) - 6)" text-anchor="middle">\(xTitle.escapedForXML)</text>
            <text class="axis" transform="translate(11 \(Self.number((Self.top + Self.bottom) / 2))) rotate(-90)" text-anchor="middle">\(yTitle.escapedForXML)</text>
            \(lines.map { drawn($0, x, y) }.joined(separator: "\n"))
            </svg>
            """
    }

    private func scaled(_ value: Double) -> Double { isLogarithmic ? log10(value) : value }

    private func grid(_ value: Double, _ y: Double) -> String {
        """
        <path class="grid" d="M\(Self.number(Self.left)) \(Self.number(y))H\(Self.number(Self.right))"/>\
        <text class="tick" x="\(Self.number(Self.left - 6))" y="\(Self.number(y + 4))" text-anchor="end">\(format(value))</text>
        """
    }

    private func below(_ tick: Tick, _ x: Double) -> String {
        """
        <path class="tickmark" d="M\(Self.number(x)) \(Self.number(Self.bottom))v4"/>\
        <text class="tick" x="\(Self.number(x))" y="\(Self.number(Self.bottom + 17))" text-anchor="middle">\(tick.label.escapedForXML)</text>
        """
    }

    private func drawn(_ line: Line, _ x: (Double) -> Double, _ y: (Double) -> Double) -> String {
        let path = line.stretches.map { stretch in
            stretch.enumerated().map { index, point in
                (index == 0 ? "M" : "L") + Self.number(x(point.x)) + " " + Self.number(y(point.y))
            }.joined()
        }.joined()
        let marks = line.points.map { point in
            """
            <circle class="mark" cx="\(Self.number(x(point.x)))" cy="\(Self.number(y(point.y)))" r="3.5">\
            <title>\(line.name.escapedForXML): \(format(point.y))</title></circle>
            """
        }
        return """
            <g class="line c\(line.colour)"><path d="\(path)"><title>\(line.name.escapedForXML)</title></path>\
            \(hasMarks ? marks.joined() : "")</g>
            """
    }

    private static func number(_ value: Double) -> String { String(format: "%.1f", value) }

    /// From zero to at least `most`, in four to eight steps of 1, 2 or 5 times a power of ten.
    static func steps(_ most: Double) -> [Double] {
        let power = pow(10, floor(log10(most / 4)))
        let step = [1, 2, 5, 10].map { $0 * power }.first { $0 * 6 >= most } ?? most
        return Array(stride(from: 0, through: (most / step).rounded(.up) * step + step / 2, by: step))
    }

    /// Powers of ten around the values; where those are within few, 2 and 5 times them too.
    private static func decades(_ least: Double, _ most: Double) -> [Double] {
        let exponents = Int(floor(log10(least)))...Int(ceil(log10(most)))
        let factors: [Double] = exponents.count <= 4 ? [1, 2, 5] : [1]
        let all = exponents.flatMap { exponent in factors.map { $0 * pow(10, Double(exponent)) } }
        let first = all.lastIndex { $0 <= least * 1.0001 } ?? 0
        let last = all.firstIndex { $0 >= most * 0.9999 } ?? all.count - 1
        return Array(all[first...max(last, min(first + 1, all.count - 1))])
    }
}

extension String {
    /// For a text or an attribute of XML.
    var escapedForXML: String {
        replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
            .replacing("\"", with: "&quot;")
    }
}
