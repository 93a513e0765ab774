// Descriptors and signals of a process: see tl_process.h. The handlers call only what may be called in one: write, poll, sigaction,
// raise.
#include "tl_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAME_BYTES 64

int tl_process_open_standard(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) continue;
        // The lowest number that is free is this one: those below are open. The wrong way around: what is read or written there is
        // an error, as it was while the descriptor was closed.
        if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return -errno;
    }
    return 0;
}

uint64_t tl_process_file_size_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return limit.rlim_cur;
}

static uint64_t descriptor_limit(bool hard) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return UINT64_MAX;
    rlim_t value = hard ? limit.rlim_max : limit.rlim_cur;
    return value == RLIM_INFINITY ? UINT64_MAX : value;
}

uint64_t tl_process_most_descriptors(void) { return descriptor_limit(true); }
uint64_t tl_process_descriptors(void) { return descriptor_limit(false); }

int tl_process_raise_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

// MARK: Text, in a handler

typedef struct {
    char bytes[256];
    size_t count;
} line;

static void add(line *to, const char *text) {
    while (*text && to->count < sizeof to->bytes - 1) to->bytes[to->count++] = *text++;
}

static void add_number(line *to, uint64_t value, unsigned base) {
    char digits[21];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do *--at = "0123456789abcdef"[value % base];
    while (value /= base);
    add(to, at);
}

const char *tl_process_signal_name(int number) { return sigabbrev_np(number); }

static void add_signal(line *to, int number) {
    const char *name = tl_process_signal_name(number);
    add(to, name ? "SIG" : "signal ");
    if (name) add(to, name);
    else add_number(to, (uint64_t)number, 10);
}

/// Never waits for whoever reads standard error: the line is shorter than a pipe takes at once.
static void say(line *text) {
    text->bytes[text->count++] = '\n';
    struct pollfd entry = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&entry, 1, 0) != 1 || !(entry.revents & POLLOUT)) return;
    ssize_t written = write(STDERR_FILENO, text->bytes, text->count);
    (void)written; // there is nobody left to tell
}

static int set(int number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART | flags};
    sigfillset(&action.sa_mask);
    return sigaction(number, &action, NULL) < 0 ? -errno : 0;
}

// MARK: Strays

static const int strays[] = {SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGSTKFLT, SIGXCPU};
static char program[NAME_BYTES];

static void ignore(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    int saved = errno;
    line text = {.count = 0};
    add(&text, program);
    add(&text, ": ");
    add_signal(&text, number);
    add(&text, " is ignored");
    say(&text);
    signal(number, SIG_IGN);
    errno = saved;
}

static int set_strays(void (*handler)(int, siginfo_t *, void *)) {
    for (size_t index = 0; index < sizeof strays / sizeof *strays; index++) {
        int result = set(strays[index], handler, 0);
        if (result < 0) return result;
    }
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++) {
        int result = set(number, handler, 0);
        // Whoever runs the process, as valgrind does, may keep one for itself: it is no stray then.
        if (result < 0 && result != -EINVAL) return result;
    }
    return 0;
}

int tl_process_ignore_strays(const char *name) {
    strncpy(program, name, sizeof program - 1);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || signal(SIGXFSZ, SIG_IGN) == SIG_ERR) return -errno;
    int result = set_strays(ignore);
    if (result < 0) return result;
    sigset_t none;
    sigemptyset(&none);
    return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

// MARK: Crashes

static char crash_title[NAME_BYTES];

static void crashed(int number, siginfo_t *info, void *context) {
    (void)context;
    line text = {.count = 0};
    add(&text, crash_title);
    add(&text, ": crashed: ");
    add_signal(&text, number);
    if (info->si_code > 0) {
        add(&text, " at 0x");
        add_number(&text, (uintptr_t)info->si_addr, 16);
    } else {
        add(&text, " from process ");
        add_number(&text, (uint64_t)info->si_pid, 10);
    }
    add(&text, ", process ");
    add_number(&text, (uint64_t)getpid(), 10);
    add(&text, ", thread ");
    add_number(&text, (uint64_t)syscall(SYS_gettid), 10);
    say(&text);
    signal(number, SIG_DFL);
    raise(number); // takes effect when this returns
}

int tl_process_report_crashes(const char *title) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    strncpy(crash_title, title, sizeof crash_title - 1);
    for (size_t index = 0; index < sizeof faults / sizeof *faults; index++) {
        int result = set(faults[index], crashed, SA_ONSTACK);
        if (result < 0) return result;
    }
    // Its earlier handler may be the runtime's, which takes it for a crash.
    return signal(SIGQUIT, SIG_DFL) == SIG_ERR ? -errno : 0;
}

// MARK: Signals as bytes

static int signal_pipe[2] = {-1, -1};

static void pass_on(int number, siginfo_t *info, void *context) {
    (void)info, (void)context;
    int saved = errno;
    uint8_t byte = (uint8_t)number;
    ssize_t written = write(signal_pipe[1], &byte, 1);
    (void)written;
    errno = saved;
}

int tl_process_signals(void) {
    static const int asking[] = {SIGTERM, SIGINT, SIGQUIT, SIGPWR, SIGHUP};
    if (pipe2(signal_pipe, O_CLOEXEC) < 0) return -errno;
    if (fcntl(signal_pipe[1], F_SETFL, O_NONBLOCK) < 0) return -errno;
    for (size_t index = 0; index < sizeof asking / sizeof *asking; index++) {
        int result = set(asking[index], pass_on, 0);
        if (result < 0) return result;
    }
    int result = set_strays(pass_on);
    return result < 0 ? result : signal_pipe[0];
}
