/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Policy "default"; its idea is in broker/policy.h. A round goes through the rings once to see what
 * each wishes, once more with less patience if the wishes do not fit, a few times over those that
 * contend to find the level, and once to say what is to be done. Wishes and classes are kept in
 * policy_scratch in between.
 */
#include "broker/policy_wish.h"

/* The reserve lends all but this part of itself to rings that move. */
#define LENT 4u

/* Stalled for so much of two intervals running, a ring may have what others do not need. */
#define STARVES_PERMILLE 100u

/* One list for each power of two of size for its weight: who has least is served first. */
#define POVERTY_LISTS 64u
#define NOBODY UINT32_MAX

struct round {
    struct policy_wishes wishes;
    struct policy_decision *decisions;
    size_t count, max;
    uint64_t
        pool_bytes; /* to be shared: free, and what rings that do not move have; less the reserve */
    uint64_t level; /* bytes for weight 100; UINT64_MAX: no limit */
    uint64_t shrinks, grows;
    uint64_t room_bytes;     /* for what rings grow by */
    uint64_t transit_bytes;  /* for new extents, while the old ones are not free yet */
    uint64_t run_bytes;      /* of it, in the longest free run, as far as can be told */
    bool compacts;           /* a growth is planned that needs a longer one */
    uint64_t reserved_bytes; /* of what is free: not for growths */
    size_t stuck;            /* the ring that is to shrink by most, and has no room to */
    uint64_t stuck_bytes;    /* by so much; 0: none is */
    uint64_t moved_bytes;
    uint32_t poverty[POVERTY_LISTS];
};

static void decide(struct round *round, size_t index, enum policy_reason reason, bool refused,
                   uint64_t to, uint64_t number)
{
    const struct policy_ring *ring = round->wishes.input->rings[index];
    const struct policy_decision decision = {
        .index = (uint32_t)index,
        .refused = refused,
        .reason = reason,
        .from_bytes = ring->size_bytes,
        .to_bytes = to,
        .number = number,
    };

    policy_append(round->wishes.input, &decision, round->decisions, &round->count, round->max);
}

static uint64_t share_of(uint32_t weight, uint64_t level)
{
    return level == UINT64_MAX
               ? level
               : policy_round_down(level / 100 * weight + level % 100 * weight / 100);
}

/* What it is to have: its wish, but no more than its share, but never less than its floor. */
static uint64_t portion(const struct policy_scratch *scratch, uint64_t level)
{
    uint64_t share = policy_round_to_class(share_of(scratch->weight, level));

    return policy_max(policy_min(scratch->wish_bytes, share),
                      policy_min(scratch->floor_bytes, scratch->size_bytes));
}

/* Would all portions, and what must stay free at this level, fit? */
static bool fits(const struct round *round, uint64_t level)
{
    uint64_t left = round->pool_bytes;
    uint64_t kept =
        (uint64_t)((__int128)level * 100 / (__int128)round->wishes.config->alpha_percent);

    if (kept > left)
        return false;
    left -= kept;
    for (size_t i = 0; i < round->wishes.input->ring_count; i++) {
        const struct policy_scratch *scratch = &round->wishes.input->scratch[i];
        if (scratch->kind == POLICY_FIXED)
            continue;
        uint64_t bytes = portion(scratch, level);
        if (bytes > left)
            return false;
        left -= bytes;
    }
    return true;
}

/*
 * The highest level that fits, to within a sixty-fourth: a power of two first, then the bits below.
 */
static uint64_t find_level(const struct round *round)
{
    unsigned low = 0, high = 48;

    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (fits(round, (uint64_t)1 << middle))
            low = middle;
        else
            high = middle;
    }
    uint64_t level = (uint64_t)1 << low;
    for (uint64_t step = level / 2; step > 0 && step >= level / 64; step /= 2) {
        if (fits(round, level + step))
            level += step;
    }
    return level;
}

/*
 * Do all wishes fit, and if somebody wishes more than he has, under the threshold that they leave?
 */
static bool wishes_fit(const struct round *round)
{
    uint64_t left = round->pool_bytes;
    bool hungry = false;

    for (size_t i = 0; i < round->wishes.input->ring_count; i++) {
        const struct policy_scratch *scratch = &round->wishes.input->scratch[i];
        if (scratch->kind == POLICY_FIXED)
            continue;
        if (scratch->wish_bytes > left)
            return false;
        left -= scratch->wish_bytes;
        hungry |= scratch->kind == POLICY_HUNGRY || scratch->kind == POLICY_DWELLING;
    }
    if (!hungry)
        return true;
    uint64_t level = (uint64_t)((__int128)left * round->wishes.config->alpha_percent / 100);
    for (size_t i = 0; i < round->wishes.input->ring_count; i++) {
        const struct policy_scratch *scratch = &round->wishes.input->scratch[i];
        /* A ring at its floor wishes what it cannot be refused. */
        if (scratch->kind != POLICY_FIXED &&
            scratch->wish_bytes > share_of(scratch->weight, level) &&
            scratch->wish_bytes > scratch->floor_bytes)
            return false;
    }
    return true;
}

static bool starves(const struct policy_ring *ring)
{
    return ring->stall_ns * 1000 >= ring->interval_ns * STARVES_PERMILLE &&
           ring->last_stall_ns * 1000 >= ring->last_interval_ns * STARVES_PERMILLE;
}

/*
 * Is there anybody who stalls so much that others should give? Who lacks space for a moment, as
 * all do when the machine stands still and readers come late, gets what is free and takes from
 * nobody.
 */
static bool somebody_starves(const struct round *round)
{
    const struct policy_input *input = round->wishes.input;

    for (size_t i = 0; i < input->ring_count; i++) {
        const struct policy_scratch *scratch = &input->scratch[i];
        if ((scratch->kind == POLICY_HUNGRY || scratch->kind == POLICY_DWELLING) &&
            starves(input->rings[i]))
            return true;
    }
    return false;
}

static void find_wishes(struct round *round)
{
    const struct policy_input *input = round->wishes.input;
    uint64_t reserve = input->total_bytes / 1000 * round->wishes.config->reserve_permille;

    round->reserved_bytes = policy_min(reserve, input->free_bytes);
    round->room_bytes = input->free_bytes - round->reserved_bytes;
    round->transit_bytes = input->free_bytes - round->reserved_bytes / LENT;
    round->run_bytes = input->largest_free_bytes;
    round->pool_bytes = input->free_bytes;
    for (size_t i = 0; i < input->ring_count; i++) {
        policy_wish(&round->wishes, input->rings[i], &input->scratch[i]);
        if (input->scratch[i].kind != POLICY_FIXED)
            round->pool_bytes += input->scratch[i].size_bytes;
    }
    round->pool_bytes = round->pool_bytes > reserve ? round->pool_bytes - reserve : 0;
    round->level = UINT64_MAX;
    if (wishes_fit(round) || !somebody_starves(round))
        return;
    round->wishes.tight = true;
    for (size_t i = 0; i < input->ring_count; i++)
        policy_wish(&round->wishes, input->rings[i], &input->scratch[i]);
    if (!wishes_fit(round))
        round->level = find_level(round);
}

static void look(struct round *round)
{
    const struct policy_input *input = round->wishes.input;

    find_wishes(round);
    if (input->some && input->level_bytes > 0)
        round->level = policy_min(round->level, input->level_bytes);
    else if (!input->some && input->level)
        *input->level = round->level == UINT64_MAX ? 0 : round->level;
}

static uint64_t number_for(const struct round *round, const struct policy_ring *ring,
                           enum policy_reason reason)
{
    const struct policy_input *input = round->wishes.input;

    switch (reason) {
    case POLICY_STALLS:
    case POLICY_READER_BUSY:
    case POLICY_NO_HELP:
        return policy_wish_stalled_permille(ring);
    case POLICY_IDLE:
        return policy_ms_since(input, ring->active_ns ? ring->active_ns : ring->changed_ns);
    case POLICY_SURPLUS:
        return round->wishes.tight ? ring->lately_bytes : ring->peak_bytes;
    case POLICY_UNREAD:
    case POLICY_NOT_READ:
        return policy_ms_since(input, ring->received_ns);
    case POLICY_FAIR_SHARE:
    case POLICY_REGION_FULL:
        return share_of(ring->weight, round->level);
    case POLICY_AT_MAX:
        return ring->max_bytes;
    case POLICY_AT_QUOTA:
        return input->domains[ring->domain].quota_bytes;
    case POLICY_DWELLS:
        return policy_ms_since(input, ring->changed_ns);
    default:
        return 0;
    }
}

/* What a shrinking ring leaves is one run; the reserve is filled up from it first. */
static void give_back(struct round *round, uint64_t from, uint64_t to)
{
    uint64_t reserve =
        round->wishes.input->total_bytes / 1000 * round->wishes.config->reserve_permille;
    uint64_t missing = policy_min(from - to, reserve - round->reserved_bytes);

    round->reserved_bytes += missing;
    round->room_bytes += from - to - missing;
    round->transit_bytes += from - to;
    round->run_bytes = policy_max(round->run_bytes, from);
}

/*
 * Best fit takes short runs first, and how long those are we do not know: while they hold enough
 * together, they are taken for long enough.
 */
static void take_room(struct round *round, uint64_t from, uint64_t to)
{
    uint64_t elsewhere =
        round->transit_bytes > round->run_bytes ? round->transit_bytes - round->run_bytes : 0;

    if (to > elsewhere)
        round->run_bytes -= policy_min(to, round->run_bytes);
    round->room_bytes -= to - from;
    round->transit_bytes -= to;
}

static void shrink_to(struct round *round, size_t index, uint64_t to)
{
    const struct policy_ring *ring = round->wishes.input->rings[index];
    const struct policy_scratch *scratch = &round->wishes.input->scratch[index];
    bool loses = scratch->kind == POLICY_LOSES;
    enum policy_reason reason = loses ? (enum policy_reason)scratch->reason : POLICY_FAIR_SHARE;
    uint64_t number = number_for(round, ring, reason);
    if (!loses && round->level == UINT64_MAX) {
        reason = POLICY_SURPLUS;
        number = number_for(round, ring, reason);
    }
    round->shrinks++;
    round->moved_bytes += to;
    give_back(round, ring->size_bytes, to);
    decide(round, index, reason, false, to, number);
}

/*
 * Others are to have what this ring has too much, but no free run is as long as what it is to keep,
 * so that it could move there. Then it shrinks into the longest there is, and with what it left it
 * gets its share in the next round.
 */
static void unlock(struct round *round)
{
    const struct policy_scratch *scratch = &round->wishes.input->scratch[round->stuck];
    uint64_t to = policy_round_down(policy_min(round->transit_bytes, round->run_bytes));

    if (round->stuck_bytes > 0 && round->shrinks == 0 && to >= scratch->floor_bytes && to > 0)
        shrink_to(round, round->stuck, to);
}

/* Shrinks this ring if it is to have less. limit: most shrinks of this round. */
static void shrink(struct round *round, size_t index, uint64_t limit)
{
    const struct policy_scratch *scratch = &round->wishes.input->scratch[index];
    uint64_t to = portion(scratch, round->level);
    bool loses = scratch->kind == POLICY_LOSES;

    if (scratch->kind == POLICY_FIXED || to >= scratch->size_bytes || round->shrinks == limit)
        return;
    const struct policy_ring *ring = round->wishes.input->rings[index];
    if (loses ? round->wishes.input->pressure && !round->wishes.tight
              : !policy_wish_worth(&round->wishes, ring->size_bytes, to) ||
                    !policy_wish_may_shrink(&round->wishes, ring))
        return;
    if (to > round->transit_bytes || to > round->run_bytes) {
        if (scratch->size_bytes - to > round->stuck_bytes) {
            round->stuck_bytes = scratch->size_bytes - to;
            round->stuck = index;
        }
        return;
    }
    shrink_to(round, index, to);
}

/* Grows this ring, or says why not. */
static void grow(struct round *round, size_t index)
{
    const struct policy_ring *ring = round->wishes.input->rings[index];
    const struct policy_domain *domain = &round->wishes.input->domains[ring->domain];
    uint64_t *charged = &round->wishes.input->domain_scratch[ring->domain];
    uint64_t size = ring->size_bytes;
    uint64_t to = portion(&round->wishes.input->scratch[index], round->level);
    uint64_t wish = round->wishes.input->scratch[index].wish_bytes;
    /* A round about some solves for a level of what is free: that is nobody's share. */
    enum policy_reason refusal = round->wishes.input->some ? POLICY_LATER : POLICY_REGION_FULL;

    if (domain->quota_bytes) {
        uint64_t left = domain->quota_bytes > *charged ? domain->quota_bytes - *charged : 0;
        if (to > size && to - size > left) {
            to = size + policy_round_down(left);
            refusal = POLICY_AT_QUOTA;
        }
    }
    if (to <= size || !policy_wish_worth(&round->wishes, size, to)) {
        decide(round, index, refusal, true, wish,
               refusal == POLICY_LATER ? wish : number_for(round, ring, refusal));
        return;
    }
    if (to - size > round->room_bytes || to > round->transit_bytes ||
        round->shrinks + round->grows == round->wishes.config->moves_max ||
        (round->moved_bytes && round->moved_bytes + to > round->wishes.config->move_bytes_max)) {
        decide(round, index, POLICY_LATER, true, to, to);
        return;
    }
    if (to > round->run_bytes &&
        policy_wish_worth(&round->wishes, size, policy_max(size, round->run_bytes))) {
        to = policy_round_down(round->run_bytes);
    } else if (to > round->run_bytes && round->compacts) {
        decide(round, index, POLICY_FRAGMENTED, true, to, round->run_bytes);
        return;
    }
    round->compacts |= to > round->run_bytes;
    round->grows++;
    take_room(round, size, to);
    round->moved_bytes += to;
    *charged += to - size;
    decide(round, index, POLICY_STALLS, false, to, number_for(round, ring, POLICY_STALLS));
}

/* Puts those who want to grow into the lists; returns how many. */
static uint64_t sort_by_poverty(struct round *round)
{
    const struct policy_input *input = round->wishes.input;
    uint64_t count = 0;

    for (unsigned list = 0; list < POVERTY_LISTS; list++)
        round->poverty[list] = NOBODY;
    for (size_t i = input->ring_count; i-- > 0;) {
        if (input->scratch[i].kind != POLICY_HUNGRY)
            continue;
        uint64_t wealth = input->rings[i]->size_bytes / POLICY_BLOCK_BYTES * 1024 /
                          policy_max(input->rings[i]->weight, 1);
        unsigned list = 63u - (unsigned)__builtin_clzll(wealth | 1);
        input->scratch[i].next = round->poverty[list];
        round->poverty[list] = (uint32_t)i;
        count++;
    }
    return count;
}

/* Those who did not even come to ask. */
static void explain(struct round *round)
{
    const struct policy_input *input = round->wishes.input;

    for (size_t i = 0; i < input->ring_count; i++) {
        const struct policy_ring *ring = input->rings[i];
        const struct policy_scratch *scratch = &input->scratch[i];
        enum policy_reason reason = POLICY_NO_REASON;
        /* That the last growth was only just now is no news. */
        if (scratch->kind == POLICY_DWELLING && !ring->grew)
            reason = POLICY_DWELLS;
        else if (scratch->kind == POLICY_CONTENT)
            reason = scratch->reason;
        if (reason != POLICY_NO_REASON)
            decide(round, i, reason, true,
                   policy_round_down(ring->size_bytes * round->wishes.config->grow_percent / 100),
                   number_for(round, ring, reason));
    }
}

size_t policy_default_plan(const struct policy_input *input, const struct policy_config *config,
                           struct policy_decision *decisions, size_t max)
{
    struct round round = {
        .wishes = {.input = input, .config = config}, .decisions = decisions, .max = max};

    for (size_t i = 0; i < input->domain_count; i++)
        input->domain_scratch[i] = input->domains[i].charged_bytes;
    look(&round);
    uint64_t hungry = sort_by_poverty(&round);
    /* Neither keeps the other from its half. */
    uint64_t limit = config->moves_max - policy_min(hungry, config->moves_max / 2);
    for (size_t i = 0; i < input->ring_count && round.shrinks < limit; i++)
        shrink(&round, i, limit);
    unlock(&round);
    for (unsigned list = 0; list < POVERTY_LISTS; list++) {
        for (uint32_t i = round.poverty[list]; i != NOBODY; i = input->scratch[i].next)
            grow(&round, i);
    }
    explain(&round);
    return round.count;
}
