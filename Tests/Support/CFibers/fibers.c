/* Fibers over ucontext: a switch costs a system call that keeps the signal mask, and no turn of the scheduler. */

#include "fibers.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

/* Deep enough for a replay without optimization; only what is touched takes memory. The lowest page is never touched. */
enum { STACK_BYTES = 1 << 20, GUARD_BYTES = 1 << 12 };

struct fiber {
    ucontext_t inside;
    ucontext_t outside;
    char *stack;
    void (*body)(void *argument);
    void *argument;
};

/* makecontext passes ints only. */
static void enter(unsigned high, unsigned low) {
    fiber *fiber = (struct fiber *)(uintptr_t)((uint64_t)high << 32 | low);
    fiber->body(fiber->argument);
}

/* 0, or -1 and errno says why. */
static int prepare(fiber *fiber) {
    if (mprotect(fiber->stack, GUARD_BYTES, PROT_NONE) != 0 || getcontext(&fiber->inside) != 0) return -1;
    uint64_t self = (uint64_t)(uintptr_t)fiber;
    fiber->inside.uc_stack.ss_sp = fiber->stack;
    fiber->inside.uc_stack.ss_size = STACK_BYTES;
    fiber->inside.uc_link = &fiber->outside;
    makecontext(&fiber->inside, (void (*)(void))enter, 2, (unsigned)(self >> 32), (unsigned)self);
    return 0;
}

fiber *fiber_create(void (*body)(void *argument), void *argument) {
    fiber *fiber = calloc(1, sizeof *fiber);
    if (!fiber) return NULL;
    fiber->body = body;
    fiber->argument = argument;
    fiber->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (fiber->stack != MAP_FAILED && prepare(fiber) == 0) return fiber;
    int failure = errno;
    if (fiber->stack != MAP_FAILED) munmap(fiber->stack, STACK_BYTES);
    free(fiber);
    errno = failure;
    return NULL;
}

void fiber_resume(fiber *fiber) {
    if (swapcontext(&fiber->outside, &fiber->inside) != 0) abort();
}

void fiber_wait(fiber *fiber) {
    if (swapcontext(&fiber->inside, &fiber->outside) != 0) abort();
}

void fiber_destroy(fiber *fiber) {
    munmap(fiber->stack, STACK_BYTES);
    free(fiber);
}
