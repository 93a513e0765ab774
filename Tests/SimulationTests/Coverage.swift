/// How often things happened that the simulator is there for.
struct Coverage: Sendable {
    var acknowledgedWrites = 0, reads = 0, readsAtOnce = 0, flushes = 0, readsRefused = 0, publications = 0
    var takeovers = 0, claimsAnew = 0, claimsFromEnded = 0, refusals = 0, fences = 0, takeoversWaiting = 0,
        staleRefusals = 0,
        staleWaits = 0
    var degrades = 0, catchUps = 0, farBehind = 0, leasesLost = 0, leasesSecured = 0, servedByGrant = 0, servedAlone = 0
    var tailsInDoubt = 0, tailsLeftToPartner = 0, tailsDecidedAlone = 0, giftsTakenBack = 0
    var drains = 0, handovers = 0, handoversAborted = 0, givenAway = 0
    var leftForMedium = 0, keptThoughMediumFails = 0, releasesHung = 0, givenAwayUnreleased = 0
    var kills = 0, lossesOfPower = 0, killsOfClaimers = 0, killsInMediumCalls = 0, pauses = 0, pausesOfBoth = 0,
        clockJumps = 0
    var mirrorsStuck = 0, backPressure = 0, destageFailures = 0, unknownOutcomes = 0, lateSwaps = 0, slowClaims = 0,
        barriers = 0
    var tornWrites = 0, lossesOfMediaPower = 0, archives = 0, claimsGivenBack = 0, imagesCompared = 0
    var linesRotten = 0, sessionsMoved = 0, recordsDamaged = 0, recordsHealed = 0, logsHealed = 0, poolsLost = 0,
        poolsRolledBack = 0,
        amnesias = 0, memoriesFailed = 0
    var severalGroups = 0, writesWithOwnersApart = 0, writesBesideClaims = 0, writesBesideMediumTrouble = 0,
        claimsAtOnce = 0, evacuations = 0, framesOfSeveralGroups = 0
    var coordinatorsRolledBack = 0, coordinatorsForgotten = 0, forcedPublications = 0, forcedTakenBack = 0

    /// Every counter with its name.
    var all: [(String, Int)] {
        Mirror(reflecting: self).children.map { ($0.label ?? "", $0.value as? Int ?? 0) }
    }
}
