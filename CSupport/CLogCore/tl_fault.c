// Memory faults: see tl_fault.h. The handler calls nothing but mmap and sigaction, which are system calls, and lock-free atomics.
#include "tl_fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct {
    _Atomic uint64_t offset, length;
} range;

typedef struct {
    // 0 while the slot is free; set last, so that whoever finds it finds the length.
    _Atomic uintptr_t base;
    _Atomic size_t length;
    _Atomic size_t count;
    range ranges[TL_FAULT_RANGES];
} mapping;

static mapping mappings[TL_FAULT_MAPPINGS];
static atomic_bool any_fault;
static struct sigaction earlier;
static pthread_once_t installed = PTHREAD_ONCE_INIT;
static pthread_mutex_t watching = PTHREAD_MUTEX_INITIALIZER;
static size_t page_bytes;

static mapping *find(uintptr_t at) {
    for (int index = 0; index < TL_FAULT_MAPPINGS; index++) {
        uintptr_t base = atomic_load(&mappings[index].base);
        if (base && at >= base && at - base < atomic_load(&mappings[index].length)) return &mappings[index];
    }
    return NULL;
}

static bool is_noted(mapping *in, uint64_t offset) {
    size_t count = atomic_load(&in->count);
    for (size_t index = 0; index < count; index++) {
        uint64_t from = atomic_load(&in->ranges[index].offset);
        if (offset >= from && offset - from < atomic_load(&in->ranges[index].length)) return true;
    }
    return false;
}

static void grow_last(mapping *in, uint64_t offset, uint64_t length) {
    range *last = &in->ranges[TL_FAULT_RANGES - 1];
    uint64_t from = atomic_load(&last->offset), to = from + atomic_load(&last->length);
    if (offset < from) atomic_store(&last->offset, offset);
    uint64_t low = offset < from ? offset : from, high = offset + length > to ? offset + length : to;
    atomic_store(&last->length, high - low);
}

/// Threads that fault at once take different places; a place counts when it is filled.
static void note(mapping *in, uint64_t offset, uint64_t length) {
    static atomic_flag noting = ATOMIC_FLAG_INIT;
    // Held for a few stores, by a thread that runs: a fault in here is not possible.
    while (atomic_flag_test_and_set(&noting)) {
    }
    if (!is_noted(in, offset)) {
        size_t count = atomic_load(&in->count);
        if (count < TL_FAULT_RANGES) {
            atomic_store(&in->ranges[count].offset, offset);
            atomic_store(&in->ranges[count].length, length);
            atomic_store(&in->count, count + 1);
        } else {
            grow_last(in, offset, length);
        }
    }
    atomic_store(&any_fault, true);
    atomic_flag_clear(&noting);
}

static void pass_on(int number, siginfo_t *info, void *context) {
    if (earlier.sa_flags & SA_SIGINFO) return earlier.sa_sigaction(number, info, context);
    if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) return earlier.sa_handler(number);
#ifdef BUS_MCEERR_AO
    if (info->si_code == BUS_MCEERR_AO) return; // an early report: whoever meets the memory faults
#endif
    // The instruction runs again, or the signal comes again, with nobody in the way.
    struct sigaction fallback = {.sa_handler = SIG_DFL};
    sigaction(SIGBUS, &fallback, NULL);
    if (info->si_code <= 0) raise(number);
}

static void handle(int number, siginfo_t *info, void *context) {
    int saved = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    // Sent by a process, or reported without an access: no instruction waits for a page.
    bool is_access = info->si_code > 0;
#ifdef BUS_MCEERR_AO
    is_access = is_access && info->si_code != BUS_MCEERR_AO;
#endif
    mapping *in = is_access ? find(at) : NULL;
    if (!in) {
        pass_on(number, info, context);
        errno = saved;
        return;
    }
    size_t length = page_bytes;
#ifdef BUS_MCEERR_AR
    if (info->si_code == BUS_MCEERR_AR && info->si_addr_lsb < 40 && ((size_t)1 << info->si_addr_lsb) > length)
        length = (size_t)1 << info->si_addr_lsb;
#endif
    uintptr_t base = atomic_load(&in->base);
    uint64_t offset = (at - base) & ~(uint64_t)(length - 1);
    if (length > atomic_load(&in->length) - offset) length = atomic_load(&in->length) - offset;
    note(in, offset, length);
    void *zeros = mmap((void *)(base + offset), length, PROT_READ | PROT_WRITE,
                       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (zeros == MAP_FAILED) pass_on(number, info, context);
    errno = saved;
}

static void install(void) {
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &earlier);
}

int tl_fault_watch(void *base, size_t length) {
    pthread_once(&installed, install);
    int found = -1;
    pthread_mutex_lock(&watching);
    for (int index = 0; index < TL_FAULT_MAPPINGS && found < 0; index++)
        if (!atomic_load(&mappings[index].base)) found = index;
    if (found >= 0) {
        atomic_store(&mappings[found].count, 0);
        atomic_store(&mappings[found].length, length);
        atomic_store(&mappings[found].base, (uintptr_t)base);
    }
    pthread_mutex_unlock(&watching);
    return found;
}

void tl_fault_unwatch(int index) {
    if (index < 0) return;
    pthread_mutex_lock(&watching);
    atomic_store(&mappings[index].base, 0);
    pthread_mutex_unlock(&watching);
}

bool tl_fault_any(void) { return atomic_load_explicit(&any_fault, memory_order_acquire); }

size_t tl_fault_count(int index) { return index < 0 ? 0 : atomic_load(&mappings[index].count); }

void tl_fault_range(int index, size_t at, uint64_t *offset, uint64_t *length) {
    *offset = atomic_load(&mappings[index].ranges[at].offset);
    *length = atomic_load(&mappings[index].ranges[at].length);
}

void tl_fault_touch(const void *bytes, size_t count) {
    const volatile uint8_t *at = bytes;
    for (size_t done = 0; done < count; done += 4096) (void)at[done];
    if (count) (void)at[count - 1];
}
