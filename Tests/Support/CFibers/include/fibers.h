/*
 * Fibers: bodies with a stack of their own, which wait in the middle of their work and go on when they are resumed. All of a fiber runs in
 * the thread that resumes it, which is the same one every time. Not thread-safe.
 */
#ifndef FIBERS_H
#define FIBERS_H

typedef struct fiber fiber;

/* A fiber that will run `body(argument)`. NULL: no memory, errno says so. */
fiber *fiber_create(void (*body)(void *argument), void *argument);

/* From outside: runs the body, or what is left of it, until it waits or returns. Not after it has returned. */
void fiber_resume(fiber *fiber);

/* From inside of the body: returns when it is resumed. */
void fiber_wait(fiber *fiber);

/* Of a fiber that was never resumed, or whose body has returned. */
void fiber_destroy(fiber *fiber);

#endif
