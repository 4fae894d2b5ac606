/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/compaction.h"

#include <errno.h>

#include "allocator/plan.h"
#include "ring/geometry.h"
#include "ring/order.h"

/* Bytes that have lain in a ring for so long are not read soon. */
#define STUCK_NS 1000000000ull

struct look {
    const struct channels *channels;
    uint64_t now_ns;
};

/* A ring that moves already, or that nobody reads, would not get out of the way. */
static bool is_movable(const struct allocator_span *extent, void *context)
{
    const struct look *look = context;
    const struct channel *channel =
        channels_find(look->channels, zone_cookie_channel(extent->cookie));
    struct ring_sample sample;

    if (!channel)
        return false;
    const struct channel_ring *ring = &channel->ring[zone_cookie_ring(extent->cookie)];
    if (ring->move)
        return false;
    ring_sample_take(ring->geometry.shared, UINT64_MAX, 0, &sample);
    return sample.held_bytes == 0 ||
           (sample.received_bytes > 0 &&
            look->now_ns < order_load_plain(&ring->active_ns) + STUCK_NS);
}

static struct compaction_step step_of(const struct compaction *compaction, const struct zone *zone,
                                      const struct allocator_move *move)
{
    struct allocator_span span = {0};

    allocator_find(zone->allocator, move->from_block, &span);
    return (struct compaction_step){
        .channel = channels_find(compaction->setup.channels, zone_cookie_channel(span.cookie)),
        .ring = zone_cookie_ring(span.cookie),
        .bytes = span.blocks * LAYOUT_BLOCK_BYTES,
        .to_offset = zone_offset(zone, move->to_block),
    };
}

/* False: no move helps. */
static bool begin_round(struct compaction *compaction, struct compaction_demand *demand,
                        uint64_t now_ns)
{
    struct zone *zone = demand->zone;
    struct compaction_step steps[COMPACTION_STEPS_MAX];
    struct allocator_move moves[COMPACTION_STEPS_MAX];
    struct allocator_plan plan;
    struct look look = {.channels = compaction->setup.channels, .now_ns = now_ns};
    const struct allocator_limits limits = {
        .budget_blocks = COMPACTION_BUDGET_BYTES / LAYOUT_BLOCK_BYTES,
        .max_moves = COMPACTION_STEPS_MAX,
        .movable = is_movable,
        .data = &look,
    };

    if (allocator_plan_towards(zone->allocator, demand->bytes / LAYOUT_BLOCK_BYTES, &limits, moves,
                               &plan) < 0 ||
        plan.moves == 0)
        return false;
    for (size_t i = 0; i < plan.moves; i++)
        steps[i] = step_of(compaction, zone, &moves[i]);
    demand->round = ++compaction->rounds;
    demand->barring = true;
    allocator_bar(zone->allocator, plan.start_block, plan.blocks);
    for (size_t i = 0; i < plan.moves; i++)
        compaction->setup.move(compaction->setup.mover, &steps[i], demand->round, demand->reason);
    return true;
}

static void lift_bar(struct compaction_demand *demand)
{
    if (demand->barring)
        allocator_bar(demand->zone->allocator, 0, 0);
    demand->barring = false;
}

static bool is_first_of_zone(const struct compaction *compaction,
                             const struct compaction_demand *demand)
{
    const struct compaction_demand *other;

    cds_list_for_each_entry (other, &compaction->demands, link)
        if (other->zone == demand->zone)
            return other == demand;
    return false;
}

/* 0: there is room now. -EAGAIN: it waits on. -ENOSPC: it waits in vain. */
static int look_at(struct compaction *compaction, struct compaction_demand *demand, uint64_t now_ns)
{
    const struct compaction_setup *setup = &compaction->setup;
    unsigned pinned = 0, moving = 0;

    if (demand->round > 0)
        moving = setup->under_way(setup->mover, demand->round, &pinned);
    if (moving > pinned && now_ns < demand->until_ns)
        return -EAGAIN;
    lift_bar(demand);
    const enum allocator_room room =
        allocator_room(demand->zone->allocator, demand->bytes / LAYOUT_BLOCK_BYTES);
    if (room == ALLOCATOR_ROOM)
        return 0;
    if (now_ns >= demand->until_ns)
        return -ENOSPC;
    if (!is_first_of_zone(compaction, demand) ||
        (room == ALLOCATOR_FRAGMENTED && begin_round(compaction, demand, now_ns)) ||
        setup->gives(setup->mover, demand->zone))
        return -EAGAIN;
    return -ENOSPC;
}

void compaction_init(struct compaction *compaction, const struct compaction_setup *setup)
{
    *compaction = (struct compaction){.setup = *setup};
    CDS_INIT_LIST_HEAD(&compaction->demands);
}

void compaction_deinit(struct compaction *compaction)
{
    struct compaction_demand *demand, *next;

    cds_list_for_each_entry_safe (demand, next, &compaction->demands, link)
        compaction_cancel(demand);
}

int compaction_ask(struct compaction *compaction, struct compaction_demand *demand, uint64_t now_ns)
{
    demand->round = 0;
    demand->barring = false;
    demand->waiting = true;
    cds_list_add_tail(&demand->link, &compaction->demands);
    int r = look_at(compaction, demand, now_ns);
    if (r == -ENOSPC)
        compaction_cancel(demand);
    return r == -ENOSPC ? r : 0;
}

void compaction_cancel(struct compaction_demand *demand)
{
    if (!demand->waiting)
        return;
    lift_bar(demand);
    demand->waiting = false;
    cds_list_del(&demand->link);
}

/* The first that is over; NULL: all wait on. */
static struct compaction_demand *find_over(struct compaction *compaction, uint64_t now_ns,
                                           int *error)
{
    struct compaction_demand *demand;

    cds_list_for_each_entry (demand, &compaction->demands, link) {
        *error = look_at(compaction, demand, now_ns);
        if (*error != -EAGAIN)
            return demand;
    }
    return NULL;
}

uint64_t compaction_step(struct compaction *compaction, uint64_t now_ns)
{
    struct compaction_demand *demand;
    uint64_t due_ns = UINT64_MAX;
    int error;

    /* From the front each time: what is done may cancel others, and the next one's turn comes. */
    while ((demand = find_over(compaction, now_ns, &error))) {
        compaction_cancel(demand);
        demand->done(demand, error);
    }
    cds_list_for_each_entry (demand, &compaction->demands, link)
        if (demand->until_ns < due_ns)
            due_ns = demand->until_ns;
    return due_ns;
}
