/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/figures.h"

#include <stdio.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/guest_mailbox.h"
#include "broker/mover.h"
#include "broker/rebalancer.h"

/* Cursor: the zone's index above, the block below; ALLOCATOR_BLOCKS_MAX is 2^51. */
#define CURSOR_SHIFT 52

#define PAGE_BYTES \
    (PROTO_MESSAGE_BYTES_MAX - sizeof(struct proto_header) - sizeof(struct proto_error) - \
     sizeof(struct proto_list_reply))
#define EXTENTS_A_PAGE (PAGE_BYTES / sizeof(struct proto_extent_info))

void figures_info(const struct broker *broker, struct proto_broker_info *info)
{
    *info = (struct proto_broker_info){
        .uptime_ns = broker_now_ns() - broker->started_ns,
        .channels = broker->channels.count,
        .channels_max = broker->channels_max,
        .domains = broker->domains.count,
        .connections = broker->connection_count,
        .zones = broker->zone_count,
        .opens = broker->opens,
        .closes = broker->closes,
    };
    snprintf(info->version, sizeof(info->version), "%s", VCHAN_VERSION);
    snprintf(info->policy, sizeof(info->policy), "%.31s", broker->config.policy_name);
    const struct rebalancer_counts looked = rebalancer_counts(broker->rebalancer);
    const struct mover_counts moved = mover_counts(broker->mover);
    info->rounds = looked.rounds;
    info->grace_periods = looked.grace_periods;
    info->moves = moved.moves;
    info->pinned = moved.pinned;
    for (uint32_t i = 0; i < broker->zone_count; i++) {
        const struct zone *zone = broker->zones[i];
        struct allocator_figures figures;
        allocator_figures(zone->allocator, &figures);
        info->region_bytes += zone->region.size_bytes;
        info->data_bytes += zone->region.data_bytes;
        info->free_bytes += figures.free_blocks * LAYOUT_BLOCK_BYTES;
        if (info->largest_free_bytes < figures.largest_free_blocks * LAYOUT_BLOCK_BYTES)
            info->largest_free_bytes = figures.largest_free_blocks * LAYOUT_BLOCK_BYTES;
        /* The worst zone's: an average would hide it. */
        if (info->fragmentation_permille < figures.fragmentation_permille)
            info->fragmentation_permille = figures.fragmentation_permille;
        info->resident_bytes += region_resident_bytes(&zone->region);
    }
}

static void fill_extent(const struct allocator_span *span, uint32_t zone,
                        struct proto_extent_info *item)
{
    uint32_t domain;

    *item = (struct proto_extent_info){
        .offset_bytes = span->start_block * LAYOUT_BLOCK_BYTES,
        .size_bytes = span->blocks * LAYOUT_BLOCK_BYTES,
        .kind = PROTO_EXTENT_FREE,
        .channel = PROTO_ANY,
        .zone = zone,
    };
    if (span->free)
        return;
    item->kind = span->replaced_by_block != ALLOCATOR_NOWHERE ? PROTO_EXTENT_OLD
                                                              : PROTO_EXTENT_RING;
    item->channel = zone_cookie_channel(span->cookie);
    item->ring = zone_cookie_ring(span->cookie);
    item->owner_domain = span->domain;
    if (guest_mailbox_owns(span->cookie, &domain)) {
        item->kind = PROTO_EXTENT_MAILBOX;
        item->owner_domain = domain;
    }
}

void figures_list_extents(struct connection *connection, uint32_t seq,
                          const struct proto_list *request)
{
    const struct broker *broker = connection->broker;
    struct proto_extent_info items[EXTENTS_A_PAGE];
    struct proto_list_reply reply = {.item_bytes = sizeof(items[0])};
    uint64_t index = request->cursor >> CURSOR_SHIFT;
    uint64_t block = request->cursor & (((uint64_t)1 << CURSOR_SHIFT) - 1);
    struct allocator_span span;

    while (index < broker->zone_count && reply.count < EXTENTS_A_PAGE) {
        if (allocator_span_at(broker->zones[index]->allocator, block, &span) < 0) {
            index++;
            block = 0;
            continue;
        }
        fill_extent(&span, (uint32_t)index, &items[reply.count++]);
        block = span.start_block + span.blocks;
    }
    if (index < broker->zone_count)
        reply.next = index << CURSOR_SHIFT | block;
    connection_reply(connection, PROTO_LIST_EXTENTS, seq, 0, &reply, sizeof(reply), items,
                     reply.count * sizeof(items[0]));
}
