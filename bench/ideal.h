/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/ideal.h - the ring that ours is compared with: the least that a ring between two processes
 * can do.
 *
 * Single producer, single consumer, a power of two of bytes mapped twice in a row, positions that
 * run freely, each end with a private copy of its own position and of the last one it saw of the
 * other, each shared position in two cache lines of its own, one memcpy, one release store. All of
 * it is inline in the measuring loop.
 *
 * What it leaves out, so that the difference is the price of these: memory that moves while it is
 * used (generations, the in-operation mark, switches), distrust (a position that the other end made
 * up is believed), the other end's death or closing, sleeping and waking, statistics, promises of
 * space, errors.
 */
#ifndef VCHAN_BENCH_IDEAL_H
#define VCHAN_BENCH_IDEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring/order.h"

struct ideal_position {
    uint64_t bytes;
    uint8_t pad[120];
};

struct ideal_shared {
    struct ideal_position tail, head;
};

/* One end; the fields that the other kind of end needs are unused. */
struct ideal_ring {
    struct ideal_shared *shared;
    uint8_t *data;
    uint64_t mask;
    uint64_t position; /* own: tail or head */
    uint64_t seen;     /* of the other end */
} __attribute__((aligned(128)));

/* shared: zero at first; data: size bytes, a power of two, mapped twice in a row. */
static inline void ideal_init(struct ideal_ring *ring, struct ideal_shared *shared, uint8_t *data,
                              uint64_t size)
{
    *ring = (struct ideal_ring){.shared = shared, .data = data, .mask = size - 1};
}

/* Space for n bytes? Looks at the other end only when what it saw last does not do. */
static inline bool ideal_has_space(struct ideal_ring *ring, size_t n)
{
    if (ring->mask + 1 - (ring->position - ring->seen) >= n)
        return true;
    ring->seen = order_load_acquire(&ring->shared->head.bytes);
    return ring->mask + 1 - (ring->position - ring->seen) >= n;
}

static inline uint8_t *ideal_at(const struct ideal_ring *ring)
{
    return ring->data + (ring->position & ring->mask);
}

static inline void ideal_publish(struct ideal_ring *ring, size_t n)
{
    ring->position += n;
    order_store_release(&ring->shared->tail.bytes, ring->position);
}

static inline bool ideal_has_data(struct ideal_ring *ring, size_t n)
{
    if (ring->seen - ring->position >= n)
        return true;
    ring->seen = order_load_acquire(&ring->shared->tail.bytes);
    return ring->seen - ring->position >= n;
}

static inline void ideal_take(struct ideal_ring *ring, size_t n)
{
    ring->position += n;
    order_store_release(&ring->shared->head.bytes, ring->position);
}

#endif
