// An operator's word for what cannot be undone: given beforehand, or asked for on a terminal.

import Glibc

struct Confirmation {
    var isGiven: Bool

    /// Says what will be lost, then returns if the operator agrees. Throws `refused` otherwise.
    func ask(_ loss: [String]) throws(Failure) {
        for line in loss { printError(line) }
        if isGiven { return }
        guard isatty(STDIN_FILENO) == 1 else {
            throw Failure(
                .refused, "nothing was written: this needs an operator's word, run it on a terminal or add --yes")
        }
        printError("write it to the media? (yes or no)")
        guard readLine() == "yes" else { throw Failure(.refused, "nothing was written") }
    }
}
