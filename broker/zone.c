/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/zone.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "ring/order.h"

static void note_free(struct zone *zone)
{
    struct allocator_figures figures;

    allocator_figures(zone->allocator, &figures);
    order_store_plain(&zone->free_bytes, figures.free_blocks * LAYOUT_BLOCK_BYTES);
    order_store_plain(&zone->largest_free_bytes, figures.largest_free_blocks * LAYOUT_BLOCK_BYTES);
}

static int zone_init(struct zone *zone, uint64_t region_bytes, uint32_t channel_count,
                     uint32_t features)
{
    uint8_t uuid[16] = {0};
    char name[PROTO_NAME_BYTES + 8];
    int r;

    if (getrandom(uuid, sizeof(uuid), 0) != sizeof(uuid))
        return -EIO;
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 4122, version 4: random */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
    snprintf(name, sizeof(name), "vchan-%s", zone->name);
    r = region_init(&zone->region, name, region_bytes, channel_count, features, uuid);
    if (r < 0)
        return r;
    r = allocator_new(zone->region.data_bytes / LAYOUT_BLOCK_BYTES, &zone->allocator);
    if (r < 0)
        return r;
    zone->free_slots = calloc(channel_count, sizeof(*zone->free_slots));
    zone->incarnations = calloc(channel_count, sizeof(*zone->incarnations));
    /* Mostly untouched, so that it costs address space, not memory. */
    zone->held_bytes = calloc(PROTO_DOMAIN_MAX + 1, sizeof(*zone->held_bytes));
    if (!zone->free_slots || !zone->incarnations || !zone->held_bytes)
        return -ENOMEM;
    for (uint32_t slot = 0; slot < channel_count; slot++)
        zone->free_slots[slot] = slot;
    zone->free_count = channel_count;
    note_free(zone);
    return 0;
}

int zone_new(const char *name, uint32_t index, uint32_t first_number,
             const struct domain_set *members, uint64_t region_bytes, uint32_t channel_count,
             uint32_t features, struct zone **out)
{
    struct zone *zone = calloc(1, sizeof(*zone));

    if (!zone)
        return -ENOMEM;
    zone->index = index;
    zone->first_number = first_number;
    snprintf(zone->name, sizeof(zone->name), "%s", name);
    zone->members = *members;
    domain_set_add(&zone->members, PROTO_DOMAIN_HOST);
    zone->region.descriptor = -1;
    int r = zone_init(zone, region_bytes, channel_count, features);
    if (r < 0) {
        zone_free(zone);
        return r;
    }
    *out = zone;
    return 0;
}

void zone_free(struct zone *zone)
{
    if (!zone)
        return;
    allocator_free(zone->allocator);
    region_deinit(&zone->region);
    free(zone->free_slots);
    free(zone->incarnations);
    free(zone->held_bytes);
    free(zone);
}

uint64_t zone_cookie(uint32_t channel_number, unsigned ring)
{
    return (uint64_t)channel_number << 1 | ring;
}

uint32_t zone_cookie_channel(uint64_t cookie)
{
    return (uint32_t)(cookie >> 1);
}

unsigned zone_cookie_ring(uint64_t cookie)
{
    return (unsigned)(cookie & 1);
}

int zone_page_take(struct zone *zone, uint32_t *slot, uint64_t *incarnation)
{
    if (zone->free_count == 0)
        return -ENOSPC;
    uint32_t taken = zone->free_slots[zone->free_first];
    int r = region_page_make(&zone->region, taken);
    if (r < 0)
        return r;
    zone->free_first = (zone->free_first + 1) % zone->region.channel_count;
    zone->free_count--;
    *slot = taken;
    *incarnation = ++zone->incarnations[taken];
    return 0;
}

void zone_page_give(struct zone *zone, uint32_t slot)
{
    zone->free_slots[(zone->free_first + zone->free_count) % zone->region.channel_count] = slot;
    zone->free_count++;
}

void zone_page_trim(struct zone *zone, uint32_t slot, uint64_t incarnation)
{
    if (zone->incarnations[slot] == incarnation)
        region_page_drop(&zone->region, slot);
}

uint64_t zone_block(const struct zone *zone, uint64_t offset)
{
    return (offset - zone->region.data_offset) / LAYOUT_BLOCK_BYTES;
}

uint64_t zone_offset(const struct zone *zone, uint64_t block)
{
    return zone->region.data_offset + block * LAYOUT_BLOCK_BYTES;
}

uint64_t zone_held_bytes(const struct zone *zone, uint32_t domain)
{
    return order_load_plain(&zone->held_bytes[domain]);
}

static void note_held(struct zone *zone, uint32_t domain)
{
    struct allocator_usage usage;

    allocator_domain_usage(zone->allocator, domain, &usage);
    order_store_plain(&zone->held_bytes[domain], usage.held_blocks * LAYOUT_BLOCK_BYTES);
    note_free(zone);
}

static void release(struct zone *zone, uint64_t block)
{
    struct allocator_span span;

    if (allocator_find(zone->allocator, block, &span) < 0)
        return;
    allocator_release(zone->allocator, block);
    note_held(zone, span.domain);
}

/* The books have it; now the host must, too. */
static int make_present(struct zone *zone, uint64_t block, uint64_t bytes,
                        struct ring_extent *extent)
{
    uint64_t offset = zone_offset(zone, block);
    int r = region_make_present(&zone->region, offset, bytes);

    if (r < 0) {
        region_punch(&zone->region, offset, bytes);
        release(zone, block);
        return r;
    }
    struct allocator_span span;
    if (allocator_find(zone->allocator, block, &span) == 0)
        note_held(zone, span.domain);
    *extent = (struct ring_extent){.offset = offset, .size = bytes};
    return 0;
}

int zone_extent_take(struct zone *zone, uint32_t domain, uint64_t bytes, uint64_t cookie,
                     struct ring_extent *extent)
{
    uint64_t block;

    if (!zone_is_whole(bytes))
        return -EINVAL;
    int r = allocator_allocate(zone->allocator, domain, bytes / LAYOUT_BLOCK_BYTES, cookie, &block);
    return r < 0 ? r : make_present(zone, block, bytes, extent);
}

static void note_replacement(struct zone *zone, uint64_t block, uint64_t bytes,
                             struct ring_extent *extent)
{
    struct allocator_span span;

    if (allocator_find(zone->allocator, block, &span) == 0)
        note_held(zone, span.domain);
    *extent = (struct ring_extent){.offset = zone_offset(zone, block), .size = bytes};
}

int zone_extent_replace(struct zone *zone, const struct ring_extent *old, uint64_t bytes,
                        struct ring_extent *extent)
{
    uint64_t block;

    if (!zone_is_whole(bytes))
        return -EINVAL;
    int r = allocator_replace(zone->allocator, zone_block(zone, old->offset),
                              bytes / LAYOUT_BLOCK_BYTES, &block);
    if (r == 0)
        note_replacement(zone, block, bytes, extent);
    return r;
}

int zone_extent_replace_at(struct zone *zone, const struct ring_extent *old, uint64_t offset,
                           uint64_t bytes, struct ring_extent *extent)
{
    uint64_t block = zone_block(zone, offset);

    if (!zone_is_whole(offset - zone->region.data_offset) || !zone_is_whole(bytes))
        return -EINVAL;
    int r = allocator_replace_at(zone->allocator, zone_block(zone, old->offset), block,
                                 bytes / LAYOUT_BLOCK_BYTES);
    if (r == 0)
        note_replacement(zone, block, bytes, extent);
    return r;
}

int zone_extent_give(struct zone *zone, const struct ring_extent *extent)
{
    struct allocator_span span;

    if (allocator_find(zone->allocator, zone_block(zone, extent->offset), &span) < 0 ||
        zone_offset(zone, span.start_block) != extent->offset ||
        span.blocks * LAYOUT_BLOCK_BYTES != extent->size)
        return -EINVAL;
    region_punch(&zone->region, extent->offset, extent->size);
    release(zone, span.start_block);
    return 0;
}
