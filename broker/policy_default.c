/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Policy "default"; its idea is in broker/policy.h. A round goes through the rings once to see what
 * each wishes, once more with less patience if the wishes do not fit, a few times over those that
 * contend to find the level, and once to say what is to be done. Wishes and classes are kept in
 * policy_scratch in between.
 */
#include "broker/policy.h"

#define BLOCK_BYTES 4096u
#define NS_PER_MS 1000000u
#define NS_PER_S 1000000000u

/* What a ring is; policy_scratch.kind. */
enum kind {
    FIXED,   /* it moves: nothing can be done */
    CONTENT, /* wishes what it has, or less when memory is short */
    LOSES,   /* idle, surplus or unread: wishes less */
    HUNGRY,  /* wishes more */
    DWELLS,  /* would, but has changed just now */
};

/* One list for each power of two of size for its weight: who has least is served first. */
#define POVERTY_LISTS 64u
#define NOBODY UINT32_MAX

struct round {
    const struct policy_input *input;
    const struct policy_config *config;
    struct policy_decision *decisions;
    size_t count, max;
    bool tight; /* the wishes do not fit */
    uint64_t
        pool_bytes; /* to be shared: free, and what rings that do not move have; less the reserve */
    uint64_t level; /* bytes for weight 100; UINT64_MAX: no limit */
    uint64_t shrinks, grows;
    uint64_t room_bytes;     /* for new extents */
    uint64_t run_bytes;      /* of it, in the longest free run, as far as can be told */
    bool compacts;           /* a growth is planned that needs a longer one */
    uint64_t reserved_bytes; /* of what is free: not for growths */
    uint64_t moved_bytes;
    uint32_t poverty[POVERTY_LISTS];
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static uint64_t round_down(uint64_t bytes)
{
    return bytes / BLOCK_BYTES * BLOCK_BYTES;
}

static uint64_t ms_since(const struct policy_input *input, uint64_t ns)
{
    return input->now_ns > ns ? (input->now_ns - ns) / NS_PER_MS : 0;
}

static uint64_t floor_of(const struct policy_ring *ring)
{
    return round_up(max_u64(max_u64(ring->min_bytes, ring->promised_bytes), 1));
}

static uint32_t stalled_permille(const struct policy_ring *ring)
{
    uint64_t ns = ring->interval_ns + ring->last_interval_ns;

    return ns ? (uint32_t)((ring->stall_ns + ring->last_stall_ns) * 1000 / ns) : 0;
}

/* What its consumer drains in horizon_ms, at the better of the two intervals' rates. */
static uint64_t drained_in_horizon(const struct policy_ring *ring,
                                   const struct policy_config *config)
{
    uint64_t now = (uint64_t)((__int128)ring->received_bytes * NS_PER_MS * config->horizon_ms /
                              max_u64(ring->interval_ns, NS_PER_MS));
    uint64_t last = (uint64_t)((__int128)ring->last_received_bytes * NS_PER_MS *
                               config->horizon_ms / max_u64(ring->last_interval_ns, NS_PER_MS));

    return round_up(max_u64(now, last));
}

static bool is_read(const struct policy_ring *ring)
{
    return ring->received_bytes > 0 || ring->last_received_bytes > 0;
}

/* A growth or a shrinking that is worth a move for fairness' sake. */
static bool worth(const struct round *round, uint64_t from, uint64_t to)
{
    uint64_t difference = from > to ? from - to : to - from;

    return difference >= BLOCK_BYTES &&
           difference >= from * round->config->hysteresis_percent / 100;
}

static bool may_shrink(const struct round *round, const struct policy_ring *ring)
{
    return ms_since(round->input, ring->changed_ns) >= round->config->dwell_ms;
}

/* Beyond the cache, the last growth must have shown first what it was good for. */
static bool may_grow(const struct round *round, const struct policy_ring *ring, uint64_t to)
{
    if (ring->judging && to > round->config->cache_bytes)
        return false;
    return ms_since(round->input, ring->changed_ns) >=
           (ring->grew ? round->config->grow_dwell_ms : round->config->dwell_ms);
}

static void decide(struct round *round, size_t index, enum policy_reason reason, bool refused,
                   uint64_t to, uint64_t number)
{
    const struct policy_ring *ring = &round->input->rings[index];
    const struct policy_decision decision = {
        .index = (uint32_t)index,
        .refused = refused,
        .reason = reason,
        .from_bytes = ring->size_bytes,
        .to_bytes = to,
        .number = number,
    };

    policy_append(round->input, &decision, round->decisions, &round->count, round->max);
}

/*
 * Its producer stalls: noticeably, or just now in a ring that is small enough to be given more
 * without much thought.
 */
static bool stalls(const struct round *round, const struct policy_ring *ring)
{
    return stalled_permille(ring) >= round->config->stall_permille ||
           (ring->stalled && ring->size_bytes < round->config->cache_bytes);
}

/* How much more, and what keeps it from wishing more than that. */
static uint64_t hungry_wish(const struct round *round, const struct policy_ring *ring,
                            enum policy_reason *why)
{
    const struct policy_config *config = round->config;
    uint64_t size = ring->size_bytes;
    uint64_t wish = size * (ring->stalled ? config->pressure_percent : config->grow_percent) / 100;
    uint64_t limit;

    *why = POLICY_STALLS;
    limit = max_u64(config->cache_bytes, size);
    if (wish > limit &&
        (ring->no_help || ms_since(round->input, ring->starved_ns) > config->calm_ms)) {
        *why = ring->no_help ? POLICY_NO_HELP : POLICY_READER_BUSY;
        wish = limit;
    }
    wish = max_u64(wish, ring->former_bytes);
    limit = drained_in_horizon(ring, config);
    if (wish > limit) {
        *why = POLICY_READER_BUSY;
        wish = limit;
    }
    limit = round_down(ring->max_bytes);
    if (wish > limit) {
        *why = POLICY_AT_MAX;
        wish = limit;
    }
    return round_down(wish);
}

/* Fills in kind, wish and reason of a ring that wants more: true. */
static bool look_hungry(const struct round *round, const struct policy_ring *ring,
                        struct policy_scratch *scratch)
{
    enum policy_reason why;

    if (!stalls(round, ring))
        return false;
    if (!is_read(ring)) {
        /* A reader that has only just got something to read is given a moment. */
        if (ms_since(round->input, ring->received_ns) >= round->config->unread_ms)
            scratch->reason = POLICY_NOT_READ;
        return false;
    }
    uint64_t wish = hungry_wish(round, ring, &why);
    if (wish <= ring->size_bytes || !worth(round, ring->size_bytes, wish)) {
        scratch->reason = (uint8_t)why;
        return false;
    }
    scratch->kind = may_grow(round, ring, wish) ? HUNGRY : DWELLS;
    scratch->reason = POLICY_STALLS;
    scratch->wish_bytes = wish;
    return true;
}

/* Fills in kind, wish and reason of a ring that has more than it needs: true. */
static bool look_rich(const struct round *round, const struct policy_ring *ring,
                      struct policy_scratch *scratch)
{
    const struct policy_config *config = round->config;
    unsigned patience = round->tight ? 0 : ring->patience;
    uint64_t floor = floor_of(ring);
    uint64_t wish = ring->size_bytes;
    enum policy_reason reason = POLICY_NO_REASON;
    uint64_t idle_ms = ms_since(round->input, ring->active_ns ? ring->active_ns : ring->changed_ns);
    uint64_t still_ms =
        min_u64(ms_since(round->input, ring->changed_ns), ms_since(round->input, ring->stalled_ns));

    if (ring->held_bytes > 0 && ms_since(round->input, ring->received_ns) >= config->unread_ms) {
        wish = ring->held_bytes;
        reason = POLICY_UNREAD;
    } else if (ring->held_bytes == 0 && idle_ms >= config->idle_ms << patience) {
        wish = 0;
        reason = POLICY_IDLE;
    } else if (ring->peak_bytes <= ring->size_bytes * config->shrink_percent / 100 &&
               still_ms >= (round->tight ? config->dwell_ms : config->calm_ms << patience)) {
        wish = 2 * ring->peak_bytes;
        reason = POLICY_SURPLUS;
    }
    wish = max_u64(floor, round_up(wish));
    /* Half at least, or it is not worth it; but all that an idle ring has over its floor. */
    if (wish > (reason == POLICY_IDLE ? ring->size_bytes - BLOCK_BYTES : ring->size_bytes / 2))
        return false;
    if (!may_shrink(round, ring))
        return false;
    scratch->kind = LOSES;
    scratch->reason = (uint8_t)reason;
    scratch->wish_bytes = wish;
    return true;
}

static void classify(const struct round *round, const struct policy_ring *ring,
                     struct policy_scratch *scratch)
{
    *scratch = (struct policy_scratch){.kind = CONTENT, .wish_bytes = ring->size_bytes};
    if (ring->moving) {
        scratch->kind = FIXED;
        return;
    }
    if (look_hungry(round, ring, scratch) || look_rich(round, ring, scratch))
        return;
    /* When memory is short, half more than it has needed will do. */
    if (round->tight && scratch->reason == POLICY_NO_REASON && may_shrink(round, ring))
        scratch->wish_bytes =
            min_u64(ring->size_bytes,
                    max_u64(floor_of(ring), round_up(ring->peak_bytes + ring->peak_bytes / 2)));
}

static uint64_t share_of(const struct policy_ring *ring, uint64_t level)
{
    return level == UINT64_MAX
               ? level
               : round_down(level / 100 * ring->weight + level % 100 * ring->weight / 100);
}

/* What it is to have: its wish, but no more than its share, but never less than its floor. */
static uint64_t portion(const struct round *round, size_t index, uint64_t level)
{
    const struct policy_ring *ring = &round->input->rings[index];
    uint64_t portion = min_u64(round->input->scratch[index].wish_bytes, share_of(ring, level));

    return max_u64(portion, min_u64(floor_of(ring), ring->size_bytes));
}

/* Would all portions, and what must stay free at this level, fit? */
static bool fits(const struct round *round, uint64_t level)
{
    uint64_t left = round->pool_bytes;
    uint64_t kept = (uint64_t)((__int128)level * 100 / (__int128)round->config->alpha_percent);

    if (kept > left)
        return false;
    left -= kept;
    for (size_t i = 0; i < round->input->ring_count; i++) {
        if (round->input->scratch[i].kind == FIXED)
            continue;
        uint64_t bytes = portion(round, i, level);
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

    for (size_t i = 0; i < round->input->ring_count; i++) {
        const struct policy_scratch *scratch = &round->input->scratch[i];
        if (scratch->kind == FIXED)
            continue;
        if (scratch->wish_bytes > left)
            return false;
        left -= scratch->wish_bytes;
        hungry |= scratch->kind == HUNGRY || scratch->kind == DWELLS;
    }
    if (!hungry)
        return true;
    uint64_t level = (uint64_t)((__int128)left * round->config->alpha_percent / 100);
    for (size_t i = 0; i < round->input->ring_count; i++) {
        const struct policy_scratch *scratch = &round->input->scratch[i];
        /* A ring at its floor wishes what it cannot be refused. */
        if (scratch->kind != FIXED &&
            scratch->wish_bytes > share_of(&round->input->rings[i], level) &&
            scratch->wish_bytes > floor_of(&round->input->rings[i]))
            return false;
    }
    return true;
}

static void look(struct round *round)
{
    const struct policy_input *input = round->input;
    uint64_t reserve = input->total_bytes / 1000 * round->config->reserve_permille;

    round->reserved_bytes = min_u64(reserve, input->free_bytes);
    round->room_bytes = input->free_bytes - round->reserved_bytes;
    round->run_bytes = input->largest_free_bytes;
    round->pool_bytes = input->free_bytes;
    for (size_t i = 0; i < input->ring_count; i++) {
        classify(round, &input->rings[i], &input->scratch[i]);
        round->pool_bytes += input->rings[i].moving ? 0 : input->rings[i].size_bytes;
    }
    round->pool_bytes = round->pool_bytes > reserve ? round->pool_bytes - reserve : 0;
    round->level = UINT64_MAX;
    if (wishes_fit(round))
        return;
    round->tight = true;
    for (size_t i = 0; i < input->ring_count; i++)
        classify(round, &input->rings[i], &input->scratch[i]);
    if (!wishes_fit(round))
        round->level = find_level(round);
}

static uint64_t number_for(const struct round *round, const struct policy_ring *ring,
                           enum policy_reason reason)
{
    const struct policy_input *input = round->input;

    switch (reason) {
    case POLICY_STALLS:
    case POLICY_READER_BUSY:
    case POLICY_NO_HELP:
        return stalled_permille(ring);
    case POLICY_IDLE:
        return ms_since(input, ring->active_ns ? ring->active_ns : ring->changed_ns);
    case POLICY_SURPLUS:
        return ring->peak_bytes;
    case POLICY_UNREAD:
    case POLICY_NOT_READ:
        return ms_since(input, ring->received_ns);
    case POLICY_FAIR_SHARE:
    case POLICY_REGION_FULL:
        return share_of(ring, round->level);
    case POLICY_AT_MAX:
        return ring->max_bytes;
    case POLICY_AT_QUOTA:
        return input->domains[ring->domain].quota_bytes;
    case POLICY_DWELLS:
        return ms_since(input, ring->changed_ns);
    default:
        return 0;
    }
}

/* What a shrinking ring leaves is one run; the reserve is filled up from it first. */
static void give_back(struct round *round, uint64_t from, uint64_t to)
{
    uint64_t reserve = round->input->total_bytes / 1000 * round->config->reserve_permille;
    uint64_t missing = min_u64(from - to, reserve - round->reserved_bytes);

    round->reserved_bytes += missing;
    round->room_bytes += from - to - missing;
    round->run_bytes = max_u64(round->run_bytes, from);
}

/*
 * Best fit takes short runs first, and how long those are we do not know: while they hold enough
 * together, they are taken for long enough.
 */
static void take_room(struct round *round, uint64_t bytes)
{
    uint64_t all = round->room_bytes + round->reserved_bytes;
    uint64_t elsewhere = all > round->run_bytes ? all - round->run_bytes : 0;

    if (bytes > elsewhere)
        round->run_bytes -= min_u64(bytes, round->run_bytes);
    round->room_bytes -= bytes;
}

/* Shrinks this ring if it is to have less. limit: most shrinks of this round. */
static void shrink(struct round *round, size_t index, uint64_t limit)
{
    const struct policy_ring *ring = &round->input->rings[index];
    const struct policy_scratch *scratch = &round->input->scratch[index];
    uint64_t to = portion(round, index, round->level);
    bool loses = scratch->kind == LOSES;

    if (scratch->kind == FIXED || to >= ring->size_bytes || round->shrinks == limit)
        return;
    if (loses ? round->input->pressure && !round->tight
              : !worth(round, ring->size_bytes, to) || !may_shrink(round, ring))
        return;
    if (to > round->room_bytes + round->reserved_bytes || to > round->run_bytes)
        return;
    enum policy_reason reason = loses ? (enum policy_reason)scratch->reason : POLICY_FAIR_SHARE;
    uint64_t number = number_for(round, ring, reason);
    if (!loses && round->level == UINT64_MAX) {
        reason = POLICY_SURPLUS;
        number = ring->peak_bytes;
    }
    round->shrinks++;
    round->moved_bytes += to;
    give_back(round, ring->size_bytes, to);
    decide(round, index, reason, false, to, number);
}

/* Grows this ring, or says why not. */
static void grow(struct round *round, size_t index)
{
    const struct policy_ring *ring = &round->input->rings[index];
    const struct policy_domain *domain = &round->input->domains[ring->domain];
    uint64_t *charged = &round->input->domain_scratch[ring->domain];
    uint64_t size = ring->size_bytes;
    uint64_t to = portion(round, index, round->level);
    enum policy_reason refusal = POLICY_REGION_FULL;

    if (domain->quota_bytes) {
        uint64_t left = domain->quota_bytes > *charged ? domain->quota_bytes - *charged : 0;
        if (to > size && to - size > left) {
            to = size + round_down(left);
            refusal = POLICY_AT_QUOTA;
        }
    }
    if (to <= size || !worth(round, size, to)) {
        decide(round, index, refusal, true, round->input->scratch[index].wish_bytes,
               number_for(round, ring, refusal));
        return;
    }
    if (to > round->room_bytes || round->shrinks + round->grows == round->config->moves_max ||
        (round->moved_bytes && round->moved_bytes + to > round->config->move_bytes_max)) {
        decide(round, index, POLICY_LATER, true, to, to);
        return;
    }
    if (to > round->run_bytes && worth(round, size, max_u64(size, round->run_bytes))) {
        to = round_down(round->run_bytes);
    } else if (to > round->run_bytes && round->compacts) {
        decide(round, index, POLICY_FRAGMENTED, true, to, round->run_bytes);
        return;
    }
    round->compacts |= to > round->run_bytes;
    round->grows++;
    take_room(round, to);
    round->moved_bytes += to;
    *charged += to - size;
    decide(round, index, POLICY_STALLS, false, to, number_for(round, ring, POLICY_STALLS));
}

/* Puts those who want to grow into the lists; returns how many. */
static uint64_t sort_by_poverty(struct round *round)
{
    const struct policy_input *input = round->input;
    uint64_t count = 0;

    for (unsigned list = 0; list < POVERTY_LISTS; list++)
        round->poverty[list] = NOBODY;
    for (size_t i = input->ring_count; i-- > 0;) {
        if (input->scratch[i].kind != HUNGRY)
            continue;
        uint64_t wealth =
            input->rings[i].size_bytes / BLOCK_BYTES * 1024 / max_u64(input->rings[i].weight, 1);
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
    const struct policy_input *input = round->input;

    for (size_t i = 0; i < input->ring_count; i++) {
        const struct policy_ring *ring = &input->rings[i];
        const struct policy_scratch *scratch = &input->scratch[i];
        enum policy_reason reason = POLICY_NO_REASON;
        /* That the last growth was only just now is no news. */
        if (scratch->kind == DWELLS && !ring->grew)
            reason = POLICY_DWELLS;
        else if (scratch->kind == CONTENT)
            reason = scratch->reason;
        if (reason != POLICY_NO_REASON)
            decide(round, i, reason, true,
                   round_down(ring->size_bytes * round->config->grow_percent / 100),
                   number_for(round, ring, reason));
    }
}

size_t policy_default_plan(const struct policy_input *input, const struct policy_config *config,
                           struct policy_decision *decisions, size_t max)
{
    struct round round = {.input = input, .config = config, .decisions = decisions, .max = max};

    for (size_t i = 0; i < input->domain_count; i++)
        input->domain_scratch[i] = input->domains[i].charged_bytes;
    look(&round);
    uint64_t hungry = sort_by_poverty(&round);
    /* Neither keeps the other from its half. */
    uint64_t limit = config->moves_max - min_u64(hungry, config->moves_max / 2);
    for (size_t i = 0; i < input->ring_count && round.shrinks < limit; i++)
        shrink(&round, i, limit);
    for (unsigned list = 0; list < POVERTY_LISTS; list++) {
        for (uint32_t i = round.poverty[list]; i != NOBODY; i = input->scratch[i].next)
            grow(&round, i);
    }
    explain(&round);
    return round.count;
}
