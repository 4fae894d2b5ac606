/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/limits.h"

#include <errno.h>

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + LAYOUT_BLOCK_BYTES - 1) / LAYOUT_BLOCK_BYTES * LAYOUT_BLOCK_BYTES;
}

uint64_t limits_promised_bytes(const struct channel_ring *ring)
{
    return round_up(ring_geometry_promised(&ring->geometry));
}

uint64_t limits_least_bytes(const struct channel_ring *ring)
{
    uint64_t promised = limits_promised_bytes(ring);

    return promised > ring->min_bytes ? promised : ring->min_bytes;
}

int limits_after_set(const struct channel_ring *ring, const struct proto_ring_set *set,
                     uint64_t *min_bytes, uint64_t *max_bytes, uint64_t *size_bytes)
{
    uint64_t now_bytes = ring->geometry.current.size;

    *min_bytes = set->fields & PROTO_SET_MIN ? round_up(set->min_bytes) : ring->min_bytes;
    *max_bytes = set->fields & PROTO_SET_MAX ? zone_round_down(set->max_bytes) : ring->max_bytes;
    *size_bytes = now_bytes < *min_bytes   ? *min_bytes
                  : now_bytes > *max_bytes ? *max_bytes
                                           : now_bytes;
    if (set->fields & PROTO_SET_SIZE)
        *size_bytes = round_up(set->size_bytes);
    if (*min_bytes < ring->floor_bytes || *min_bytes > *max_bytes || *size_bytes < *min_bytes ||
        *size_bytes > *max_bytes ||
        ((set->fields & PROTO_SET_WEIGHT) && (set->weight < 1 || set->weight > 1000)))
        return -EINVAL;
    return 0;
}
