/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "allocator/plan.h"

#include "allocator/span.h"

#include <errno.h>
#include <stdlib.h>

/* How far a search goes where many free runs are alike. The bench has what they cost. */
#define PLAN_SEEDS 64u    /* free runs to build windows around */
#define PLAN_PACKINGS 32u /* windows whose extents fit nowhere else, before it gives up */
#define PLAN_SCAN 20000u  /* spans, where no window around a free run will do */
#define PLAN_PROBES 32u   /* runs to look at for one that is low enough */
#define PLAN_HALVINGS 8u  /* between the longest run and what is needed */

/* From a span to another in address order; what does not move in it is free. */
struct window {
    struct span *first;
    struct span *last;
    uint64_t blocks;
    uint64_t live_blocks;
    size_t extents;
};

struct search {
    struct allocator *allocator;
    const struct allocator_limits *limits;
    uint64_t needed_blocks;
    uint64_t cost_limit_blocks; /* only a window of at most this cost is of interest */
    size_t max_moves;
    unsigned packings_failed;
    struct allocator_move *moves; /* the best window's */
    struct allocator_plan *plan;  /* the best window's */
    bool found;
};

static bool is_movable(const struct allocator_limits *limits, const struct span *extent)
{
    struct allocator_span span;

    if (extent->kind != SPAN_EXTENT || extent->replaces || extent->replaced_by)
        return false;
    if (!limits->movable)
        return true;
    span = span_describe(extent);
    return limits->movable(&span, limits->data);
}

/* Notes on a free run for this packing: what of it is left for destinations. */
static void note(struct allocator *allocator, struct span *run, uint64_t start_block,
                 uint64_t blocks)
{
    run->plan_number = allocator->plan_number;
    run->plan_start_block = start_block;
    run->plan_blocks = blocks;
}

/*
 * Notes that of the window's free runs only what is trimmed off its ends may be used, and sets in
 * plan where it then lies. What it has to spare is trimmed off one end first, and the rest off the
 * other.
 */
static void trim(const struct search *search, const struct window *window, int first_side,
                 struct allocator_plan *plan)
{
    uint64_t spare_blocks = window->blocks - search->needed_blocks;
    int side = first_side;

    for (struct span *span = window->first;; span = span->next) {
        if (span->kind == SPAN_FREE)
            note(search->allocator, span, span->start_block, 0);
        if (span == window->last)
            break;
    }
    plan->start_block = window->first->start_block;
    plan->blocks = window->blocks;
    do {
        struct span *end = side == AVL_LEFT ? window->first : window->last;
        uint64_t blocks = end->blocks < spare_blocks ? end->blocks : spare_blocks;

        if (end->kind == SPAN_FREE) {
            if (side == AVL_LEFT) {
                note(search->allocator, end, end->start_block, blocks);
                plan->start_block += blocks;
            } else {
                note(search->allocator, end, span_end_block(end) - blocks, blocks);
            }
            plan->blocks -= blocks;
            spare_blocks -= blocks;
        }
        side = !side;
    } while (side != first_side);
}

/* A place in the shortest run that has that many blocks left; ALLOCATOR_NOWHERE: none has. */
static uint64_t pack(struct allocator *allocator, uint64_t blocks)
{
    struct span *run = span_run_best_fit(allocator, blocks);
    uint64_t to_block;

    /* Passes over no more runs than the window has and other extents have been packed into. */
    for (; run; run = span_run_step(run, AVL_RIGHT)) {
        if (run->plan_number != allocator->plan_number)
            note(allocator, run, run->start_block, run->blocks);
        if (run->plan_blocks >= blocks)
            break;
    }
    if (!run)
        return ALLOCATOR_NOWHERE;
    to_block = run->plan_start_block;
    note(allocator, run, to_block + blocks, run->plan_blocks - blocks);
    return to_block;
}

static int longest_first(const void *a, const void *b)
{
    const struct allocator_move *x = a;
    const struct allocator_move *y = b;

    if (x->blocks != y->blocks)
        return x->blocks > y->blocks ? -1 : 1;
    return x->from_block < y->from_block ? -1 : 1;
}

/* Finds places for all moves, the longest first; false: one has none. */
static bool pack_all(struct allocator *allocator, struct allocator_move *moves, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        moves[i].to_block = pack(allocator, moves[i].blocks);
        if (moves[i].to_block == ALLOCATOR_NOWHERE)
            return false;
    }
    return true;
}

/* If the window's extents all fit elsewhere, it is the best one so far. */
static void consider(struct search *search, const struct window *window)
{
    struct allocator_move moves[ALLOCATOR_PLAN_MOVES_MAX];
    struct allocator_plan plan = {.moved_blocks = window->live_blocks};

    for (struct span *span = window->first;; span = span->next) {
        if (span->kind == SPAN_EXTENT)
            moves[plan.moves++] =
                (struct allocator_move){.from_block = span->start_block, .blocks = span->blocks};
        if (span == window->last)
            break;
    }
    qsort(moves, plan.moves, sizeof(moves[0]), longest_first);
    for (int side = AVL_LEFT; side <= AVL_RIGHT; side++) {
        search->allocator->plan_number++;
        trim(search, window, side, &plan);
        if (!pack_all(search->allocator, moves, plan.moves))
            continue;
        for (size_t i = 0; i < plan.moves; i++)
            search->moves[i] = moves[i];
        *search->plan = plan;
        search->found = true;
        search->cost_limit_blocks = window->live_blocks - 1; /* only cheaper ones from here on */
        return;
    }
    search->packings_failed++;
}

static bool within_limits(const struct search *search, const struct window *window)
{
    return window->live_blocks <= search->cost_limit_blocks && window->extents <= search->max_moves;
}

static struct span *neighbour(const struct span *span, int side)
{
    return side == AVL_LEFT ? span->prev : span->next;
}

/* Takes the next extent on a side, and the run behind it, into the window. False: it may not. */
static bool widen(const struct search *search, struct window *window, int side)
{
    struct span **end = side == AVL_LEFT ? &window->first : &window->last;
    struct span *extent = neighbour(*end, side);

    if (!is_movable(search->limits, extent))
        return false;
    *end = extent;
    window->blocks += extent->blocks;
    window->live_blocks += extent->blocks;
    window->extents++;
    if (neighbour(extent, side)->kind == SPAN_FREE) {
        *end = neighbour(extent, side);
        window->blocks += (*end)->blocks;
    }
    return true;
}

/* Puts the last extent, and the free run behind it, out of the window again. */
static struct window without_last(const struct window *window)
{
    struct window narrower = *window;

    if (narrower.last->kind == SPAN_FREE) {
        narrower.blocks -= narrower.last->blocks;
        narrower.last = narrower.last->prev;
    }
    narrower.blocks -= narrower.last->blocks;
    narrower.live_blocks -= narrower.last->blocks;
    narrower.extents--;
    narrower.last = narrower.last->prev;
    return narrower;
}

/*
 * Slides over all windows that hold the seed and are of interest. For each left end the right end
 * is the nearest that is long enough; as the left end goes down, the right end never has to go up
 * again: what was too dear or too far with less on the left is so with more.
 */
static void slide(struct search *search, struct span *seed)
{
    struct window window = {.first = seed, .last = seed, .blocks = seed->blocks};

    while (window.blocks < search->needed_blocks && within_limits(search, &window))
        if (!widen(search, &window, AVL_RIGHT))
            break;
    do {
        while (window.last != seed) {
            struct window narrower = without_last(&window);

            if (within_limits(search, &window) && narrower.blocks < search->needed_blocks)
                break;
            window = narrower;
        }
        if (!within_limits(search, &window) || search->packings_failed >= PLAN_PACKINGS)
            return;
        if (window.blocks >= search->needed_blocks)
            consider(search, &window);
    } while (widen(search, &window, AVL_LEFT));
}

static void add_last(struct window *window, struct span *span)
{
    if (!window->first)
        window->first = span;
    window->last = span;
    window->blocks += span->blocks;
    if (span->kind == SPAN_EXTENT) {
        window->live_blocks += span->blocks;
        window->extents++;
    }
}

static void drop_first(struct window *window)
{
    struct span *span = window->first;

    window->blocks -= span->blocks;
    if (span->kind == SPAN_EXTENT) {
        window->live_blocks -= span->blocks;
        window->extents--;
    }
    window->first = span == window->last ? NULL : span->next;
}

/*
 * Slides one window over the section from its low end, of extents that may move and are not longer
 * than every free run: where short ones lie close together, away from any free run.
 */
static void scan(struct search *search)
{
    const struct span *longest = span_run_longest(search->allocator);
    struct span *span = search->allocator->edge.next;
    struct window window = {0};

    for (unsigned spans = 0; longest && spans < PLAN_SCAN && span->kind != SPAN_EDGE &&
                             search->packings_failed < 2 * PLAN_PACKINGS;
         spans++, span = span->next) {
        if (span->kind == SPAN_EXTENT &&
            (span->blocks > longest->blocks || !is_movable(search->limits, span))) {
            window = (struct window){0};
            continue;
        }
        add_last(&window, span);
        while (window.first && (window.blocks - window.first->blocks >= search->needed_blocks ||
                                !within_limits(search, &window)))
            drop_first(&window);
        if (window.blocks >= search->needed_blocks && window.extents > 0)
            consider(search, &window);
    }
}

int allocator_plan_moves(struct allocator *allocator, uint64_t needed_blocks,
                         const struct allocator_limits *limits, struct allocator_move *moves,
                         struct allocator_plan *plan)
{
    struct search search = {
        .allocator = allocator,
        .limits = limits,
        .needed_blocks = needed_blocks,
        .cost_limit_blocks = limits->budget_blocks,
        .max_moves = limits->max_moves,
        .moves = moves,
        .plan = plan,
    };
    struct span *run;

    if (!needed_blocks)
        return -EINVAL;
    if (allocator_room(allocator, needed_blocks) == ALLOCATOR_FULL)
        return -ENOSPC;
    run = span_run_best_fit(allocator, needed_blocks);
    if (run) {
        *plan = (struct allocator_plan){.start_block = run->start_block, .blocks = run->blocks};
        return 0;
    }
    if (search.max_moves > ALLOCATOR_PLAN_MOVES_MAX)
        search.max_moves = ALLOCATOR_PLAN_MOVES_MAX;
    run = span_run_longest(allocator);
    for (unsigned seeds = 0; run && seeds < PLAN_SEEDS; seeds++) {
        uint64_t most_free_blocks = (search.max_moves + 1) * run->blocks;

        /* Cheaper than what is left to find? Then it is the cheapest. */
        if (most_free_blocks < needed_blocks &&
            needed_blocks - most_free_blocks > search.cost_limit_blocks)
            break;
        slide(&search, run);
        run = span_run_step(run, AVL_LEFT);
    }
    if (!search.found)
        scan(&search);
    return search.found ? 0 : -EAGAIN;
}

/*
 * A lower free run that an extent fits, not beside it and not `spared`; ALLOCATOR_NOWHERE: none was
 * found.
 */
static uint64_t lower_place(const struct allocator *allocator, const struct span *extent,
                            const struct span *spared)
{
    struct span *run = span_run_best_fit(allocator, extent->blocks);

    for (unsigned probes = 0; run && probes < PLAN_PROBES; probes++) {
        if (run->start_block < extent->start_block && run != extent->prev && run != spared)
            return run->start_block;
        run = span_run_step(run, AVL_RIGHT);
    }
    return ALLOCATOR_NOWHERE;
}

static uint64_t free_blocks_of(const struct span *span)
{
    return span->kind == SPAN_FREE ? span->blocks : 0;
}

/* The move of an extent to a lower place, and how long a free run it leaves; false: none. */
static bool lowering(const struct allocator *allocator, const struct allocator_limits *limits,
                     const struct span *extent, const struct span *spared,
                     struct allocator_move *move, uint64_t *leaves_blocks)
{
    uint64_t beside_blocks = free_blocks_of(extent->prev) + free_blocks_of(extent->next);

    if (extent->kind != SPAN_EXTENT || extent->blocks > limits->budget_blocks)
        return false;
    *move = (struct allocator_move){
        .from_block = extent->start_block,
        .to_block = lower_place(allocator, extent, spared),
        .blocks = extent->blocks,
    };
    *leaves_blocks = beside_blocks + extent->blocks;
    if (move->to_block == ALLOCATOR_NOWHERE) {
        /* Down to the low end of the run before it: both runs beside it become one. */
        if (free_blocks_of(extent->prev) < extent->blocks)
            return false;
        move->to_block = extent->prev->start_block;
        *leaves_blocks = beside_blocks;
    }
    return is_movable(limits, extent);
}

/* The extents from the top of the section down: the first that has a lower place. */
static int lower_the_top(const struct allocator *allocator, const struct allocator_limits *limits,
                         const struct span *spared, struct allocator_move *move)
{
    struct avl_node *node = avl_end(&allocator->extents, AVL_RIGHT);
    uint64_t leaves_blocks;

    for (unsigned seeds = 0; node && seeds < PLAN_SEEDS; seeds++) {
        if (lowering(allocator, limits, span_of(node), spared, move, &leaves_blocks))
            return 0;
        node = avl_step(node, AVL_LEFT);
    }
    return -ENOENT;
}

/* spared: a run that is not to be made shorter, or NULL. */
static int compact(struct allocator *allocator, const struct allocator_limits *limits,
                   const struct span *spared, struct allocator_move *move)
{
    struct span *longest = span_run_longest(allocator);
    struct span *run = longest;
    uint64_t best_gain_blocks = 0;

    if (!limits->max_moves)
        return -EINVAL;
    if (allocator->run_count < 2)
        return -ENOENT;
    /*
     * An extent beside the longest run that goes elsewhere gains at least what it moves; one beside
     * no run of half that length never does. So the longest runs are where to look.
     */
    for (unsigned seeds = 0; run && seeds < PLAN_SEEDS; seeds++) {
        for (int side = AVL_LEFT; side <= AVL_RIGHT; side++) {
            struct allocator_move tried;
            uint64_t leaves_blocks;

            if (!lowering(allocator, limits, neighbour(run, side), NULL, &tried, &leaves_blocks) ||
                leaves_blocks <= longest->blocks)
                continue;
            uint64_t gain_blocks = leaves_blocks - longest->blocks;

            if (!best_gain_blocks || (unsigned __int128)gain_blocks * move->blocks >
                                         (unsigned __int128)best_gain_blocks * tried.blocks) {
                best_gain_blocks = gain_blocks;
                *move = tried;
            }
        }
        run = span_run_step(run, AVL_LEFT);
    }
    return best_gain_blocks ? 0 : lower_the_top(allocator, limits, spared, move);
}

int allocator_plan_compact(struct allocator *allocator, const struct allocator_limits *limits,
                           struct allocator_move *move)
{
    return compact(allocator, limits, NULL, move);
}

int allocator_plan_towards(struct allocator *allocator, uint64_t needed_blocks,
                           const struct allocator_limits *limits, struct allocator_move *moves,
                           struct allocator_plan *plan)
{
    int r = allocator_plan_moves(allocator, needed_blocks, limits, moves, plan);

    if (r != -EAGAIN)
        return r;
    const struct span *longest = span_run_longest(allocator);
    uint64_t can_blocks = longest ? longest->blocks : 0;
    uint64_t cannot_blocks = needed_blocks;
    bool found = false;

    /* An attempt that fails leaves moves and plan as they are. */
    for (unsigned i = 0; i < PLAN_HALVINGS && can_blocks + 1 < cannot_blocks; i++) {
        uint64_t middle_blocks = can_blocks + (cannot_blocks - can_blocks) / 2;

        if (allocator_plan_moves(allocator, middle_blocks, limits, moves, plan) == 0) {
            can_blocks = middle_blocks;
            found = true;
        } else {
            cannot_blocks = middle_blocks;
        }
    }
    if (found)
        return 0;
    /* With the longest run spared, so that no two rounds undo each other's work for ever. */
    if (compact(allocator, limits, longest, moves) < 0)
        return -EAGAIN;
    *plan = (struct allocator_plan){
        .start_block = moves->from_block, .moved_blocks = moves->blocks, .moves = 1};
    return 0;
}
