/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * allocator/plan.h - which live extents to move so that free memory comes together.
 *
 * A plan changes nothing. The caller carries each move out with allocator_replace_at(from, to,
 * blocks), and with allocator_release(from) once nobody touches the old extent; all destinations
 * are free at once and overlap neither one another nor any source, so the moves may run at the same
 * time and end in any order. A plan holds until the next call that changes the books.
 *
 * THEORY OF OPERATION
 *
 * allocator_plan_moves() wants a window: neighbouring spans that together are long enough, in which
 * the live extents (what must move: the cost) are few, short and movable, and fit into free runs
 * elsewhere. The free runs at the window's ends are trimmed to what is needed; what is trimmed off
 * serves as "elsewhere".
 *
 *              trimmed |<-------------- window ----------------->| trimmed
 *     [extent][ free run       ][ move ][ longest run ][ move ][ free run   ][extent]
 *
 * A cheap window has much free in few runs, so the search goes through the free runs from the
 * longest down and slides windows over each one's surroundings, as far as the limits let them
 * reach. With runs of r blocks or fewer left and m moves allowed, a window yet unseen has at most
 * (m + 1) * r blocks free and costs at least the rest; as soon as that is no less than the best one
 * found, the best is the cheapest there is (of those that touch a free run). So the search usually
 * ends after a few runs. Where many runs are alike it stops after PLAN_SEEDS of them and takes the
 * best it saw: its time depends on the limits, not on the number of extents. Only when none of
 * these windows will do, one is slid over the first PLAN_SCAN spans, which finds short extents that
 * lie close together with no free run among them. Whether the moved
 * extents fit elsewhere is bin packing; best fit, longest first, decides it (D. S. Johnson,
 * "Near-optimal bin packing algorithms", 1973), so a window may be passed over that a cleverer
 * packing would have filled.
 */
#ifndef VCHAN_ALLOCATOR_PLAN_H
#define VCHAN_ALLOCATOR_PLAN_H

#include "allocator/allocator.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most moves that one plan holds. */
#define ALLOCATOR_PLAN_MOVES_MAX 256u

struct allocator_move {
    uint64_t from_block; /* start of a live extent */
    uint64_t to_block;   /* start of as many free blocks */
    uint64_t blocks;
};

/* What a plan may do. */
struct allocator_limits {
    uint64_t budget_blocks; /* most blocks to move in all */
    size_t max_moves;       /* room in moves[]; above ALLOCATOR_PLAN_MOVES_MAX is taken as that */
    /*
     * May this extent move now? NULL: any may. It must not change the books. Outgoing and incoming
     * ones are left out before it is asked.
     */
    bool (*movable)(const struct allocator_span *extent, void *data);
    void *data; /* for movable */
};

/* What a plan achieves. */
struct allocator_plan {
    uint64_t start_block;  /* once the moves are done, these blocks are free */
    uint64_t blocks;       /* at least what was asked for, but for allocator_plan_towards() */
    uint64_t moved_blocks; /* in all moves */
    size_t moves;          /* written to moves[] */
};

/*
 * Plans the cheapest moves that leave a free run of at least needed_blocks. Where there is one
 * already, the plan has no move and names it. To keep others out of the place in the meantime, bar
 * it (allocator_bar).
 * -EINVAL: 0 blocks. -ENOSPC: less than that is free, no move can help. -EAGAIN: nothing was found
 * within the limits; raise them, or go on with allocator_plan_towards().
 * O(max_moves * log n) usually; bounded by a constant times max_moves * (max_moves + log n), and
 * PLAN_SCAN where nothing is found around the free runs.
 */
int allocator_plan_moves(struct allocator *allocator, uint64_t needed_blocks,
                         const struct allocator_limits *limits, struct allocator_move *moves,
                         struct allocator_plan *plan);

/*
 * The next round on the way there, where allocator_plan_moves() cannot do it in one: because the
 * budget is too small, or because an extent has to move that is longer than every free run. Then
 * smaller ones are moved first: the round makes the longest run that one round can make (found by
 * PLAN_HALVINGS halvings, so about), in which the larger one then finds its place. Where not even a
 * longer run than there is can be made, the round is one move as of allocator_plan_compact(), which
 * leaves the longest run alone. Each round makes that longer, or lowers an extent and does not make
 * it shorter: so repeating comes to an end.
 * plan->blocks is what the round makes, 0 for such a single move; a round that makes all that is
 * needed has at least that.
 * -EINVAL, -ENOSPC as above. -EAGAIN: no move helps. O(PLAN_HALVINGS) times the above.
 */
int allocator_plan_towards(struct allocator *allocator, uint64_t needed_blocks,
                           const struct allocator_limits *limits, struct allocator_move *moves,
                           struct allocator_plan *plan);

/*
 * Picks the one move to a lower address that improves the largest free run most for each block
 * moved; where none improves it, the one that brings an extent from the top of the section into a
 * lower free run, so that the top runs free. For the quiet times, one after the other: every move
 * lowers an extent, so it comes to an end, and extents do not wander to and fro.
 * -ENOENT: no move is worth making, or none is allowed. -EINVAL: max_moves is 0. O(log n).
 */
int allocator_plan_compact(struct allocator *allocator, const struct allocator_limits *limits,
                           struct allocator_move *move);

#endif
