/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/move.h - one ring's way from one extent to the next. The states are drawn in
 * broker/mover.h, which decides when what is done.
 *
 * Event loop only.
 */
#ifndef VCHAN_BROKER_MOVE_H
#define VCHAN_BROKER_MOVE_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "broker/channel.h"
#include "broker/compaction.h"
#include "broker/history.h"
#include "proto/proto.h"

enum move_state {
    MOVE_WAITING,
    MOVE_FILLING,
    MOVE_PUBLISHED,
    MOVE_RECLAIMING,
    MOVE_EMPTYING,
};

struct mover_move {
    struct cds_list_head link; /* owner: mover.moves */
    struct channel *channel;
    unsigned ring;
    enum move_state state;
    uint64_t to_bytes;
    struct ring_extent next; /* FILLING */
    struct ring_extent old;  /* EMPTYING */
    uint64_t handled_bytes;  /* FILLING, EMPTYING: of that */
    uint64_t began_ns;
    uint64_t published_ns;
    uint64_t look_ns;     /* PUBLISHED: at the earliest */
    uint64_t distance_ns; /* from one look to the next */
    uint64_t number;      /* in the history; 0: not yet */
    uint64_t then_bytes;  /* RING_SET came while it moved; 0: none did */
    const char *trigger;
    bool explained; /* in the history stands what pins it, in place of the reason */
    struct compaction_demand room; /* WAITING: others are moved to make room for it */
    uint64_t for_round;            /* it makes room in this round of broker/compaction.h; 0: no */
    char reason[sizeof(((struct proto_decision *)0)->reason)];
};

/* NULL: no memory. The ring must not have one. */
struct mover_move *move_new(struct channel *channel, unsigned ring, uint64_t to_bytes,
                            const char *trigger, const char *reason, uint64_t now_ns);

/* What is known of it for the history. */
void move_describe(const struct channel *channel, unsigned ring, struct proto_decision *decision);

/* WAITING: takes the extent, anywhere or at a given offset. -ENOSPC, -EDQUOT, -ENOMEM, -EBUSY. */
int move_take(struct mover_move *move);
int move_take_at(struct mover_move *move, uint64_t offset);

/*
 * FILLING: makes no more than *budget_bytes of it present, and counts them off. 1: all is, 0: more
 * to do. -ENOMEM: the host is full; the extent has been given back.
 */
int move_fill(struct mover_move *move, uint64_t *budget_bytes);

/* FILLING, all present: the generation goes out, and a producer that sleeps for space is woken. */
void move_publish(struct mover_move *move, struct history *history, uint64_t now_ns);

/*
 * PUBLISHED: has the consumer followed (EMPTYING)? If not, and it may: will it, after a grace
 * period (RECLAIMING)?
 */
void move_look(struct mover_move *move, bool may_reclaim, struct history *history, uint64_t now_ns);

/* RECLAIMING, and the grace period is over: EMPTYING, or PUBLISHED again. */
void move_reclaim(struct mover_move *move, struct history *history, uint64_t now_ns);

/*
 * EMPTYING: gives no more than *budget_bytes back to the host. True: all is, and the blocks are
 * free.
 */
bool move_empty(struct mover_move *move, uint64_t *budget_bytes);

/* The old extent is free, or goes with its channel. */
void move_record_done(const struct mover_move *move, struct history *history, uint64_t now_ns);

/* Long enough not followed that one should know of it. */
bool move_is_pinned(const struct mover_move *move);

/*
 * Wherever it stands: gives back what neither the ring's geometry nor anybody else knows of, and
 * frees it.
 */
void move_free(struct mover_move *move);

#endif
