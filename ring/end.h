/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring/end.h - what the two kinds of ends have in common. Internal to ring/.
 */
#ifndef VCHAN_RING_END_H
#define VCHAN_RING_END_H

#include <stdbool.h>
#include <stdint.h>

#include "ring/layout.h"
#include "ring/order.h"
#include "ring/producer.h"

/* Has the other end (its bit), or the whole channel, gone? */
static inline bool end_is_gone(const struct layout_channel *channel, uint32_t gone_bit)
{
    return (order_load_acquire(&channel->gone) & gone_bit) ||
           order_load_acquire(&channel->state) == LAYOUT_CHANNEL_CLOSED;
}

/*
 * Copies the broker's descriptor of a generation into *view (without mapping it), checked. -EPROTO:
 * the slot holds another generation, or memory outside the data section.
 */
int end_look_up(const struct layout_ring *shared, const struct ring_memory *memory,
                uint64_t generation, uint64_t base, struct ring_view *view, uint64_t *offset);

int end_map(const struct layout_ring *shared, const struct ring_memory *memory,
            struct ring_view *view);
void end_unmap(struct ring_view *view);

/* The number for the next arming: never 0. */
static inline uint32_t end_next_arming(uint32_t last)
{
    return last + 1 != 0 ? last + 1 : 1;
}

/* Says in our sleep line that we sleep until the other end's position reaches `wanted`. */
static inline void end_arm(struct layout_sleep *sleep, uint32_t number, uint64_t wanted, bool fence)
{
    order_store_plain(&sleep->wanted, wanted);
    order_store_release(&sleep->armed, number);
    order_sleep(fence); /* pairs with end_must_ring() of the other end */
}

#define END_WHATEVER_WANTED UINT64_MAX

/*
 * Having published position, must we ring the other end? Once for each of its armings. *rung
 * remembers the last one. After a switch, or after following one, END_WHATEVER_WANTED: the other
 * end's next step may depend on that, and not on a position.
 */
static inline bool end_must_ring(const struct layout_sleep *sleep, uint64_t position,
                                 uint32_t *rung, bool fence)
{
    order_look(fence); /* pairs with order_sleep() in end_arm() */
    uint32_t armed = order_load_acquire(&sleep->armed);
    if (armed == 0 || armed == *rung || order_load_plain(&sleep->wanted) > position)
        return false;
    *rung = armed;
    return true;
}

#endif
