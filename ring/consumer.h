/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/consumer.h - the receiving end of a ring. As ring/producer.h, mirrored.
 */
#ifndef VCHAN_RING_CONSUMER_H
#define VCHAN_RING_CONSUMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/layout.h"
#include "ring/memory.h"
#include "ring/producer.h"

struct ring_consumer {
    struct layout_ring *shared;
    const struct layout_channel *channel;
    const struct ring_memory *memory;
    uint32_t gone_bit; /* of the producer, in layout_channel.gone */
    bool fence_mark, fence_sleep;
    int broken; /* 0, or -EPROTO once the other end broke the rules */

    uint64_t head;      /* published */
    uint64_t tail_seen; /* the last tail that passed the check */
    uint64_t cursor;    /* (head - view.base) % view.size */
    size_t peeked;      /* size of the operation's span */

    struct ring_view view;  /* that the byte at head lies in; size 0: not looked up yet */
    bool switch_pending;    /* the producer has switched at a position that head has not reached */
    struct ring_view next;  /* to where */
    uint64_t switch_count;  /* followed */

    bool doorbell_owed; /* see ring_consumer_owes_doorbell */
    uint64_t mark;
    uint32_t armed;
    uint32_t rung;
    uint64_t doorbells, sleeps;
    uint64_t high_water, high_water_epoch;
};

void ring_consumer_init(struct ring_consumer *consumer, struct layout_channel_page *page,
                        unsigned ring, const struct ring_memory *memory, uint64_t features);
void ring_consumer_deinit(struct ring_consumer *consumer);

/*
 * Starts an operation and gives at least min bytes (min >= 1), as many as are known and lie
 * contiguous: it looks for news only when fewer than min are known; ring_consumer_available with a
 * larger want does so before. On 0, release must follow.
 * -EAGAIN fewer are there now; -EMSGSIZE the ring is too small for min bytes, or they lie on both
 * sides of a switch just now; -EPIPE the producer has closed and fewer are left; -EPROTO rubbish in
 * shared memory; -ENOMEM.
 */
int ring_consumer_peek(struct ring_consumer *consumer, size_t min, struct ring_span *span);

/*
 * Ends the operation and takes the first n bytes off. True: the producer sleeps and is to be woken.
 */
bool ring_consumer_release(struct ring_consumer *consumer, size_t n);

/*
 * Bytes there now (across a switch), without starting an operation. Looks at shared memory only if
 * fewer than want are known.
 */
size_t ring_consumer_available(struct ring_consumer *consumer, size_t want);

/*
 * Looking for bytes can make a step that a sleeping producer waits for (it enters the extent that
 * we have left the old one for). True, once: ring its doorbell. To be asked whenever bytes were
 * looked for and no release follows that says so itself, and before sleeping.
 */
bool ring_consumer_owes_doorbell(struct ring_consumer *consumer);

/* The producer has closed or died: no byte will come after those that are available now. */
bool ring_consumer_ended(struct ring_consumer *consumer);

/* Sleeping for data: until `bytes` are there, or the producer goes. As ring_producer_arm. */
bool ring_consumer_arm(struct ring_consumer *consumer, size_t bytes);
void ring_consumer_disarm(struct ring_consumer *consumer);

/* Takes no more bytes. True: wake the producer. */
bool ring_consumer_close(struct ring_consumer *consumer);

#endif
