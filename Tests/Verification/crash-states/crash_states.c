// See crash_states.h for the fault model. In C, because a debug build of the tests goes through 100,000 states.
#include "crash_states.h"

#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 8, LINE_BYTES = 64, LINE_WORDS = LINE_BYTES / WORD_BYTES };

/// One word of a store that is not durable yet.
typedef struct word {
    uint64_t index;     // of the word in memory
    uint64_t operation; // that stored it
    uint8_t bytes[WORD_BYTES];
    uint8_t mask; // which bytes were stored
    bool cached;
    uint32_t thread;
    uint64_t backers;      // threads that have written its line back since
    bool kept;             // in the present state
} word;

/// One choice: a streamed word (kept or not), or a line of cached stores (how far, see `line_options`).
typedef struct digit {
    size_t first;     // of its words, which are in `order`
    size_t count;     // words
    uint64_t options; // how many
    uint64_t line;
} digit;

struct crash_states {
    tl_recorder *recorder;
    uint64_t operations, operation; // the next one to be taken
    uint8_t *memory, *durable;
    uint64_t length;
    crash_limits limits;
    uint64_t seed, marks, marks_seen;
    bool changed; // something is pending that no place has enumerated yet
    word *pending;
    size_t count, capacity;
    uint32_t *pending_at; // how many pending words per word of memory
    // The present place.
    bool at_place, finished;
    uint64_t choice, choices;
    bool exhaustive;
    digit *digits;
    size_t digit_count, digit_capacity;
    size_t *order; // indices of pending words, grouped by digit
    size_t order_capacity;
};

static void *checked(void *memory) {
    if (!memory) abort();
    return memory;
}

crash_states *crash_states_create(tl_recorder *recorder, uint8_t *memory, uint64_t length, uint64_t seed, crash_limits limits) {
    if (length % LINE_BYTES || limits.exhaustive > UINT64_C(1) << 32) return NULL;
    crash_states *states = calloc(1, sizeof *states);
    if (!states) return NULL;
    *states = (crash_states){.recorder = recorder, .operations = tl_recorder_count(recorder), .memory = memory,
                             .length = length, .seed = seed, .limits = limits, .changed = true};
    states->durable = malloc(length);
    states->pending_at = calloc(length / WORD_BYTES, sizeof *states->pending_at);
    if (!states->durable || !states->pending_at) {
        crash_states_destroy(states);
        return NULL;
    }
    memcpy(states->durable, memory, length);
    return states;
}

void crash_states_destroy(crash_states *states) {
    if (!states) return;
    free(states->durable);
    free(states->pending_at);
    free(states->pending);
    free(states->digits);
    free(states->order);
    free(states);
}

// MARK: Taking operations

static void put(uint8_t *memory, const word *word) {
    for (int byte = 0; byte < WORD_BYTES; byte++)
        if (word->mask & 1 << byte) memory[word->index * WORD_BYTES + byte] = word->bytes[byte];
}

/// Both choices of it are one state: it holds that already, and nothing pending may change it.
static bool changes_nothing(const crash_states *states, const word *word) {
    if (states->pending_at[word->index]) return false;
    for (int byte = 0; byte < WORD_BYTES; byte++)
        if (word->mask & 1 << byte && states->durable[word->index * WORD_BYTES + byte] != word->bytes[byte]) return false;
    return true;
}

static void add(crash_states *states, const word *word) {
    if (changes_nothing(states, word)) return;
    if (states->count == states->capacity) {
        states->capacity = states->capacity ? states->capacity * 2 : 256;
        states->pending = checked(realloc(states->pending, states->capacity * sizeof *states->pending));
    }
    states->pending[states->count++] = *word;
    states->pending_at[word->index]++;
    states->changed = true;
}

static void take_store(crash_states *states, const tl_operation *operation) {
    if (operation->offset + operation->count > states->length) abort();
    for (uint64_t done = 0; done < operation->count;) {
        uint64_t at = operation->offset + done, within = at % WORD_BYTES;
        uint64_t bytes = WORD_BYTES - within;
        if (bytes > operation->count - done) bytes = operation->count - done;
        word next = {.index = at / WORD_BYTES, .operation = states->operation, .thread = operation->thread,
                     .cached = operation->kind == TL_OPERATION_STORE};
        memcpy(next.bytes + within, operation->bytes + done, bytes);
        next.mask = (uint8_t)(((1u << bytes) - 1) << within);
        add(states, &next);
        done += bytes;
    }
}

/// Threads are numbered below 64 by the recorder.
static void take_write_back(crash_states *states, const tl_operation *operation) {
    if (!operation->count) return;
    uint64_t first = operation->offset / LINE_BYTES, last = (operation->offset + operation->count - 1) / LINE_BYTES;
    for (size_t i = 0; i < states->count; i++) {
        word *word = &states->pending[i];
        uint64_t line = word->index / LINE_WORDS;
        if (word->cached && line >= first && line <= last) word->backers |= UINT64_C(1) << operation->thread;
    }
}

static bool drains(const word *word, uint32_t thread) {
    return word->cached ? word->backers >> thread & 1 : word->thread == thread;
}

/// In program order, and an older store to the same word is gone with it: memory has taken the newer one.
static void take_drain(crash_states *states, uint32_t thread) {
    for (size_t i = 0; i < states->count; i++) {
        word *word = &states->pending[i];
        if (!drains(word, thread)) continue;
        put(states->durable, word);
        put(states->memory, word);
        for (size_t older = 0; states->pending_at[word->index] > 1 && older < i; older++)
            if (states->pending[older].index == word->index) states->pending[older].mask &= (uint8_t)~word->mask;
    }
    size_t left = 0;
    for (size_t i = 0; i < states->count; i++) {
        word *word = &states->pending[i];
        if (drains(word, thread) || !word->mask)
            states->pending_at[word->index]--;
        else
            states->pending[left++] = *word;
    }
    states->count = left;
}

static void take(crash_states *states, const tl_operation *operation) {
    switch (operation->kind) {
    case TL_OPERATION_STREAM:
    case TL_OPERATION_STORE: take_store(states, operation); break;
    case TL_OPERATION_WRITE_BACK: take_write_back(states, operation); break;
    case TL_OPERATION_DRAIN: take_drain(states, operation->thread); break;
    case TL_OPERATION_MARK: states->marks++; break;
    }
    states->operation++;
}

// MARK: Choices

static digit *new_digit(crash_states *states, size_t first, uint64_t line) {
    if (states->digit_count == states->digit_capacity) {
        states->digit_capacity = states->digit_capacity ? states->digit_capacity * 2 : 256;
        states->digits = checked(realloc(states->digits, states->digit_capacity * sizeof *states->digits));
    }
    digit *digit = &states->digits[states->digit_count++];
    *digit = (struct digit){.first = first, .options = 1, .line = line};
    return digit;
}

static word *word_of(crash_states *states, const digit *digit, size_t i) {
    return &states->pending[states->order[digit->first + i]];
}

/// The words of the copy that begins at `from` of a line's words.
static size_t copy_length(crash_states *states, const digit *digit, size_t from) {
    size_t count = 1;
    uint64_t operation = word_of(states, digit, from)->operation;
    while (from + count < digit->count && word_of(states, digit, from + count)->operation == operation) count++;
    return count;
}

/// None, and for each copy every part of it behind the whole of the earlier ones.
static uint64_t line_options(crash_states *states, const digit *digit) {
    uint64_t options = 1;
    for (size_t from = 0; from < digit->count;) {
        size_t words = copy_length(states, digit, from);
        options += (UINT64_C(1) << words) - 1;
        from += words;
    }
    return options;
}

static void gather_line(crash_states *states, size_t from, size_t *used) {
    uint64_t line = states->pending[from].index / LINE_WORDS;
    digit *digit = new_digit(states, *used, line);
    for (size_t i = from; i < states->count; i++) {
        if (!states->pending[i].cached || states->pending[i].index / LINE_WORDS != line) continue;
        states->order[(*used)++] = i;
        states->pending[i].kept = true; // seen
        digit->count++;
    }
    digit->options = line_options(states, digit);
}

/// Digits in program order of their first words.
static void gather(crash_states *states) {
    if (states->order_capacity < states->count) {
        states->order_capacity = states->count;
        states->order = checked(realloc(states->order, states->order_capacity * sizeof *states->order));
    }
    states->digit_count = 0;
    for (size_t i = 0; i < states->count; i++) states->pending[i].kept = false;
    size_t used = 0;
    for (size_t i = 0; i < states->count; i++) {
        word *word = &states->pending[i];
        if (word->kept) continue;
        if (word->cached) {
            gather_line(states, i, &used);
            continue;
        }
        digit *digit = new_digit(states, used, word->index / LINE_WORDS);
        digit->count = 1;
        digit->options = 2;
        states->order[used++] = i;
    }
}

/// The number of states, or `limit` + 1 if there are more.
static uint64_t combinations(const crash_states *states, uint64_t limit) {
    uint64_t all = 1;
    for (size_t i = 0; i < states->digit_count; i++) {
        if (states->digits[i].options > limit / all) return limit + 1;
        all *= states->digits[i].options;
    }
    return all;
}

static void choose(crash_states *states, const digit *digit, uint64_t option) {
    for (size_t i = 0; i < digit->count; i++) word_of(states, digit, i)->kept = false;
    if (!option) return;
    if (!word_of(states, digit, 0)->cached) {
        word_of(states, digit, 0)->kept = true;
        return;
    }
    for (size_t from = 0; from < digit->count;) {
        size_t words = copy_length(states, digit, from);
        uint64_t parts = (UINT64_C(1) << words) - 1, part = option < parts ? option : parts;
        for (size_t i = 0; i < words; i++) word_of(states, digit, from + i)->kept = part >> i & 1;
        if (option <= parts) return;
        option -= parts;
        from += words;
    }
}

static uint64_t scramble(uint64_t z) { // SplitMix64's finalizer
    z += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static uint64_t draw(uint64_t *state) { return *state = scramble(*state); }

enum rule { ONLY_ONE, ALL_BUT_ONE, ONLY_LINE, ALL_BUT_LINE, PREFIX, SUFFIX, RULES };

static bool is_kept_by(enum rule rule, size_t i, size_t chosen, uint64_t line, uint64_t chosen_line) {
    switch (rule) {
    case ONLY_ONE: return i == chosen;
    case ALL_BUT_ONE: return i != chosen;
    case ONLY_LINE: return line == chosen_line;
    case ALL_BUT_LINE: return line != chosen_line;
    case PREFIX: return i <= chosen;
    default: return i >= chosen;
    }
}

static size_t spread_of(const crash_states *states) {
    return states->digit_count < states->limits.spread ? states->digit_count : states->limits.spread;
}

static void choose_by_rule(crash_states *states, uint64_t number) {
    size_t spread = spread_of(states);
    enum rule rule = (enum rule)(number / spread);
    // First and last always.
    size_t chosen = spread == 1 ? 0 : (size_t)(number % spread * (states->digit_count - 1) / (spread - 1));
    for (size_t i = 0; i < states->digit_count; i++) {
        const digit *digit = &states->digits[i];
        bool kept = is_kept_by(rule, i, chosen, digit->line, states->digits[chosen].line);
        choose(states, digit, kept ? digit->options - 1 : 0);
    }
}

/// Random choices of several kinds: dense or thin, by words or by whole lines, up to any place in program order.
static void choose_at_random(crash_states *states, uint64_t number) {
    uint64_t random = scramble(states->seed ^ scramble(states->operation ^ scramble(number)));
    uint64_t kind = draw(&random), per_line = draw(&random);
    uint64_t likelihood = kind % 3 == 0 ? 32 : kind % 3 == 1 ? 128 : 224; // of 256
    bool by_line = kind >> 8 & 1;
    size_t until = kind >> 16 & 1 ? (size_t)(draw(&random) % states->digit_count) + 1 : states->digit_count;
    for (size_t i = 0; i < states->digit_count; i++) {
        const digit *digit = &states->digits[i];
        uint64_t chance = by_line ? scramble(per_line ^ digit->line) : draw(&random);
        bool some = i < until && chance % 256 < likelihood;
        choose(states, digit, !some ? 0 : by_line ? digit->options - 1 : 1 + chance / 256 % (digit->options - 1));
    }
}

static void choose_exhaustively(crash_states *states, uint64_t number) {
    for (size_t i = 0; i < states->digit_count; i++) {
        choose(states, &states->digits[i], number % states->digits[i].options);
        number /= states->digits[i].options;
    }
}

static void choose_sampled(crash_states *states, uint64_t number) {
    uint64_t ruled = (uint64_t)spread_of(states) * RULES;
    if (number >= 2 + ruled) return choose_at_random(states, number);
    if (number >= 2) return choose_by_rule(states, number - 2);
    for (size_t i = 0; i < states->digit_count; i++)
        choose(states, &states->digits[i], number == 0 ? 0 : states->digits[i].options - 1);
}

// MARK: States

/// Whether the next operation is a place to crash at.
static bool is_place(crash_states *states, const tl_operation *next) {
    if (next && next->kind != TL_OPERATION_DRAIN) return false;
    return states->changed || states->marks != states->marks_seen;
}

static void arrive(crash_states *states) {
    gather(states);
    uint64_t all = combinations(states, states->limits.exhaustive);
    states->exhaustive = all <= states->limits.exhaustive;
    states->choices =
        states->exhaustive ? all : 2 + (uint64_t)spread_of(states) * RULES + states->limits.random;
    states->choice = 0;
    states->at_place = true;
    states->changed = false;
    states->marks_seen = states->marks;
}

static bool find_place(crash_states *states) {
    for (;;) {
        if (states->operation == states->operations) {
            if (states->finished) return false;
            states->finished = true;
            if (!is_place(states, NULL)) return false;
            arrive(states);
            return true;
        }
        tl_operation next = tl_recorder_operation(states->recorder, states->operation);
        if (is_place(states, &next)) {
            arrive(states);
            return true;
        }
        take(states, &next);
    }
}

static void put_back(crash_states *states) {
    for (size_t i = 0; i < states->count; i++)
        if (states->pending[i].kept) {
            uint64_t at = states->pending[i].index * WORD_BYTES;
            memcpy(states->memory + at, states->durable + at, WORD_BYTES);
        }
}

/// Takes the operation that the last place came before.
static void leave(crash_states *states) {
    states->at_place = false;
    if (states->operation == states->operations) return;
    tl_operation next = tl_recorder_operation(states->recorder, states->operation);
    take(states, &next);
}

bool crash_states_next(crash_states *states, crash_state *out) {
    if (states->at_place) put_back(states);
    if (states->at_place && states->choice == states->choices) leave(states);
    if (!states->at_place && !find_place(states)) return false;
    uint64_t choice = states->choice++;
    if (states->exhaustive)
        choose_exhaustively(states, choice);
    else
        choose_sampled(states, choice);
    for (size_t i = 0; i < states->count; i++) // in program order: of two stores that are kept the later one stays
        if (states->pending[i].kept) put(states->memory, &states->pending[i]);
    *out = (crash_state){.operation = states->operation, .choice = choice, .choices = states->choices,
                         .marks = states->marks, .exhaustive = states->exhaustive};
    return true;
}

void crash_states_undo(crash_states *states, tl_recorder *recovery) {
    size_t count = tl_recorder_count(recovery);
    for (size_t i = 0; i < count; i++) {
        tl_operation operation = tl_recorder_operation(recovery, i);
        if (operation.kind != TL_OPERATION_STREAM && operation.kind != TL_OPERATION_STORE) continue;
        if (operation.offset + operation.count > states->length) abort();
        memcpy(states->memory + operation.offset, states->durable + operation.offset, operation.count);
    }
}

bool crash_states_is_restored(crash_states *states) {
    put_back(states);
    for (size_t i = 0; i < states->count; i++) states->pending[i].kept = false;
    return memcmp(states->memory, states->durable, states->length) == 0;
}
