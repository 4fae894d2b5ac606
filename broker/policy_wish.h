/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/policy_wish.h - of policy "default": what one ring wishes, looked at alone. What becomes
 * of the wishes is policy_default.c's.
 */
#ifndef VCHAN_BROKER_POLICY_WISH_H
#define VCHAN_BROKER_POLICY_WISH_H

#include "broker/policy.h"

#define POLICY_BLOCK_BYTES 4096u

/* What a ring is; policy_scratch.kind. */
enum policy_kind {
    POLICY_FIXED,    /* it moves: nothing can be done */
    POLICY_CONTENT,  /* wishes what it has, or less when memory is short */
    POLICY_LOSES,    /* idle, surplus or unread: wishes less */
    POLICY_HUNGRY,   /* wishes more */
    POLICY_DWELLING, /* would, but has changed just now */
};

/* What a wish depends on beside the ring. */
struct policy_wishes {
    const struct policy_input *input;
    const struct policy_config *config;
    bool tight; /* the wishes do not fit: those who have enough are asked with less patience */
};

/* Fills in kind, wish and reason of a ring. */
void policy_wish(const struct policy_wishes *wishes, const struct policy_ring *ring,
                 struct policy_scratch *scratch);

/* A growth or a shrinking that is worth a move for fairness' sake. */
bool policy_wish_worth(const struct policy_wishes *wishes, uint64_t from, uint64_t to);
/* Is its last change long enough ago? */
bool policy_wish_may_shrink(const struct policy_wishes *wishes, const struct policy_ring *ring);
/* In the two intervals. */
uint32_t policy_wish_stalled_permille(const struct policy_ring *ring);

static inline uint64_t policy_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t policy_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t policy_round_up(uint64_t bytes)
{
    return (bytes + POLICY_BLOCK_BYTES - 1) / POLICY_BLOCK_BYTES * POLICY_BLOCK_BYTES;
}

static inline uint64_t policy_round_down(uint64_t bytes)
{
    return bytes / POLICY_BLOCK_BYTES * POLICY_BLOCK_BYTES;
}

/*
 * Down to a quarter of a power of two: what one ring leaves then fits another, and small
 * differences are no reason to move.
 */
static inline uint64_t policy_round_to_class(uint64_t bytes)
{
    unsigned below = 0;

    while (bytes >> below >= 8)
        below++;
    return policy_round_down(bytes >> below << below);
}

static inline uint64_t policy_ms_since(const struct policy_input *input, uint64_t ns)
{
    return input->now_ns > ns ? (input->now_ns - ns) / 1000000u : 0;
}

static inline uint64_t policy_floor(const struct policy_ring *ring)
{
    return policy_round_up(policy_max(policy_max(ring->min_bytes, ring->promised_bytes), 1));
}

#endif
