/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/events.h - struct libvchan, and what its program has been told: libvchan_wait and the
 * public descriptor.
 *
 * Theory of operation. An event is a change that the program has not been told of yet:
 *
 *   data    the tail moved, and bytes are there; or a read left some behind
 *   space   the head moved, or the ring grew, since the program found too little space
 *   (space_ticket)
 *   link    WAITING, CONNECTED, DISCONNECTED changed; or the other end closed a direction
 *
 * libvchan_wait returns when there is one, and with that the program has been told.
 * libvchan_data_ready that returns 0, and a read or receive that comes out short, tell of data.
 *
 * The public descriptor (client/wait.h says what it is) keeps one invariant, whenever no call is
 * under way:
 *
 *   it is unreadable  =>  there is no event, and both sides are armed, so that the next one makes
 *   it readable.
 *
 * It may be readable for nothing. Making it unreadable is events_quiet(): consume it, arm, look for
 * events, raise it if there are any. Everything else only ever adds readiness, or restores an
 * arming that it took away. A program that only selects, asks data_ready and reads goes through
 * events_quiet when data_ready says 0, and so can neither miss anything nor find the descriptor
 * readable for ever. One that calls libvchan_wait goes through it there. Data that has not been
 * told keeps the descriptor readable, and so does being disconnected. Other events raise it once:
 * events_quiet counts them as told then, for a program may have no use for them.
 *
 * Threads. Reader and writer hold their turn's lock; a side is armed with it held. Who must arm a
 * side whose turn another thread has (perhaps asleep, for hours) leaves `interest` behind: the
 * holder arms on its behalf when it gives the turn back, or each time before it sleeps; and its
 * eventfd is rung to make it come round. Giving back a turn must be cheap: the unlock is ordered
 * before the look at `interest` by order_look(), which pairs with order_sleep() in the other
 * thread.
 */
#ifndef VCHAN_CLIENT_EVENTS_H
#define VCHAN_CLIENT_EVENTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/channel.h"
#include "client/libvchan.h"

struct turn {
    pthread_mutex_t lock;
    bool interest; /* atomic */
    /* Under the lock: */
    bool armed;         /* by arm_reading or arm_writing, and not disarmed since */
    uint64_t armed_for; /* the tail (reading) or head (writing) that ends it */
} __attribute__((aligned(128)));

struct libvchan {
    struct vchan *v;
    bool blocking; /* atomic */
    bool watched;  /* atomic: the program has the public descriptor */
    bool raised;   /* atomic: we raised it and have not consumed it since */
    bool sleeping; /* atomic: a thread sleeps in libvchan_wait */
    /* What has been told; atomic. */
    bool left_behind;
    uint32_t told_link;
    uint64_t told_tail;
    uint64_t space_ticket;     /* 0: space is not asked for; else 1 + the head when it was */
    uint64_t space_generation; /* of the ring, when it was */
    uint32_t window_ns;        /* libvchan_wait's, see client/wait.h */
    struct turn reading, writing;
};

/* Which turns the caller holds. */
#define EVENTS_READING 0x1u
#define EVENTS_WRITING 0x2u

void events_init(struct libvchan *ctrl);

/* VCHAN_DISCONNECTED, VCHAN_CONNECTED, VCHAN_WAITING. */
uint32_t events_link(const struct libvchan *ctrl);

/* libvchan_fd_for_select: the descriptor or -errno. */
int events_watch(struct libvchan *ctrl);

static inline bool events_are_watched(const struct libvchan *ctrl)
{
    return order_load_acquire(&ctrl->watched);
}

/* libvchan_wait: 0, -EPIPE, -EINTR. */
int events_wait(struct libvchan *ctrl);

void events_quiet(struct libvchan *ctrl, unsigned held);

/* A blocking call has disarmed the side that it held. */
void events_restore(struct libvchan *ctrl, unsigned held);

/* Raises the descriptor if there is an event. */
void events_tell(struct libvchan *ctrl);

/* With the reading turn: the program knows of all the bytes that the ring has shown us. */
void events_told_data(struct libvchan *ctrl);
void events_left_behind(struct libvchan *ctrl);

/*
 * With the writing turn, after an attempt that came out short. generation, head: those that it saw,
 * or older ones (then there is an event for nothing).
 */
void events_want_space(struct libvchan *ctrl, uint64_t generation, uint64_t head);

static inline void events_forget_space(struct libvchan *ctrl)
{
    if (channel_unlikely(order_load_plain(&ctrl->space_ticket) != 0))
        order_store_plain(&ctrl->space_ticket, 0u);
}

static inline uint64_t events_generation(const struct libvchan *ctrl)
{
    return order_load_acquire(&channel_sending_ring(ctrl->v)->geometry.generation);
}

/* The turn was wanted while we had it. */
void events_settle(struct libvchan *ctrl, struct turn *turn);

static inline void turn_end(struct libvchan *ctrl, struct turn *turn)
{
    pthread_mutex_unlock(&turn->lock);
    order_look(ctrl->v->sending.ring.fence_sleep); /* pairs with order_sleep() in arm_side() */
    if (channel_unlikely(order_load_plain(&turn->interest)))
        events_settle(ctrl, turn);
}

static inline size_t least_step(size_t a, size_t b)
{
    return a < b ? a : b;
}

#endif
