/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Policy "secure-ivshmem": the rule of the Secure IVSHMEM project, as a baseline. Each round a ring
 * that was active gets one block more, and an idle one shrinks to four fifths; with inactive_ms,
 * one that has been idle for so long shrinks to its floor (that project closes such channels; here
 * a channel is never closed). Activity is all that it looks at: not stalls, not weights, not
 * whether anybody reads. Minimum, maximum, promise and quota hold.
 *
 * Idle rings shrink in regular rounds only: between them an interval is too short to be idle in.
 */
#include "broker/policy.h"

#define BLOCK_BYTES 4096u
#define NS_PER_MS 1000000u

struct round {
    const struct policy_input *input;
    const struct policy_config *config;
    struct policy_decision *decisions;
    size_t count, max;
    uint64_t free_bytes, moved_bytes, moves;
};

static uint64_t floor_of(const struct policy_ring *ring)
{
    uint64_t least =
        ring->min_bytes > ring->promised_bytes ? ring->min_bytes : ring->promised_bytes;

    least = (least + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    return least > BLOCK_BYTES ? least : BLOCK_BYTES;
}

static bool is_active(const struct policy_ring *ring)
{
    return ring->sent_bytes > 0 || ring->received_bytes > 0;
}

static uint64_t idle_ms(const struct round *round, const struct policy_ring *ring)
{
    uint64_t since_ns = ring->active_ns ? ring->active_ns : ring->changed_ns;

    return round->input->now_ns > since_ns ? (round->input->now_ns - since_ns) / NS_PER_MS : 0;
}

static void decide(struct round *round, size_t index, enum policy_reason reason, bool refused,
                   uint64_t to, uint64_t number)
{
    const struct policy_decision decision = {
        .index = (uint32_t)index,
        .refused = refused,
        .reason = reason,
        .from_bytes = round->input->rings[index]->size_bytes,
        .to_bytes = to,
        .number = number,
    };

    policy_append(round->input, &decision, round->decisions, &round->count, round->max);
}

static bool has_room(const struct round *round, uint64_t to)
{
    return to <= round->free_bytes && round->moves < round->config->moves_max &&
           (round->moves == 0 || round->moved_bytes + to <= round->config->move_bytes_max);
}

static void shrink(struct round *round, size_t index)
{
    const struct policy_ring *ring = round->input->rings[index];
    uint64_t floor = floor_of(ring), idle = idle_ms(round, ring);
    bool inactive = round->config->inactive_ms && idle >= round->config->inactive_ms;
    uint64_t to = inactive ? floor : ring->size_bytes / 5 * 4 / BLOCK_BYTES * BLOCK_BYTES;

    to = to > floor ? to : floor;
    if (is_active(ring) || to >= ring->size_bytes || !has_room(round, to))
        return;
    round->moves++;
    round->moved_bytes += to;
    round->free_bytes += ring->size_bytes - to;
    decide(round, index, inactive ? POLICY_INACTIVE : POLICY_FOUR_FIFTHS, false, to, idle);
}

static void grow(struct round *round, size_t index)
{
    const struct policy_ring *ring = round->input->rings[index];
    const struct policy_domain *domain = &round->input->domains[ring->domain];
    uint64_t *charged = &round->input->domain_scratch[ring->domain];
    uint64_t to = ring->size_bytes + BLOCK_BYTES;

    if (!is_active(ring) || to > ring->max_bytes)
        return;
    if (domain->quota_bytes && *charged + BLOCK_BYTES > domain->quota_bytes) {
        decide(round, index, POLICY_AT_QUOTA, true, to, domain->quota_bytes);
        return;
    }
    if (!has_room(round, to)) {
        decide(round, index, POLICY_LATER, true, to, to);
        return;
    }
    *charged += BLOCK_BYTES;
    round->moves++;
    round->moved_bytes += to;
    round->free_bytes -= to;
    decide(round, index, POLICY_ACTIVE, false, to, 0);
}

size_t policy_secure_ivshmem_plan(const struct policy_input *input,
                                  const struct policy_config *config,
                                  struct policy_decision *decisions, size_t max)
{
    struct round round = {.input = input,
                          .config = config,
                          .decisions = decisions,
                          .max = max,
                          .free_bytes = input->free_bytes};

    for (size_t i = 0; i < input->domain_count; i++)
        input->domain_scratch[i] = input->domains[i].charged_bytes;
    for (size_t i = 0; i < input->ring_count && !input->pressure; i++)
        if (!input->rings[i]->moving)
            shrink(&round, i);
    for (size_t i = 0; i < input->ring_count; i++)
        if (!input->rings[i]->moving)
            grow(&round, i);
    return round.count;
}
