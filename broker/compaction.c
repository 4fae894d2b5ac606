/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/compaction.h"

#include "allocator/plan.h"
#include "ring/geometry.h"

/* What is copied by nobody, but made present and mapped anew by both ends. */
#define BUDGET_BYTES (64ull << 20)

/* A ring that moves already, or that nobody has ever read, would not get out of the way. */
static bool is_movable(const struct allocator_span *extent, void *context)
{
    const struct channels *channels = context;
    const struct channel *channel = channels_find(channels, zone_cookie_channel(extent->cookie));
    struct ring_sample sample;

    if (!channel)
        return false;
    const struct channel_ring *ring = &channel->ring[zone_cookie_ring(extent->cookie)];
    ring_sample_take(ring->geometry.shared, UINT64_MAX, 0, &sample);
    return !ring->move && (sample.held_bytes == 0 || sample.received_bytes > 0);
}

size_t compaction_plan(const struct channels *channels, const struct zone *zone, uint64_t bytes,
                       struct compaction_step steps[COMPACTION_STEPS_MAX])
{
    struct allocator_move moves[COMPACTION_STEPS_MAX];
    struct allocator_plan plan;
    const struct allocator_limits limits = {
        .budget_blocks = BUDGET_BYTES / LAYOUT_BLOCK_BYTES,
        .max_moves = COMPACTION_STEPS_MAX,
        .movable = is_movable,
        .data = (void *)(uintptr_t)channels, /* not changed by is_movable */
    };
    size_t count = 0;

    if (allocator_plan_moves(zone->allocator, bytes / LAYOUT_BLOCK_BYTES, &limits, moves, &plan) <
        0)
        return 0;
    for (size_t i = 0; i < plan.moves; i++) {
        struct allocator_span span;
        if (allocator_find(zone->allocator, moves[i].from_block, &span) < 0)
            continue;
        steps[count++] = (struct compaction_step){
            .channel = channels_find(channels, zone_cookie_channel(span.cookie)),
            .ring = zone_cookie_ring(span.cookie),
            .bytes = span.blocks * LAYOUT_BLOCK_BYTES,
            .to_offset = zone_offset(zone, moves[i].to_block),
        };
    }
    return count;
}
