/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/geometry.h - the broker's side of a ring: which extents it has, generation by generation.
 *
 *            init                publish                      followed, or reclaim finishes
 *   (nothing) ----> SETTLED(g) ----------> MOVING(g -> g+1) -------------------------------->
 *   SETTLED(g+1)
 *                                            two extents         the old one is the caller's again
 *
 * SETTLED: publish. MOVING: the two ways to get the old extent back:
 *   - ring_geometry_followed: the consumer has made a switch to the new generation. Any time, no
 *   grace period.
 *   - reclaim, for a ring whose ends do not run: ring_reclaim_begin for all such rings, one
 *   order_grace_period(),
 *     ring_reclaim_finish for each. A ring that is not empty, or whose end is in an operation,
 *     keeps its old extent until the next round.
 *
 * The truth is in struct ring_geometry, private to the broker; what is in shared memory is only
 * published from it, and what the ends wrote there is checked. One thread at a time for each ring;
 * begin and finish may run in another thread than the grace period between them. The order of the
 * loads in reclaim is that of tests/model (docs/model.md).
 */
#ifndef VCHAN_RING_GEOMETRY_H
#define VCHAN_RING_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/layout.h"

struct ring_extent {
    uint64_t offset; /* bytes from the start of the region */
    uint64_t size;   /* bytes; 0: none */
};

struct ring_geometry {
    struct layout_ring *shared;
    uint64_t generation;
    struct ring_extent current;
    struct ring_extent old; /* size 0: SETTLED */
    /* Between ring_reclaim_begin and ring_reclaim_finish: */
    bool reclaiming;
    bool consumer_was_dead;
    uint64_t switch_count;
};

/*
 * Ends that are known to be dead count as out of any operation. Their bits in layout_channel.gone
 * are set already.
 */
#define RING_PRODUCER_DEAD 0x1u
#define RING_CONSUMER_DEAD 0x2u

/* Why an old extent could not be taken back yet. */
enum ring_pin {
    RING_NOT_PINNED,
    /* a switch is under way, or data is left: its ends run, they will follow */
    RING_PIN_FOLLOWING,
    RING_PIN_DATA,       /* not empty */
    RING_PIN_PRODUCER,   /* the producer is in an operation */
    RING_PIN_CONSUMER,   /* the consumer is in an operation */
    RING_PIN_PROMISE,    /* the producer's program was promised more than the new extent holds */
};

/* Makes the ring (all of *shared, which must be zero) with its first generation, 1. */
void ring_geometry_init(struct ring_geometry *geometry, struct layout_ring *shared,
                        struct ring_extent extent);

/*
 * Publishes the next generation. The caller has allocated the extent and it is present in the
 * memfd. -EBUSY while MOVING. Then returns 1 when the producer sleeps for space and is to be woken
 * (its doorbell rung), else 0.
 */
int ring_geometry_publish(struct ring_geometry *geometry, struct ring_extent extent);

/*
 * MOVING, and the consumer has followed into the new generation: then *old is the caller's to free,
 * and it is SETTLED.
 */
bool ring_geometry_followed(struct ring_geometry *geometry, struct ring_extent *old);

/*
 * True: may succeed after a grace period; then ring_reclaim_finish must be called. dead:
 * RING_*_DEAD.
 */
bool ring_reclaim_begin(struct ring_geometry *geometry, unsigned dead);

/* After the grace period. RING_NOT_PINNED: *old is the caller's to free, and it is SETTLED. */
enum ring_pin ring_reclaim_finish(struct ring_geometry *geometry, unsigned dead,
                                  struct ring_extent *old);

/*
 * The least size that keeps what the producer promised its program, bytes; hostile values are cut
 * to the current size.
 */
uint64_t ring_geometry_promised(const struct ring_geometry *geometry);

/* A sentence for operators ("the sender is in an operation"). */
const char *ring_pin_text(enum ring_pin pin);

/*
 * A look at a ring's counters, each loaded once. Values are what the ends wrote, with positions
 * forced into order (received <= sent, held <= sum of extents), so that they can be printed and
 * computed with.
 */
struct ring_sample {
    uint64_t sent_bytes, received_bytes, held_bytes, high_water_bytes;
    uint64_t sent_operations, received_operations;
    uint64_t stalls, stall_ns;
    uint64_t producer_doorbells, consumer_doorbells, producer_sleeps, consumer_sleeps;
    bool stalled;
    bool consumer_armed; /* it sleeps, waiting for data */
    bool producer_armed; /* it sleeps, waiting for space */
};
void ring_sample_take(const struct layout_ring *shared, uint64_t capacity_bytes, uint64_t epoch,
                      struct ring_sample *sample);

/* Starts a new interval of the high-water mark. */
void ring_sample_epoch(struct layout_ring *shared, uint64_t epoch);

#endif
