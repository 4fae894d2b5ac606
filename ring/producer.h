/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/producer.h - the sending end of a ring.
 *
 * All state that counts is private to this end; words of the other end and of the broker are loaded once and
 * checked. One thread at a time. No call here blocks or makes a system call, except that entering a new
 * generation maps it.
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

struct ring_producer {
    struct layout_ring *shared;
    const struct layout_channel *channel;
    const struct ring_memory *memory;
    uint32_t gone_bit; /* of the consumer, in layout_channel.gone */
    bool fence_mark, fence_sleep;
    bool in_operation;
    int broken; /* 0, or -errno once the other end broke the rules: every later call returns it */

    uint64_t tail;      /* published */
    uint64_t head_seen; /* the last head that passed the check: base <= head_seen <= tail */
    uint64_t promised;  /* see ring_producer_promise */

    uint64_t generation; /* in use; 0: nothing mapped yet */
    uint64_t base;       /* position of the extent's first byte */
    uint64_t size;
    uint64_t cursor; /* (tail - base) % size */
    uint8_t *extent; /* mapped twice */
    uint64_t switch_count;

    uint64_t mark;
    uint64_t armed_count; /* sleeps so far: the next number for layout_sleep.armed */
    uint32_t rung;        /* the consumer's last armed number that was rung */
    uint64_t doorbells, stalls, stall_ns, sleeps;
    uint64_t stall_start_ns; /* 0: not stalled */
};

/* page and memory are borrowed and outlive the producer. ring: LAYOUT_*_SENDS. features: LAYOUT_FEATURE_*. */
void ring_producer_init(struct ring_producer *producer, struct layout_channel_page *page, unsigned ring,
                        const struct ring_memory *memory, uint64_t features);
void ring_producer_deinit(struct ring_producer *producer);

/*
 * Starts an operation and gives min to max contiguous bytes of space (1 <= min <= max). On 0, commit must follow.
 * -EAGAIN less than min is free now; -EMSGSIZE min is more than the ring can hold; -EPIPE the consumer has closed;
 * -EPROTO rubbish in shared memory; -ENOMEM the new generation could not be mapped.
 */
int ring_producer_reserve(struct ring_producer *producer, size_t min, size_t max, struct ring_span *span);

/*
 * Ends the operation and publishes the first n bytes of the span (0: none). True: the consumer sleeps and is
 * to be woken (ring its doorbell once).
 */
bool ring_producer_commit(struct ring_producer *producer, size_t n);

/* Space now, without starting an operation: a hint that reserve may correct. SIZE_MAX: reserve would report an error. */
size_t ring_producer_space(struct ring_producer *producer);

/*
 * Space now, at most limit, as a promise: until the next commit the broker will not take it away. Returns it.
 * An operation of its own.
 */
size_t ring_producer_promise(struct ring_producer *producer, size_t limit);

/* The most that one reserve could ever give in the extent in use or the next one. */
size_t ring_producer_capacity(struct ring_producer *producer);

/*
 * Sleeping for space. arm: says that this end sleeps until `bytes` are free (or the ring grows, or the consumer goes);
 * false: that is so already, do not sleep. After waking, or instead of it: disarm. Pairs with ring_consumer_release.
 */
bool ring_producer_arm(struct ring_producer *producer, size_t bytes);
void ring_producer_disarm(struct ring_producer *producer);

/* Stalled: lacks space from now on (idempotent; true the first time: tell the broker) and no longer. */
bool ring_producer_stall_begin(struct ring_producer *producer);
void ring_producer_stall_end(struct ring_producer *producer);

/* No more bytes will come. True: wake the consumer. */
bool ring_producer_close(struct ring_producer *producer);

#endif
