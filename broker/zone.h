/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/zone.h - a trust group: the domains that share one region, and who has which page and
 * block of it.
 *
 * An extent belongs to one ring, whose name it carries in the allocator's books (zone_cookie). It
 * is charged to the ring's sender. All of it is the event loop's; other threads read the constants
 * (name, number, region), the words marked "plain" and zone_held_bytes only.
 */
#ifndef VCHAN_BROKER_ZONE_H
#define VCHAN_BROKER_ZONE_H

#include <stdbool.h>
#include <stdint.h>

#include "allocator/allocator.h"
#include "broker/region.h"
#include "proto/proto.h"
#include "ring/geometry.h"

/* A set of domain numbers. */
struct domain_set {
    uint64_t bits[(PROTO_DOMAIN_MAX + 64) / 64];
};

static inline bool domain_set_has(const struct domain_set *set, uint32_t domain)
{
    return domain <= PROTO_DOMAIN_MAX && (set->bits[domain / 64] >> (domain % 64) & 1);
}

static inline void domain_set_add(struct domain_set *set, uint32_t domain)
{
    set->bits[domain / 64] |= (uint64_t)1 << (domain % 64);
}

struct zone {
    uint32_t index;        /* in struct broker */
    uint32_t first_number; /* channel number of its page 0: numbers are unique in the broker */
    char name[PROTO_NAME_BYTES];
    struct domain_set members; /* the host is always one */
    struct region region;
    struct allocator *allocator;
    /* Pages: a queue of the free ones, so that a page rests as long as possible before it is used
     * again. */
    uint32_t *free_slots;
    uint32_t free_first, free_count;
    uint64_t *incarnations; /* of each page */
    uint64_t mailbox_bytes; /* plain: of the data section, held by mailboxes, never by rings */
    uint64_t free_bytes, largest_free_bytes; /* plain: of the data section, and its longest run */
    uint64_t *held_bytes; /* plain, by domain: in its extents. For other threads: the books are the
                             event loop's */
};

/* *out is the caller's, for zone_free. -EINVAL as region_init, -ENOMEM, ... */
int zone_new(const char *name, uint32_t index, uint32_t first_number,
             const struct domain_set *members, uint64_t region_bytes, uint32_t channel_count,
             uint32_t features, struct zone **out);
void zone_free(struct zone *zone);

/* Who owns an extent, for the allocator's books. */
uint64_t zone_cookie(uint32_t channel_number, unsigned ring);
uint32_t zone_cookie_channel(uint64_t cookie);
unsigned zone_cookie_ring(uint64_t cookie);

/* A zeroed page for a channel and its new incarnation. -ENOSPC: all are in use. -ENOMEM: the
 * host is full. */
int zone_page_take(struct zone *zone, uint32_t *slot, uint64_t *incarnation);
void zone_page_give(struct zone *zone, uint32_t slot);
/* Gives its memory back to the host, if nobody has taken it since that incarnation: when no thread
 * looks at it any more, because a look at a page that is not there makes it. */
void zone_page_trim(struct zone *zone, uint32_t slot, uint64_t incarnation);

/* Of bytes, what whole blocks they fill; are they whole blocks? */
static inline uint64_t zone_round_down(uint64_t bytes)
{
    return bytes / LAYOUT_BLOCK_BYTES * LAYOUT_BLOCK_BYTES;
}

static inline bool zone_is_whole(uint64_t bytes)
{
    return bytes % LAYOUT_BLOCK_BYTES == 0;
}

/*
 * Extents, in bytes from the start of the region. What zone_extent_take returns is present in the
 * memfd; a replacement is not yet: region_make_present first, bit by bit if it is large. -EINVAL:
 * not whole blocks; an extent that says more than the books have would reach into its neighbour.
 * -EDQUOT, -ENOSPC (allocator_room tells why), -ENOMEM (the host is full); the others as the
 * allocator's.
 */
int zone_extent_take(struct zone *zone, uint32_t domain, uint64_t bytes, uint64_t cookie,
                     struct ring_extent *extent);
int zone_extent_replace(struct zone *zone, const struct ring_extent *old, uint64_t bytes,
                        struct ring_extent *extent);
int zone_extent_replace_at(struct zone *zone, const struct ring_extent *old, uint64_t offset,
                           uint64_t bytes, struct ring_extent *extent);
/* Nobody may touch it any more. -EINVAL: the books have no such extent; nothing is changed. */
int zone_extent_give(struct zone *zone, const struct ring_extent *extent);

/* Bytes in the extents that are charged to a domain. Any thread. */
uint64_t zone_held_bytes(const struct zone *zone, uint32_t domain);

/* Byte offset in the region to block of the allocator, and back. */
uint64_t zone_block(const struct zone *zone, uint64_t offset);
uint64_t zone_offset(const struct zone *zone, uint64_t block);

#endif
