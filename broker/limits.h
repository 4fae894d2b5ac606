/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/limits.h - between which sizes a ring may be.
 *
 * Event loop only.
 */
#ifndef VCHAN_BROKER_LIMITS_H
#define VCHAN_BROKER_LIMITS_H

#include <stdint.h>

#include "broker/channel.h"
#include "proto/proto.h"

/* What its program has been promised, in whole blocks; 0: nothing. */
uint64_t limits_promised_bytes(const struct channel_ring *ring);

/* The least size that a ring may be given: its minimum, and what was promised must stay true. */
uint64_t limits_least_bytes(const struct channel_ring *ring);

/*
 * The limits that a ring would have after RING_SET, and the size that it should get; nothing is
 * changed. -EINVAL: minimum above maximum, below what the server asked for, a size outside of them,
 * or a weight that is none.
 */
int limits_after_set(const struct channel_ring *ring, const struct proto_ring_set *set,
                     uint64_t *min_bytes, uint64_t *max_bytes, uint64_t *size_bytes);

#endif
