/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/unit/policy_sim.h - rings as queues in a simulated second: bytes come in, are drained, and
 * a policy is asked every round. A producer that finds no space waits and offers no more until it
 * has got rid of what it has.
 */
#ifndef VCHAN_TESTS_UNIT_POLICY_SIM_H
#define VCHAN_TESTS_UNIT_POLICY_SIM_H

#include <stdlib.h>
#include <string.h>

#include "broker/policy.h"
#include "broker/policy_track.h"

#define SIM_TICK_NS 1000000u
#define SIM_RINGS_MAX 128u
#define SIM_DECISIONS_MAX 512u

struct sim;

struct sim_ring {
    uint64_t size_bytes, min_bytes, max_bytes, promised_bytes;
    uint32_t weight, domain;
    uint64_t offered_bytes; /* a tick, while it has something to say */
    uint64_t drained_bytes; /* a tick */
    uint64_t on_ticks,
        off_ticks; /* it says something for so long, then nothing for so long; off 0: always */
    uint64_t backlog_bytes, stall_start_ns, high_bytes;
    struct ring_sample totals;
    struct policy_track track;
    unsigned moves;
    uint64_t moved_last_ns;
};

struct sim {
    uint64_t now_ns, total_bytes;
    size_t ring_count, domain_count;
    struct policy_config config;
    policy_plan_function *plan;
    struct sim_ring rings[SIM_RINGS_MAX];
    struct policy_domain domains[8];
    /* Of the last round. */
    struct policy_input input;
    struct policy_decision decisions[SIM_DECISIONS_MAX];
    size_t decision_count;
    uint64_t rounds;
    unsigned moves; /* since the start, of all rings */
    void (*record)(struct sim *sim); /* of each round, before anything comes of it; NULL: nobody */
    void *data;                      /* for it */
};

static inline struct sim *sim_new(uint64_t total_bytes)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    policy_config_init(&sim->config);
    sim->plan = policy_default_plan;
    sim->now_ns = 1000000000u;
    sim->total_bytes = total_bytes;
    sim->domain_count = 1;
    return sim;
}

static inline struct sim_ring *sim_add(struct sim *sim, uint64_t offered_bytes,
                                       uint64_t drained_bytes)
{
    struct sim_ring *ring = &sim->rings[sim->ring_count++];

    *ring = (struct sim_ring){
        .size_bytes = 4096,
        .min_bytes = 4096,
        .max_bytes = UINT64_MAX,
        .weight = 100,
        .offered_bytes = offered_bytes,
        .drained_bytes = drained_bytes,
    };
    return ring;
}

static inline uint64_t sim_used(const struct sim *sim)
{
    uint64_t used = 0;

    for (size_t i = 0; i < sim->ring_count; i++)
        used += sim->rings[i].size_bytes;
    return used;
}

static inline void sim_ring_tick(struct sim_ring *ring, uint64_t now_ns)
{
    struct ring_sample *totals = &ring->totals;
    uint64_t phase =
        ring->off_ticks ? now_ns / SIM_TICK_NS % (ring->on_ticks + ring->off_ticks) : 0;

    if (ring->backlog_bytes == 0 && (ring->off_ticks == 0 || phase < ring->on_ticks))
        ring->backlog_bytes = ring->offered_bytes;
    uint64_t held = totals->sent_bytes - totals->received_bytes;
    uint64_t space = ring->size_bytes > held ? ring->size_bytes - held : 0;
    uint64_t in = ring->backlog_bytes < space ? ring->backlog_bytes : space;
    ring->backlog_bytes -= in;
    totals->sent_bytes += in;
    totals->sent_operations += in > 0;
    held += in;
    if (held > ring->high_bytes)
        ring->high_bytes = held;
    uint64_t out = held < ring->drained_bytes ? held : ring->drained_bytes;
    totals->received_bytes += out;
    totals->received_operations += out > 0;
    totals->consumer_sleeps += out > 0 && out == held;
    totals->held_bytes = held - out;
    bool stalled = ring->backlog_bytes > 0;
    if (stalled && !totals->stalled) {
        totals->stalls++;
        ring->stall_start_ns = now_ns;
    }
    if (!stalled && totals->stalled)
        totals->stall_ns += now_ns - ring->stall_start_ns;
    totals->stalled = stalled;
}

static inline uint64_t sim_stall_ns(const struct sim *sim, const struct sim_ring *ring)
{
    return ring->totals.stall_ns + (ring->totals.stalled ? sim->now_ns - ring->stall_start_ns : 0);
}

static inline void sim_look(struct sim *sim, size_t i, bool regular)
{
    struct sim_ring *ring = &sim->rings[i];
    struct policy_look look = {
        .now_ns = sim->now_ns,
        .opened_ns = 1000000000u,
        .incarnation = 1,
        .channel = (uint32_t)i,
        .domain = ring->domain,
        .weight = ring->weight,
        .size_bytes = ring->size_bytes,
        .min_bytes = ring->min_bytes,
        .max_bytes = ring->max_bytes,
        .promised_bytes = ring->promised_bytes,
        .regular = regular,
        .sample = ring->totals,
    };

    look.sample.high_water_bytes =
        ring->high_bytes > ring->totals.held_bytes ? ring->high_bytes : ring->totals.held_bytes;
    policy_track_look(&ring->track, &look, &sim->config);
    if (regular)
        ring->high_bytes = 0;
}

/* Carries the plan out at once. False: the plan broke a promise. */
static inline bool sim_carry_out(struct sim *sim)
{
    for (size_t i = 0; i < sim->decision_count; i++) {
        const struct policy_decision *decision = &sim->decisions[i];
        struct sim_ring *ring = &sim->rings[decision->index];
        policy_track_decided(&ring->track, decision, sim->now_ns);
        if (decision->refused)
            continue;
        if (decision->to_bytes % 4096 || decision->to_bytes < ring->min_bytes ||
            decision->to_bytes < ring->promised_bytes || decision->to_bytes > ring->max_bytes ||
            decision->to_bytes == ring->size_bytes || decision->from_bytes != ring->size_bytes)
            return false;
        /* Both extents at once. */
        if (sim_used(sim) + decision->to_bytes > sim->total_bytes)
            return false;
        ring->size_bytes = decision->to_bytes;
        ring->moves++;
        ring->moved_last_ns = sim->now_ns;
        sim->moves++;
    }
    return true;
}

static inline bool sim_round(struct sim *sim, bool regular)
{
    static const struct policy_ring *rings[SIM_RINGS_MAX];
    static struct policy_scratch scratch[SIM_RINGS_MAX];
    static uint64_t domain_scratch[8];

    for (size_t i = 0; i < sim->domain_count; i++)
        sim->domains[i].charged_bytes = 0;
    for (size_t i = 0; i < sim->ring_count; i++) {
        sim_look(sim, i, regular);
        rings[i] = &sim->rings[i].track.ring;
        sim->domains[rings[i]->domain].charged_bytes += rings[i]->size_bytes;
    }
    sim->input = (struct policy_input){
        .now_ns = sim->now_ns,
        .total_bytes = sim->total_bytes,
        .free_bytes = sim->total_bytes - sim_used(sim),
        .largest_free_bytes = sim->total_bytes - sim_used(sim),
        .rings = rings,
        .ring_count = sim->ring_count,
        .domains = sim->domains,
        .domain_count = sim->domain_count,
        .scratch = scratch,
        .domain_scratch = domain_scratch,
        .pressure = !regular,
    };
    sim->decision_count = sim->plan(&sim->input, &sim->config, sim->decisions, SIM_DECISIONS_MAX);
    sim->rounds++;
    if (sim->record)
        sim->record(sim);
    return sim_carry_out(sim);
}

static inline void sim_tick(struct sim *sim)
{
    sim->now_ns += SIM_TICK_NS;
    for (size_t i = 0; i < sim->ring_count; i++)
        sim_ring_tick(&sim->rings[i], sim->now_ns);
}

/* So many regular rounds. False: a plan broke a promise. */
static inline bool sim_run(struct sim *sim, unsigned rounds)
{
    bool kept = true;

    for (unsigned round = 0; round < rounds; round++) {
        for (uint64_t tick = 0; tick < sim->config.period_ms; tick++)
            sim_tick(sim);
        kept &= sim_round(sim, true);
    }
    return kept;
}

/* Was there such a refusal in the last round? */
static inline bool sim_refused(const struct sim *sim, enum policy_reason reason)
{
    for (size_t i = 0; i < sim->decision_count; i++)
        if (sim->decisions[i].refused && sim->decisions[i].reason == reason)
            return true;
    return false;
}

#endif
