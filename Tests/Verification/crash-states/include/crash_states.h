// What persistent memory may hold after a crash, computed from a recorded run, one state after another.
//
// The fault model. Memory takes words of 8 bytes whole. A crash may come between any two operations; it keeps what was
// durable, and of the rest any combination of the following:
//  - a streamed (non-temporal) store is durable after the next drain of its thread; until then any subset of its words
//    may have reached memory, in any order;
//  - a cached store is durable after a write-back of its line and then a drain, both by one thread after the store.
//    Until then its line may be evicted at any moment: memory then holds the line as it was at that moment, so any
//    prefix of the line's stores in program order, whoever made them. The order inside of one copy is the compiler's,
//    so of the copy that an eviction interrupts any subset of the line's words may be there;
//  - a write-back without a later drain of the same thread promises nothing.
// A crash between two operations leaves nothing that a crash right before the next drain could not leave as well, and
// must keep no more. So states are enumerated before every drain and after the last operation, and only where something
// is pending or more was promised since the last place.
//
// At one place all states are enumerated while there are at most `exhaustive` of them. Else: none, all, only one, all but
// one (a word or line, and a whole line), prefixes and suffixes in program order, and seeded random choices. A state is
// named by the run, the seed, the operation before which the crash comes, and the number of the choice there.
//
// Words that already hold what is stored to them are left out: both choices are the same state.
#pragma once
#include <stdbool.h>

#include "tl_recorder.h"

typedef struct crash_limits {
    uint64_t exhaustive; // states at one place up to which all are enumerated; at most 2^32
    uint32_t spread;     // else: how many of each of only-one, all-but-one, prefixes and suffixes, spread evenly
    uint32_t random;     // and how many random choices
} crash_limits;

typedef struct crash_state {
    uint64_t operation; // the crash comes before this one of the recording
    uint64_t choice;
    uint64_t choices; // at this place
    uint64_t marks;   // that came before the crash
    bool exhaustive;
} crash_state;

typedef struct crash_states crash_states;

/// The states that the operations of `recorder` leave behind in `memory`, which holds `length` bytes (a multiple of 64)
/// as they were durable before the first operation. NULL if there is no memory. Recorder and memory outlive the engine.
crash_states *crash_states_create(tl_recorder *recorder, uint8_t *memory, uint64_t length, uint64_t seed, crash_limits limits);
void crash_states_destroy(crash_states *states);

/// Undoes what the last state changed in `memory`, and puts the next one there. False when there is none left: `memory`
/// then holds what is durable at the end.
bool crash_states_next(crash_states *states, crash_state *out);
/// Puts back what a recovery of the present state stored to `memory` and `recovery` has recorded. To be called before
/// crash_states_next.
void crash_states_undo(crash_states *states, tl_recorder *recovery);
/// Whether `memory` is what is durable, with no state in it. Call after crash_states_undo and for checks only: it
/// compares all of it.
bool crash_states_is_restored(crash_states *states);
