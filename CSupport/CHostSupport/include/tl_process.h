// What a process does with what it was given at its start: descriptors and signals. Called once, from `main`, before anything
// else opens a file or starts a thread.
#pragma once
#include <stdint.h>

/// Opens /dev/null on those of the descriptors 0, 1 and 2 that are closed: else the next file opened would be the program's
/// standard output, and what is printed would go into it. Reading or writing there fails all the same. 0 or a negative errno.
int tl_process_open_standard(void);

/// The signals that a program has no use for, whose default action would end it, are said once on standard error and ignored;
/// SIGPIPE and SIGXFSZ are ignored without a word: the call that failed tells. No
/// signal is blocked afterwards, as one may be by whoever started the program. `name` is copied.
int tl_process_ignore_strays(const char *name);

/// A signal that ends the process by a fault of its own (SIGSEGV, SIGABRT and the like) first writes one line to standard error:
/// `title`, the signal, the address, the thread. Then its default action follows. The line is dropped if it could not be written
/// at once.
int tl_process_report_crashes(const char *title);

/// From now on, the signals that ask something of a daemon, and those of `tl_process_ignore_strays`, come as bytes, their number,
/// from the descriptor answered. What overflows it is dropped: the same question is waiting there.
int tl_process_signals(void);

/// TERM for SIGTERM; NULL if the number has no name.
const char *tl_process_signal_name(int number);

/// How many descriptors this process may have open at once when it has raised its limit; UINT64_MAX without one.
uint64_t tl_process_most_descriptors(void);
/// How many it may have open now.
uint64_t tl_process_descriptors(void);
/// Raises the soft limit of open descriptors to the hard one. 0 or a negative errno.
int tl_process_raise_descriptors(void);

/// What RLIMIT_FSIZE allows: the size beyond which a write to a file fails with EFBIG. UINT64_MAX without a limit.
uint64_t tl_process_file_size_limit(void);
