// A medium that one node alone may write, by a persistent reservation *write exclusive, registrants only* with one registrant: what the
// exclusive lock is for a file. Who takes it takes every other registration away, the old owner's too. Only what is read back afterwards
// counts (S18).
//
// Commands of the old owner that had passed the reservation's check may still be at the unit. Every taking ends them by a reset. PREEMPT AND
// ABORT would not do: one of an earlier try, whose answer was lost, proves nothing about them, `tgt` has none, and Linux's target waits for
// itself for ever when it is asked for it (6.1, `core_tmr_lun_reset`).
//
// A registration is made only here, after a claim was won. Whoever lost it finds out by RESERVATION CONFLICT, and does not come back but by
// another claim.

public struct ExclusiveHold: Sendable {
    /// Of one opening of the medium.
    public let key: ReservationKey
    private let reservations: PersistentReservations

    /// Somebody who takes the medium too can only be another claim, and one of them gives up; a unit that changes under more rounds lies.
    private static let rounds = 4

    /// Registers `holder` and takes the medium from every other of `cluster`. Throws with the key's name if a stranger has it,
    /// and registers nothing then; `reservationConflict` if another of the cluster takes it at the same time.
    public static func take(
        _ device: any SCSIDevice, as holder: KeyHolder, of cluster: [KeyHolder]
    ) throws(SCSIError) -> ExclusiveHold {
        let reservations = PersistentReservations(device)
        let keys = try readKeys(reservations)
        try refuseStrangers(keys, cluster, device)
        let hold = ExclusiveHold(key: holder.freshKey(besides: keys), reservations: reservations)
        try reservations.register(hold.key)
        do throws(SCSIError) {
            try hold.removeOthers(of: cluster)
            try endCommands(device)
        } catch {
            // What was registered for nothing writes nothing: whoever takes the medium next removes it.
            _ = Result { () throws(SCSIError) in try reservations.unregister(hold.key) }
            throw error
        }
        return hold
    }

    /// A unit that knows no reservations is named as such.
    private static func readKeys(_ reservations: PersistentReservations) throws(SCSIError) -> [ReservationKey] {
        do throws(SCSIError) {
            return try reservations.keys()
        } catch {
            guard error.code == .illegalRequest else { throw error }
            throw SCSIError(
                .noReservations,
                "\(reservations.device.name): has no persistent reservations, so nothing keeps a node from it that was taken over from"
            )
        }
    }

    /// Throws unless the unit has persistent reservations and nobody but `cluster` uses them. Changes nothing.
    public static func check(_ device: any SCSIDevice, of cluster: [KeyHolder]) throws(SCSIError) {
        try refuseStrangers(readKeys(PersistentReservations(device)), cluster, device)
    }

    private static func refuseStrangers(
        _ keys: [ReservationKey], _ cluster: [KeyHolder], _ device: any SCSIDevice
    ) throws(SCSIError) {
        guard let stranger = keys.first(where: { key in !cluster.contains { $0.has(key) } }) else { return }
        throw SCSIError(
            .failed,
            "\(device.name): is in use by the reservation key \(stranger), which is no node's of this cluster; if nobody uses it any more, "
                + "clear it there")
    }

    /// Of every initiator. Reservations stay; a unit that refuses is not taken.
    private static func endCommands(_ device: any SCSIDevice) throws(SCSIError) {
        try device.resetUnit()
        try device.clearAttentions()
    }

    /// Until what is read back is this key alone, with the reservation.
    private func removeOthers(of cluster: [KeyHolder]) throws(SCSIError) {
        for _ in 0..<Self.rounds {
            let others = try reservations.keys().filter { $0 != key }
            try Self.refuseStrangers(others, cluster, reservations.device)
            let reservation = try reservations.reservation()
            if others.isEmpty, try isHeld(by: reservation) { return }
            for other in Set(others + [reservation?.holder].compactMap(\.self)) where other != key {
                try preempt(other)
            }
            if try reservations.reservation() == nil { try reservations.reserve(key) }
        }
        let left = try reservations.keys().filter { $0 != key }.map(\.description).joined(separator: ", ")
        throw SCSIError(
            .failed, "\(reservations.device.name): after it was taken, it is not held by \(key) alone: \(left)")
    }

    private func isHeld(by reservation: Reservation?) throws(SCSIError) -> Bool {
        guard let reservation, reservation.holder == key else { return false }
        guard reservation.type == Reservation.writeExclusiveRegistrantsOnly else {
            throw SCSIError(
                .failed,
                "\(reservations.device.name): has a reservation of type \(reservation.type), which keeps others out badly"
            )
        }
        return true
    }

    /// A key that went meanwhile is a conflict (SPC-4, 5.13.11.2.2): what is read next decides.
    private func preempt(_ victim: ReservationKey) throws(SCSIError) {
        do throws(SCSIError) {
            try reservations.preempt(victim, by: key)
        } catch {
            guard error.code == .reservationConflict else { throw error }
        }
    }

    /// As a fence: nobody but `holder` can write to the medium when this returns, and nothing that others wrote is on its way. A hold that
    /// `holder` has alone already stays: its own groups may be writing under it.
    public static func shutOthers(
        outOf device: any SCSIDevice, by holder: KeyHolder, of cluster: [KeyHolder]
    ) throws(SCSIError) {
        let reservations = PersistentReservations(device)
        let keys = try readKeys(reservations)
        if let reservation = try reservations.reservation(),
            reservation.type == Reservation.writeExclusiveRegistrantsOnly, holder.has(reservation.holder),
            keys.contains(reservation.holder), keys.allSatisfy(holder.has)
        {
            return try endCommands(device)
        }
        try device.checkInitiatorIsFree()
        _ = try take(device, as: holder, of: cluster)
    }

    /// Throws `reservationConflict` unless this initiator is registered, and the reservation keeps others out. Never registers it anew: that
    /// would undo a fence.
    public func verify() throws(SCSIError) {
        do throws(SCSIError) {
            try reservations.checkRegistered(key)
        } catch {
            throw error.code == .reservationConflict ? loss : error
        }
        let reservation = try reservations.reservation()
        guard reservation?.holder == key, reservation?.type == Reservation.writeExclusiveRegistrantsOnly else {
            throw loss
        }
    }

    private var loss: SCSIError {
        SCSIError(
            .reservationConflict,
            "\(reservations.device.name): is not reserved for \(key) any more: another node took it, or the target forgot it"
        )
    }

    /// Ends the registration. Whose it was not any more has released it.
    public func release() throws(SCSIError) {
        do throws(SCSIError) {
            try reservations.unregister(key)
        } catch {
            guard error.code == .reservationConflict else { throw error }
        }
    }
}
