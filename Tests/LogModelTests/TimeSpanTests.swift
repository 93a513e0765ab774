import LogModel
import Testing

@Test("a span of time has a unit, and is neither nothing nor a sign")
func timeSpans() {
    #expect(TimeSpan.parseMillis("100ms") == 100)
    #expect(TimeSpan.parseMillis("30s") == 30_000)
    #expect(TimeSpan.parseMillis("3600000s") == 3_600_000_000)
    for text in [
        "", "s", "ms", "30", "0s", "-1s", "+1s", "1.5s", " 1s", "1 s", "3600001ms", "99999999999999999999s", "1m",
    ] {
        #expect(TimeSpan.parseMillis(text) == nil, "\(text)")
    }
}
