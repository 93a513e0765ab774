/* The log's protocol (CSupport/CLogCore/tl_log.c) for a bounded model checker: reserve, store, drain, publish, walk the
 * watermark, reclaim. One Promela step is one access of an atomic of tl_log.c, with what its thread does alone after it.
 *
 *   PRODUCERS threads make CALLS appends of at most SIZES (1 or 2) units each; any call may find the log full; any producer
 *   may stop for ever, at any call, between reserve and publish. With ASK each asks for the watermark after it published.
 *   One reader asks for the watermark, verifies what lies below it, then lets that be reclaimed.
 *   With STORE_BUFFERS a filled slot is seen by its own thread at once, by others only at the thread's next compare-and-swap
 *   or after its question: what a release store allows.
 *   RING and SLOTS are the sizes, in units, of the ring and of the slot table (whose permutation is left out: it is a
 *   bijection); STRIDE is how far the limit on the tail's line goes ahead.
 *
 * Asserted, in every interleaving:
 *   bounds       reclaim <= published <= tail <= reclaim + RING
 *   room         a reservation takes only ring units that no live reservation holds: no two overlap, none is overwritten
 *   drained      the watermark only grows, and only over units whose writer drained them: it passes no stopped producer
 *   slots        a slot is filled only when the watermark has passed what it held
 *   answers      who asks for the watermark is told at least what was published, contiguously, when it asked
 *   reading      what lies in [reclaim, published) is, unit by unit, what its writer drained
 *   nothing lost once every producer has returned or stopped, the watermark is found at the tail, or at the start of the
 *                lowest stopped reservation; with ASK some producer was told so (this one does
 *                not hold with STORE_BUFFERS, and nothing relies on it: see docs/LOG.md, "Memory orders")
 * That every call returns, whatever the others do, is the absence of cycles and of invalid end states: no step of a
 * producer waits. `run-model` checks both.
 *
 * MUTANT n breaks the protocol in one place, PROBE n asserts that a state worth reaching is never reached: `run-model`
 * expects an error from each.
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CALLS
#define CALLS 2
#endif
#ifndef SIZES
#define SIZES 2
#endif
#ifndef RING
#define RING 6
#endif
#ifndef SLOTS
#define SLOTS 4
#endif
#ifndef STRIDE
#define STRIDE 2
#endif
#ifndef ASK
#define ASK 0
#endif
#ifndef STORE_BUFFERS
#define STORE_BUFFERS 0
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#ifndef PROBE
#define PROBE 0
#endif
#define START 1
#define NONE 255

#define TORN_RESERVE 1    /* reserve by load and store instead of a compare-and-swap */
#define NO_WINDOW 2       /* the limit does not look at the watermark */
#define NO_RECLAIM 3      /* the limit does not look at the reclaim limit */
#define WIDE_WINDOW 4     /* the window is a unit wider than the slot table */
#define EARLY_PUBLISH 5   /* publish before the drain */
#define ONE_MOVE 6        /* whoever moves the watermark does not look at the slot there */
#define GIVE_UP 7         /* whoever finds the watermark moved by another does not look again */
#define BLIND_MOVE 8      /* the watermark is stored, not compared and swapped */
#define STALE_SLOT 9      /* any end in a slot counts, not only one beyond the watermark */
#define JUMP 10           /* a walk that ends below the own reservation goes on from there */
#define RECLAIM_UNREAD 11 /* the reader lets go of what it is about to read */
#define KEEP_WALK 12      /* whoever finds the watermark moved by another goes on with its own walk */

#define FULL_ABOVE_STOPPED 1 /* a call above a stopped reservation finds the log full, and returns */
#define SLOTS_TWICE 2        /* the slot table is used twice around */
#define RING_TWICE 3         /* the ring is used twice around, and nobody stopped */
#define STALE_LIMIT 4        /* a slower thread puts an older limit back */
#define MOVED_BY_OTHER 5     /* a walk loses its compare-and-swap */

byte tail = START, limit = START, published = START, reclaim = START;
byte slot[SLOTS];

/* What the assertions need to know, and no thread looks at. */
byte drained[RING]; /* 1 + the position whose bytes are drained here, or 0 */
bit held[RING];     /* by a reservation that is not reclaimed */
byte returned;      /* producers that made all their calls, or stopped */
byte lowestStopped = NONE;
byte told = START;  /* the highest answer that a producer got */

#define SLOT(position) slot[(position) % SLOTS]
#define LEAST(a, b) ((a) < (b) -> (a) : (b))
#define BOUNDS assert(reclaim <= published && published <= tail && tail <= reclaim + RING)

#if STORE_BUFFERS
/* A thread sees its own store at once; a compare-and-swap empties its store buffer. */
#define FILL bufferedAt = start; buffered = end
#define FORWARD if :: buffered && bufferedAt == watermark -> seen = buffered :: else fi
#define FLUSH if :: buffered -> SLOT(bufferedAt) = buffered; buffered = 0 :: else fi
#else
#define FILL fill()
#define FORWARD skip
#define FLUSH skip
#endif

/* Takes room for a reservation; the tail moves. */
inline take(from, to) {
    d_step {
        unit = from;
        do
        :: unit < to -> assert(!held[unit % RING]); held[unit % RING] = 1; unit++
        :: else -> break
        od;
        unit = 0;
        tail = to;
        BOUNDS
    }
}

/* The watermark goes from `published` to `to`. */
inline moveWatermark(to) {
    d_step {
        assert(to > published && to <= tail);
        unit = published;
        do
        :: unit < to -> assert(drained[unit % RING] == unit + 1); unit++
        :: else -> break
        od;
        unit = 0;
        published = to;
        BOUNDS
    }
}

/* The bytes of [start, end) are stored and drained. */
inline drain() {
    d_step {
        unit = start;
        do
        :: unit < end -> drained[unit % RING] = unit + 1; unit++
        :: else -> break
        od;
        unit = 0
    }
}

/* Units [from, to) may be used again. */
inline release(from, to) {
    d_step {
        assert(from == reclaim && to <= published);
        unit = from;
        do
        :: unit < to -> held[unit % RING] = 0; drained[unit % RING] = 0; unit++
        :: else -> break
        od;
        unit = 0;
        reclaim = to;
        BOUNDS
    }
}

/* What the reader finds in units [from, to). */
inline verify(from, to) {
    d_step {
        unit = from;
        do
        :: unit < to -> assert(drained[unit % RING] == unit + 1); unit++
        :: else -> break
        od;
        unit = 0
    }
}

/* How far a walk would get if nobody moved meanwhile. */
inline contiguous(out) {
    d_step {
        out = published;
        do
        :: SLOT(out) > out -> out = SLOT(out)
        :: else -> break
        od
    }
}

/* tl_log_published: the answer is in `watermark`. */
inline walk() {
    atomic { contiguous(due); first = published; watermark = first }
    do
    :: !isMoving ->
        atomic {
            seen = SLOT(watermark);
            FORWARD;
            if
            :: seen == 0 || (seen <= watermark && MUTANT != STALE_SLOT) ->
                seen = 0;
                if
                :: watermark == first -> break
                :: else -> isMoving = true
                fi
            :: else ->
                watermark = seen;
                seen = 0;
                isMoving = (MUTANT == ONE_MOVE || MUTANT == STALE_SLOT)
            fi
        }
    :: isMoving ->
        atomic { /* the compare-and-swap */
            FLUSH;
            isMoving = false;
            if
            :: published == first || MUTANT == BLIND_MOVE -> moveWatermark(watermark); break
            :: else ->
                assert(PROBE != MOVED_BY_OTHER);
                first = published;
                if
                :: MUTANT == GIVE_UP -> watermark = first; break
                :: MUTANT == KEEP_WALK && watermark > first -> isMoving = true
                :: else -> watermark = first
                fi
            fi
        }
    od;
    atomic {
        assert(watermark >= due);
        due = 0;
        first = 0
    }
}

/* tl_log_reserve, from the first look at the limit on: sets end, or end = 0 for "full". */
inline reserve() {
    do
    :: atomic {
            if
            :: start + size <= limit -> goto swap
            :: else
            fi
        }
        atomic { /* has_room */
            if
            :: MUTANT != NO_RECLAIM -> room = reclaim + RING
            :: else -> room = NONE
            fi;
            room = LEAST(room, start + size + STRIDE)
        }
        walk();
        atomic {
            if
            :: ASK && told < watermark -> told = watermark
            :: else
            fi;
            if
            :: MUTANT == NO_WINDOW
            :: MUTANT == WIDE_WINDOW -> room = LEAST(room, watermark + SLOTS + 1)
            :: else -> room = LEAST(room, watermark + SLOTS)
            fi;
            watermark = 0;
            assert(PROBE != STALE_LIMIT || room >= limit);
            limit = room;
            if
            :: start + size > room -> room = 0; end = 0; break
            :: else -> room = 0
            fi
        }
swap:
        atomic { /* the compare-and-swap */
            if
            :: MUTANT == TORN_RESERVE || tail == start -> end = start + size; take(start, end); break
            :: else -> start = tail
            fi
        }
    od
}

inline fill() { d_step { assert(SLOT(start) <= published); SLOT(start) = end } }

proctype producer() {
    byte calls, size, start, end, seen, watermark, first, due, room, unit, buffered, bufferedAt;
    bool isMoving;
    do
    :: calls < CALLS ->
        atomic {
            calls++;
            if
            :: size = 1
            :: SIZES > 1 -> size = 2
            fi;
            start = tail
        }
        reserve();
        if
        :: end == 0 -> /* "full" */
            assert(PROBE != FULL_ABOVE_STOPPED || lowestStopped == NONE || start <= lowestStopped)
        :: end ->
            atomic {
                if
                :: lowestStopped = LEAST(lowestStopped, start); break /* stopped for ever */
                :: true
                fi;
                if
                :: MUTANT != EARLY_PUBLISH -> drain() /* to drain any earlier could only hide a fault */
                :: else
                fi;
                FILL
            }
            if
            :: ASK -> walk(); atomic { told = (told < watermark -> watermark : told); watermark = 0 }
            :: else
            fi;
            if
            :: STORE_BUFFERS -> atomic { FLUSH }
            :: MUTANT == EARLY_PUBLISH -> drain()
            :: MUTANT == JUMP ->
                atomic {
                    if
                    :: published < end -> moveWatermark(end)
                    :: else
                    fi
                }
            :: else
            fi
        fi;
        d_step { size = 0; start = 0; end = 0 }
    :: else -> break
    od;
    atomic { returned++; calls = 0; size = 0; start = 0; end = 0 }
}

/* Reads and reclaims as the destager and the trimmer do, until the producers are done and nothing is left. */
proctype reader() {
    byte position = START, seen, watermark, first, due, unit, buffered, bufferedAt;
    bool isLast, isMoving;
    do
    :: !isLast ->
        atomic { (SLOT(published) > published || published > position || returned == PRODUCERS); isLast = returned == PRODUCERS }
        walk();
        atomic {
            if
            :: MUTANT == RECLAIM_UNREAD -> release(position, watermark)
            :: else
            fi
        }
        atomic { /* to look any earlier could only hide a fault */
            verify(position, watermark);
            if
            :: MUTANT != RECLAIM_UNREAD -> release(position, watermark)
            :: else
            fi;
            position = watermark;
            watermark = 0;
            assert(PROBE != SLOTS_TWICE || position < START + 2 * SLOTS)
        }
    :: else -> break
    od;
    atomic {
        assert(published == LEAST(lowestStopped, tail));
        assert(!ASK || told == published);
        assert(PROBE != RING_TWICE || lowestStopped != NONE || tail < START + 2 * RING)
    }
}

init {
    byte count;
    atomic {
        do
        :: count < PRODUCERS -> run producer(); count++
        :: else -> break
        od;
        run reader()
    }
}
