/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/compaction.h - makes room in a fragmented region by moving live rings out of the way.
 *
 * Who needs an extent that no free run holds, though enough is free in all, makes a demand and is
 * called when there is such a run, or when there will be none. Of each zone the demand that came
 * first is served, in rounds:
 *
 *     ask ---> waits for its turn ---> round under way ---> done(0): take it in this very call
 *                    |                   |        ^   |
 *                    |                   +--------+   |     the moves of a round are over, and
 *                    v                                v     more are needed
 *                  done(-ENOSPC): nothing helps, or its time is over
 *
 * A round is the cheapest set of moves for all that is needed, or for a part of it where the budget
 * or the free runs do not suffice (allocator_plan_towards): COMPACTION_STEPS_MAX rings and
 * COMPACTION_BUDGET_BYTES at most. What a round frees is barred for others until it is used, who
 * meanwhile take what is free elsewhere: a demand does not hold up those that fit. A demand that is
 * not at the head is done as soon as it fits without a move. Where all that is left of a round is
 * pinned by ends that do not read, the next round goes around them.
 *
 * Why rings are moved when somebody needs the room and not ahead of it: most openings fit as they
 * come, and a move costs both ends a mapping; one that has to wait waits some 20 ms.
 *
 * How full a region can get: moves need a free run as long as the shortest ring that is in the way,
 * no more; rings up to that length make room for longer ones. What the policy leaves free
 * (reserve-permille, and its level) is there for openings and commands, which may use all of it, so
 * a region can be filled to the last run that no ring that waits fits into. Only rings that are
 * longer than all that is free, with nothing shorter between them, cannot be moved any more.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_COMPACTION_H
#define VCHAN_BROKER_COMPACTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <urcu/list.h>

#include "broker/channel.h"
#include "broker/zone.h"

#define COMPACTION_STEPS_MAX 64u
/* A round. Nobody copies it, but it is made present, and mapped anew by both ends. */
#define COMPACTION_BUDGET_BYTES (64ull << 20)

/* This ring goes to that offset of the region, with the size it has. */
struct compaction_step {
    struct channel *channel;
    unsigned ring;
    uint64_t bytes;
    uint64_t to_offset;
};

struct compaction_demand;

/* error: 0, -ENOSPC. The demand is over, its memory the owner's again. */
typedef void compaction_done(struct compaction_demand *demand, int error);

/* Zero-initialise; set the first part before compaction_ask. */
struct compaction_demand {
    struct zone *zone;
    uint64_t bytes;
    uint64_t until_ns; /* CLOCK_MONOTONIC */
    compaction_done *done;
    void *data;
    char reason[96]; /* for the history */
    /* Inside. */
    struct cds_list_head link; /* owner: compaction.demands, in the order in which they came */
    uint64_t round;            /* number of its last round; 0: none yet */
    bool waiting;              /* linked */
    bool barring;              /* what the round frees */
};

/* Who moves the rings: broker/mover.h. */
struct compaction_setup {
    const struct channels *channels;
    /* Begins a move of that round. */
    void (*move)(void *mover, const struct compaction_step *step, uint64_t round,
                 const char *reason);
    /* Moves of that round that are under way; *pinned: of them, those that an end pins. */
    unsigned (*under_way)(void *mover, uint64_t round, unsigned *pinned);
    /* Will somebody in the zone give memory back soon? */
    bool (*gives)(void *mover, const struct zone *zone);
    void *mover;
};

struct compaction {
    struct compaction_setup setup;
    struct cds_list_head demands;
    uint64_t rounds;
};

void compaction_init(struct compaction *compaction, const struct compaction_setup *setup);

/* Those that still wait are forgotten, done is not called. */
void compaction_deinit(struct compaction *compaction);

/*
 * 0: done will be called, from compaction_step. -ENOSPC: nothing can be done; it will not.
 */
int compaction_ask(struct compaction *compaction, struct compaction_demand *demand,
                   uint64_t now_ns);

/* Nothing if it does not wait. */
void compaction_cancel(struct compaction_demand *demand);

/* After memory was freed, or moves got on. When to call it again at the latest; UINT64_MAX. */
uint64_t compaction_step(struct compaction *compaction, uint64_t now_ns);

#endif
