/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/policy_wish.h"

#define MS_PER_S 1000u

/*
 * So many horizons may lie before a reader that runs empty at times: bursts come and are drained.
 */
#define BURST_HORIZONS 16u
/* A ring that is quiet, or nearly so, gives what others need after so many periods. */
#define QUIET_PERIODS 4u
/* Two steps at once must leave this part of what is free. */
#define LEAP_PART 64u

uint32_t policy_wish_stalled_permille(const struct policy_ring *ring)
{
    uint64_t ns = ring->interval_ns + ring->last_interval_ns;

    return ns ? (uint32_t)((ring->stall_ns + ring->last_stall_ns) * 1000 / ns) : 0;
}

/* As much as it makes sense to put before its consumer. */
static uint64_t drain_limit(const struct policy_input *input, const struct policy_ring *ring,
                            const struct policy_config *config)
{
    bool lags = policy_ms_since(input, ring->starved_ns) >= config->horizon_ms;
    uint64_t horizon_ms = lags ? config->horizon_ms : BURST_HORIZONS * config->horizon_ms;

    return policy_round_up((uint64_t)((unsigned __int128)ring->drain_rate * horizon_ms / MS_PER_S));
}

/* How long its consumer takes for what it holds. */
static uint64_t drains_in_ms(const struct policy_ring *ring)
{
    return (uint64_t)((unsigned __int128)ring->held_bytes * MS_PER_S /
                      policy_max(ring->drain_rate, 1));
}

static bool is_read(const struct policy_ring *ring)
{
    return ring->received_bytes > 0 || ring->last_received_bytes > 0;
}

/* A growth or a shrinking that is worth a move for fairness' sake. */
bool policy_wish_worth(const struct policy_wishes *wishes, uint64_t from, uint64_t to)
{
    uint64_t difference = from > to ? from - to : to - from;

    return difference >= POLICY_BLOCK_BYTES &&
           difference >= from * wishes->config->hysteresis_percent / 100;
}

bool policy_wish_may_shrink(const struct policy_wishes *wishes, const struct policy_ring *ring)
{
    return policy_ms_since(wishes->input, ring->changed_ns) >= wishes->config->dwell_ms;
}

/* Beyond the cache, the last growth must have shown first what it was good for. */
static bool may_grow(const struct policy_wishes *wishes, const struct policy_ring *ring,
                     uint64_t to)
{
    if (ring->judging && to > wishes->config->cache_bytes)
        return false;
    return policy_ms_since(wishes->input, ring->changed_ns) >=
           (ring->grew ? wishes->config->grow_dwell_ms : wishes->config->dwell_ms);
}

/*
 * Its producer stalls: noticeably, or just now in a ring that is small enough to be given more
 * without much thought.
 */
static bool stalls(const struct policy_wishes *wishes, const struct policy_ring *ring)
{
    return policy_wish_stalled_permille(ring) >= wishes->config->stall_permille ||
           (ring->stalled && ring->size_bytes < wishes->config->cache_bytes);
}

/* How much more, and what keeps it from wishing more than that. */
static uint64_t hungry_wish(const struct policy_wishes *wishes, const struct policy_ring *ring,
                            enum policy_reason *why)
{
    const struct policy_config *config = wishes->config;
    uint64_t size = ring->size_bytes;
    uint64_t wish = size * (ring->stalled ? config->pressure_percent : config->grow_percent) / 100;
    uint64_t limit;

    /* It can grow again only when this has drained: so it takes two steps at once. */
    if (ring->stalled && drains_in_ms(ring) > config->grow_dwell_ms &&
        wish * LEAP_PART < wishes->input->free_bytes)
        wish = wish * config->pressure_percent / 100;

    *why = POLICY_STALLS;
    limit = policy_max(config->cache_bytes, size);
    if (wish > limit &&
        (ring->no_help || policy_ms_since(wishes->input, ring->starved_ns) > config->calm_ms)) {
        *why = ring->no_help ? POLICY_NO_HELP : POLICY_READER_BUSY;
        wish = limit;
    }
    wish = policy_max(wish, ring->former_bytes);
    limit = drain_limit(wishes->input, ring, config);
    if (wish > limit) {
        *why = POLICY_READER_BUSY;
        wish = limit;
    }
    limit = policy_round_down(ring->max_bytes);
    if (wish > limit) {
        *why = POLICY_AT_MAX;
        wish = limit;
    }
    return policy_round_to_class(wish);
}

/* Fills in kind, wish and reason of a ring that wants more: true. */
static bool look_hungry(const struct policy_wishes *wishes, const struct policy_ring *ring,
                        struct policy_scratch *scratch)
{
    enum policy_reason why;

    if (!stalls(wishes, ring))
        return false;
    if (!is_read(ring)) {
        /* A reader that has only just got something to read is given a moment. */
        if (policy_ms_since(wishes->input, ring->received_ns) >= wishes->config->unread_ms)
            scratch->reason = POLICY_NOT_READ;
        return false;
    }
    uint64_t wish = hungry_wish(wishes, ring, &why);
    if (wish <= ring->size_bytes || !policy_wish_worth(wishes, ring->size_bytes, wish)) {
        scratch->reason = (uint8_t)why;
        return false;
    }
    scratch->kind = may_grow(wishes, ring, wish) ? POLICY_HUNGRY : POLICY_DWELLING;
    scratch->reason = POLICY_STALLS;
    scratch->wish_bytes = wish;
    return true;
}

static uint64_t idle_wait_ms(const struct policy_wishes *wishes, const struct policy_ring *ring)
{
    const struct policy_config *config = wishes->config;

    return wishes->tight
               ? policy_min(config->idle_ms, QUIET_PERIODS * config->period_ms << ring->recall)
               : config->idle_ms << ring->patience;
}

/* Fills in kind, wish and reason of a ring that has more than it needs: true. */
static bool look_rich(const struct policy_wishes *wishes, const struct policy_ring *ring,
                      struct policy_scratch *scratch)
{
    const struct policy_config *config = wishes->config;
    const uint64_t quiet_ms = idle_wait_ms(wishes, ring);
    const uint64_t calm_ms = wishes->tight
                                 ? policy_min(config->calm_ms, QUIET_PERIODS * config->period_ms)
                                 : config->calm_ms << ring->patience;
    const uint64_t needed = wishes->tight ? ring->lately_bytes : ring->peak_bytes;
    uint64_t floor = policy_floor(ring);
    uint64_t wish = ring->size_bytes;
    enum policy_reason reason = POLICY_NO_REASON;
    uint64_t idle_ms =
        policy_ms_since(wishes->input, ring->active_ns ? ring->active_ns : ring->changed_ns);
    uint64_t still_ms = policy_min(policy_ms_since(wishes->input, ring->changed_ns),
                                   policy_ms_since(wishes->input, ring->stalled_ns));

    if (ring->held_bytes > 0 &&
        policy_ms_since(wishes->input, ring->received_ns) >= config->unread_ms) {
        wish = ring->held_bytes;
        reason = POLICY_UNREAD;
    } else if (ring->held_bytes == 0 && idle_ms >= quiet_ms) {
        wish = 0;
        reason = POLICY_IDLE;
    } else if (needed <= ring->size_bytes * config->shrink_percent / 100 && still_ms >= calm_ms) {
        wish = 2 * needed;
        reason = POLICY_SURPLUS;
    }
    wish = policy_max(floor, policy_round_up(wish));
    /* Half at least, or it is not worth it; but all that an idle ring has over its floor. */
    if (wish >
        (reason == POLICY_IDLE ? ring->size_bytes - POLICY_BLOCK_BYTES : ring->size_bytes / 2))
        return false;
    /* What is quiet and others need is no loss to anybody. */
    if (!policy_wish_may_shrink(wishes, ring) &&
        !(wishes->tight && reason != POLICY_UNREAD &&
          policy_ms_since(wishes->input, ring->changed_ns) >= policy_min(quiet_ms, calm_ms)))
        return false;
    scratch->kind = POLICY_LOSES;
    scratch->reason = (uint8_t)reason;
    scratch->wish_bytes = wish;
    return true;
}

void policy_wish(const struct policy_wishes *wishes, const struct policy_ring *ring,
                 struct policy_scratch *scratch)
{
    *scratch = (struct policy_scratch){
        .kind = POLICY_CONTENT,
        .size_bytes = ring->size_bytes,
        .wish_bytes = ring->size_bytes,
        .floor_bytes = wishes->input->some ? ring->size_bytes : policy_floor(ring),
        .weight = ring->weight,
    };
    if (ring->moving) {
        scratch->kind = POLICY_FIXED;
        return;
    }
    if (look_hungry(wishes, ring, scratch) || look_rich(wishes, ring, scratch))
        return;
    /* When memory is short, a quarter more than it has needed lately will do. */
    if (wishes->tight && scratch->reason == POLICY_NO_REASON &&
        policy_wish_may_shrink(wishes, ring))
        scratch->wish_bytes =
            policy_min(ring->size_bytes,
                       policy_max(policy_floor(ring),
                                  policy_round_up(ring->lately_bytes + ring->lately_bytes / 4)));
}
