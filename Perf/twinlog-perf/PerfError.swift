// How a scenario fails.

import HostProcess

struct PerfError: ProgramError {
    var message: String
    init(_ message: String) { self.message = message }
}
