/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Policy "static": every ring of the region has an equal share, whatever it does. Wishes (minimum,
 * maximum) and quotas hold. It is what others are measured against.
 */
#include "broker/policy.h"

#define BLOCK_BYTES 4096u

/*
 * One share more than there are rings: a ring that moves needs its new extent first. In eighths of
 * a power of two, so that one channel more among many moves nobody.
 */
static uint64_t share_bytes(const struct policy_input *input, const struct policy_config *config)
{
    uint64_t usable = input->total_bytes - input->total_bytes / 1000 * config->reserve_permille;
    uint64_t share = usable / (input->ring_count + 1);
    unsigned below = 0;

    while (share >> below >= 16)
        below++;
    share = share >> below << below;
    return share / BLOCK_BYTES * BLOCK_BYTES;
}

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static uint64_t wish(const struct policy_ring *ring, uint64_t share)
{
    uint64_t floor =
        round_up(ring->min_bytes > ring->promised_bytes ? ring->min_bytes : ring->promised_bytes);
    uint64_t most = ring->max_bytes / BLOCK_BYTES * BLOCK_BYTES;

    if (share > most)
        share = most;
    return share > floor ? share : floor;
}

struct round {
    const struct policy_input *input;
    const struct policy_config *config;
    uint64_t kept_bytes; /* growing rings leave that free */
    struct policy_decision *decisions;
    size_t count, max;
    uint64_t free_bytes, moved_bytes, moves;
};

/*
 * A region that is full when there are suddenly more rings: no run is as long as a share. The first
 * ring that has too much shrinks into what there is, and gets its share with the others when that
 * has made room.
 */
static uint64_t fit(const struct policy_ring *ring, uint64_t to, const struct round *round)
{
    uint64_t run = round->input->largest_free_bytes < round->free_bytes
                       ? round->input->largest_free_bytes
                       : round->free_bytes;

    run = run / BLOCK_BYTES * BLOCK_BYTES;
    return to > run && run >= wish(ring, 0) ? run : to;
}

static void move(struct round *round, size_t index, uint64_t to, bool grow)
{
    const struct policy_ring *ring = round->input->rings[index];
    const struct policy_domain *domain = &round->input->domains[ring->domain];
    uint64_t *charged = &round->input->domain_scratch[ring->domain];
    enum policy_reason reason = POLICY_EQUAL_SHARE;
    uint64_t number = round->input->ring_count;
    uint64_t kept = grow ? round->kept_bytes : 0;

    if (!grow && round->moves == 0)
        to = fit(ring, to, round);
    if (grow && domain->quota_bytes && *charged + to - ring->size_bytes > domain->quota_bytes) {
        reason = POLICY_AT_QUOTA;
        number = domain->quota_bytes;
    } else if (round->moves == round->config->moves_max || to + kept > round->free_bytes ||
               (round->moves && round->moved_bytes + to > round->config->move_bytes_max)) {
        reason = POLICY_LATER;
        number = to;
    } else {
        *charged += grow ? to - ring->size_bytes : 0;
        round->moves++;
        round->moved_bytes += to;
        /* What a shrinking ring leaves is free when those that grow are served. */
        round->free_bytes = round->free_bytes - to + (grow ? 0 : ring->size_bytes);
    }
    const struct policy_decision decision = {
        .index = (uint32_t)index,
        .refused = reason != POLICY_EQUAL_SHARE,
        .reason = reason,
        .from_bytes = ring->size_bytes,
        .to_bytes = to,
        .number = number,
    };

    policy_append(round->input, &decision, round->decisions, &round->count, round->max);
}

size_t policy_static_plan(const struct policy_input *input, const struct policy_config *config,
                          struct policy_decision *decisions, size_t max)
{
    struct round round = {.input = input,
                          .config = config,
                          .decisions = decisions,
                          .max = max,
                          .free_bytes = input->free_bytes};
    const uint64_t share = share_bytes(input, config);

    for (size_t i = 0; i < input->domain_count; i++)
        input->domain_scratch[i] = input->domains[i].charged_bytes;
    /*
     * A ring that has more than its share needs a run of that length to shrink into, and what is
     * free need not lie in one piece: as long as there is such a ring, two shares stay free.
     */
    for (size_t i = 0; i < input->ring_count; i++)
        if (wish(input->rings[i], share) < input->rings[i]->size_bytes)
            round.kept_bytes = 2 * share;
    for (int grow = 0; grow < 2; grow++) {
        for (size_t i = 0; i < input->ring_count; i++) {
            const struct policy_ring *ring = input->rings[i];
            uint64_t to = wish(ring, share);
            if (!ring->moving && (grow ? to > ring->size_bytes : to < ring->size_bytes))
                move(&round, i, to, grow);
        }
    }
    return round.count;
}
