/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/producer.h - the sending end of a ring.
 *
 * All state that counts is private to this end; words of the other end and of the broker are loaded
 * once and checked. One thread at a time. No call here blocks. Only changing the generation (mmap,
 * munmap) and arming (membarrier) make system calls.
 */
#ifndef VCHAN_RING_PRODUCER_H
#define VCHAN_RING_PRODUCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/layout.h"
#include "ring/memory.h"

struct ring_span {
    uint8_t *data;
    size_t size;
};

/* An extent as this end uses it: a private, checked copy of what the broker published. */
struct ring_view {
    uint64_t generation; /* 0: none */
    uint64_t base;       /* position of the extent's first byte */
    uint64_t size;
    uint8_t *address; /* mapped twice in a row; NULL: not mapped yet */
};

struct ring_producer {
    struct layout_ring *shared;
    const struct layout_channel *channel;
    const struct ring_memory *memory;
    uint32_t gone_bit; /* of the consumer, in layout_channel.gone */
    bool fence_mark, fence_sleep;
    bool entering; /* the operation's span lies in `next`: commit switches */
    /* 0, or -EPROTO once the other end broke the rules: every later call returns it */
    int broken;

    uint64_t tail;      /* published */
    uint64_t head_seen; /* the last head that passed the check: head_seen <= tail */
    uint64_t cursor;    /* (tail - view.base) % view.size */
    uint64_t floor;     /* no generation is smaller: the ring's minimum when it was opened */
    uint64_t promised;  /* see ring_producer_promise */
    uint64_t promised_before; /* holding: what disarm goes back to */
    bool holding;
    size_t reserved;    /* size of the operation's span */

    struct ring_view view; /* in use */
    struct ring_view next; /* mapped for a switch that has not been made yet */
    uint64_t switch_count;
    uint64_t followed_seen; /* of the consumer: it never goes back */

    uint64_t mark;      /* even: out of an operation */
    uint32_t armed;     /* the last number in our sleep line, 0 never */
    uint32_t rung;      /* the consumer's last number that we rang for */
    uint64_t doorbells, stalls, stall_ns, sleeps;
    uint64_t stall_start_ns; /* 0: not stalled */
};

/*
 * page and memory are borrowed and outlive the producer. ring: LAYOUT_*_SENDS. features:
 * LAYOUT_FEATURE_*. floor: the ring's minimum in bytes, as the broker granted it. The ring must be
 * at its beginning.
 */
void ring_producer_init(struct ring_producer *producer, struct layout_channel_page *page,
                        unsigned ring, const struct ring_memory *memory, uint64_t features,
                        uint64_t floor);
void ring_producer_deinit(struct ring_producer *producer);

/*
 * Starts an operation and gives min to max contiguous bytes of space (1 <= min <= max). On 0,
 * commit must follow.
 * -EAGAIN less than min is free now; -EMSGSIZE min is more than the ring can hold; -EPIPE the
 * consumer has closed;
 * -EPROTO rubbish in shared memory; -ENOMEM the new generation could not be mapped.
 */
int ring_producer_reserve(struct ring_producer *producer, size_t min, size_t max,
                          struct ring_span *span);

/*
 * Ends the operation and publishes the first n bytes of the span (0: none). True: the consumer
 * sleeps and is to be woken (ring its doorbell once).
 */
bool ring_producer_commit(struct ring_producer *producer, size_t n);

/*
 * Bytes that a reserve is likely to find, without starting an operation: what spinning asks.
 * SIZE_MAX: reserve would report an error.
 */
size_t ring_producer_space(struct ring_producer *producer);

/*
 * Bytes that may be written now, at most limit, as a promise: it holds until the next commit,
 * whatever the broker does. When the broker has just published another generation, no more than the
 * floor can be promised. An operation of its own; 0 when the consumer is gone.
 */
size_t ring_producer_promise(struct ring_producer *producer, size_t limit);

/*
 * Sleeping for space. arm: says that this end sleeps until `bytes` are free (or there is another
 * generation, or the consumer goes); false: that is so already, do not sleep. After waking, or
 * instead of it: disarm. While armed the ring does not get too small for `bytes`. Pairs with
 * ring_consumer_release. (A membarrier system call.)
 */
bool ring_producer_arm(struct ring_producer *producer, size_t bytes);
void ring_producer_disarm(struct ring_producer *producer);

/*
 * Stalled: lacks space from now on (idempotent; true the first time: tell the broker) and no
 * longer.
 */
bool ring_producer_stall_begin(struct ring_producer *producer);
void ring_producer_stall_end(struct ring_producer *producer);

/* No more bytes will come. True: wake the consumer. */
bool ring_producer_close(struct ring_producer *producer);

#endif
