/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/sim_memory.h"
#include "bench/sim_ring.h"
#include "broker/policy_book.h"

#define NS_PER_MS 1000000u
#define WHEEL_SLOTS 4096u
#define NO_RING UINT32_MAX
#define DECISIONS_MAX (4096u + POLICY_REFUSALS_MAX) /* moves_max is at most 4096 */
#define HURRY_MS 4u
#define OPENED_NS 1000000000u /* not 0: that means never */

struct sim {
    const struct sim_setup *setup;
    struct sim_result *result;
    uint64_t now_ns;
    uint64_t late_ns; /* from when on it is late */
    struct sim_ring *rings;
    uint32_t *active;
    size_t active_count;
    uint32_t wheel[WHEEL_SLOTS];
    uint32_t *pressing; /* rings that have begun to stall */
    size_t pressing_count;
    struct sim_memory memory;
    struct policy_book *book;
    struct policy_decision decisions[DECISIONS_MAX];
    uint64_t regular_ns, hurried_ns, hurry_ms;
    double used_sum, listed_sum;
    uint64_t slices, full_rounds;
};

static void activate(struct sim *sim, uint32_t number)
{
    sim->rings[number].active = (uint32_t)sim->active_count;
    sim->active[sim->active_count++] = number;
}

static void deactivate(struct sim *sim, uint32_t number)
{
    uint32_t place = sim->rings[number].active;
    uint32_t last = sim->active[--sim->active_count];

    sim->active[place] = last;
    sim->rings[last].active = place;
    sim->rings[number].active = NO_RING;
}

/* Into the slot of its time; what is too far away is met before and put back. */
static void put_off(struct sim *sim, uint32_t number)
{
    uint64_t due_ns = sim_ring_due_ns(&sim->rings[number], sim->now_ns);
    uint64_t slices = due_ns == SIM_NEVER ? WHEEL_SLOTS : (due_ns - sim->now_ns) / SIM_SLICE_NS;
    uint64_t slot = sim->now_ns / SIM_SLICE_NS + 1;

    if (due_ns <= sim->now_ns)
        slices = 0;
    slot += slices < WHEEL_SLOTS - 1 ? slices : WHEEL_SLOTS - 2;
    sim->rings[number].next = sim->wheel[slot % WHEEL_SLOTS];
    sim->wheel[slot % WHEEL_SLOTS] = number;
}

static void wake_those_due(struct sim *sim)
{
    uint32_t *slot = &sim->wheel[sim->now_ns / SIM_SLICE_NS % WHEEL_SLOTS];
    uint32_t number = *slot, next;

    *slot = NO_RING;
    for (; number != NO_RING; number = next) {
        next = sim->rings[number].next;
        if (sim_ring_due_ns(&sim->rings[number], sim->now_ns) <= sim->now_ns)
            activate(sim, number);
        else
            put_off(sim, number);
    }
}

static void slice(struct sim *sim)
{
    bool late;

    sim->now_ns += SIM_SLICE_NS;
    late = sim->now_ns > sim->late_ns;
    wake_those_due(sim);
    for (size_t i = sim->active_count; i-- > 0;) {
        uint32_t number = sim->active[i];
        struct sim_ring *ring = &sim->rings[number];
        if (sim_ring_slice(ring, sim->now_ns, late))
            sim->pressing[sim->pressing_count++] = number;
        if (sim_ring_due_ns(ring, sim->now_ns) > sim->now_ns) {
            deactivate(sim, number);
            put_off(sim, number);
        }
    }
    sim_memory_step(&sim->memory, sim->now_ns);
    sim->used_sum += (double)sim_memory_used(&sim->memory);
    sim->slices++;
}

static void look(struct sim *sim, const struct policy_book_round *round, uint32_t number)
{
    struct sim_ring *ring = &sim->rings[number];
    const struct sim_demand *demand = ring->demand;
    struct policy_look at = {
        .now_ns = round->now_ns,
        .opened_ns = OPENED_NS,
        .incarnation = 1,
        .channel = number / 2,
        .ring = number % 2,
        .weight = demand->weight ? demand->weight : 100,
        .size_bytes = ring->size_bytes,
        .min_bytes = sim_memory_min(demand),
        .max_bytes = demand->max_bytes ? demand->max_bytes : SIM_MAX_BYTES,
        .moving = sim_memory_moves(ring),
        .regular = round->regular,
    };

    sim_ring_sample(ring, &at.sample);
    const struct policy_track *track = policy_book_look(sim->book, round, number, &at);
    if (round->regular && policy_track_active(track))
        ring->high_bytes = ring->held_bytes;
}

static void look_at_all(struct sim *sim, const struct policy_book_round *round)
{
    const uint32_t *due;
    size_t next, end;

    policy_book_begin(sim->book, round, &next, &end);
    size_t count = policy_book_due(sim->book, &due);
    for (size_t i = 0; i < count; i++)
        look(sim, round, due[i]);
    for (; next < end; next++)
        if (!policy_book_is_listed(sim->book, (uint32_t)next))
            look(sim, round, (uint32_t)next);
    for (size_t i = 0; i < sim->pressing_count; i++)
        look(sim, round, sim->pressing[i]);
    sim->pressing_count = 0;
}

static void carry_out(struct sim *sim, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct policy_decision *decision = &sim->decisions[i];
        uint32_t number = policy_book_input_number(sim->book, decision->index);
        if (!decision->refused)
            sim_memory_want(&sim->memory, number, decision->to_bytes, sim->now_ns);
    }
    sim_memory_step(&sim->memory, sim->now_ns);
}

/*
 * The first round is about all rings, which are there before time begins; that does not happen to a
 * broker, and its cost is not counted.
 */
static void run_round(struct sim *sim, bool regular, bool pressing)
{
    const struct policy_book_round round = {
        .now_ns = sim->now_ns,
        .total_bytes = sim->setup->region_bytes,
        .free_bytes = sim_memory_free(&sim->memory),
        .largest_free_bytes = sim_memory_largest(&sim->memory),
        .regular = regular,
        .thorough = sim->result->rounds == 0,
        .pressure = !regular,
        .pressing = pressing,
        .policy = sim->setup->policy,
        .config = sim->setup->config,
    };
    uint64_t before_ticks = measure_ticks();
    size_t domains;

    look_at_all(sim, &round);
    policy_book_domains(sim->book, &domains)[0].charged_bytes = sim_memory_used(&sim->memory);
    size_t count = policy_book_plan(sim->book, &round, sim->decisions,
                                    sim->setup->config->moves_max + POLICY_REFUSALS_MAX);
    if (!round.thorough)
        histogram_add(pressing ? &sim->result->pressing_ns : &sim->result->round_ns,
                      measure_ticks() - before_ticks);
    if (pressing) {
        sim->result->pressing_rounds++;
    } else {
        sim->listed_sum += (double)policy_book_input(sim->book)->ring_count;
        sim->full_rounds++;
    }
    sim->result->rounds++;
    carry_out(sim, count);
}

static void run_rounds(struct sim *sim)
{
    const uint64_t period_ns = sim->setup->config->period_ms * NS_PER_MS;

    if (sim->now_ns - sim->regular_ns >= period_ns) {
        sim->regular_ns = sim->now_ns;
        run_round(sim, true, false);
    } else if (sim->pressing_count > 0) {
        sim->hurry_ms = HURRY_MS;
        sim->hurried_ns = sim->now_ns;
        run_round(sim, false, true);
    } else if (sim->hurry_ms && sim->now_ns - sim->hurried_ns >= sim->hurry_ms * NS_PER_MS) {
        sim->hurry_ms = sim->hurry_ms * 2 < sim->setup->config->period_ms ? sim->hurry_ms * 2 : 0;
        sim->hurried_ns = sim->now_ns;
        run_round(sim, false, false);
    }
}

/* Jain, Chiu, Hawe, "A quantitative measure of fairness", 1984, for each group of equals. */
static double fairness(const struct sim *sim)
{
    struct group {
        double sum, squares;
        unsigned count;
    } * groups;
    unsigned most = 0;
    double worst = 1;

    for (size_t i = 0; i < sim->setup->ring_count; i++)
        most = sim->setup->demands[i].equals > most ? sim->setup->demands[i].equals : most;
    groups = calloc((size_t)most + 1, sizeof(*groups));
    if (!groups)
        return 0;
    for (size_t i = 0; i < sim->setup->ring_count; i++) {
        struct group *group = &groups[sim->setup->demands[i].equals];
        if (sim->rings[i].offered_bytes <= 0)
            continue;
        double share = sim->rings[i].received_bytes / sim->rings[i].offered_bytes;
        group->sum += share;
        group->squares += share * share;
        group->count++;
    }
    for (unsigned i = 0; i <= most; i++) {
        const struct group *group = &groups[i];
        if (group->count < 2 || group->squares <= 0)
            continue;
        double jain = group->sum * group->sum / (group->count * group->squares);
        worst = jain < worst ? jain : worst;
    }
    free(groups);
    return worst;
}

static void gather(struct sim *sim)
{
    struct sim_result *result = sim->result;

    for (size_t i = 0; i < sim->setup->ring_count; i++) {
        const struct sim_ring *ring = &sim->rings[i];
        result->offered_bytes += ring->offered_bytes;
        result->received_bytes += ring->received_bytes;
        result->stall_seconds += ring->stall_ns / 1e9;
        result->late_stall_seconds += ring->late_stall_ns / 1e9;
    }
    result->moves = sim->memory.moves;
    result->late_moves = sim->memory.moves - sim->memory.moves_before_late;
    result->compaction_moves = sim->memory.compaction_moves;
    result->refused_moves = sim->memory.refused;
    result->used_bytes_mean = sim->slices ? sim->used_sum / (double)sim->slices : 0;
    result->used_bytes_most = sim_memory_used_most(&sim->memory);
    result->listed_mean = sim->full_rounds ? sim->listed_sum / (double)sim->full_rounds : 0;
    result->fairness = fairness(sim);
}

static int init(struct sim *sim)
{
    const struct sim_setup *setup = sim->setup;
    size_t rings = setup->ring_count;

    sim->rings = calloc(rings, sizeof(*sim->rings));
    sim->active = calloc(rings, sizeof(*sim->active));
    sim->pressing = calloc(rings * 2, sizeof(*sim->pressing));
    if (!sim->rings || !sim->active || !sim->pressing)
        return -ENOMEM;
    int r = policy_book_new(rings, &sim->book);
    if (r == 0)
        r = sim_memory_init(&sim->memory, setup->region_bytes, sim->rings, rings);
    memset(sim->wheel, 0xff, sizeof(sim->wheel));
    for (size_t i = 0; r == 0 && i < rings; i++) {
        sim_ring_init(&sim->rings[i], &setup->demands[i], setup->seed, i);
        sim->rings[i].burst_ns += sim->rings[i].burst_ns == SIM_NEVER ? 0 : OPENED_NS;
        sim->rings[i].active = NO_RING;
        r = sim_memory_open(&sim->memory, (uint32_t)i);
        put_off(sim, (uint32_t)i);
    }
    return r;
}

static void deinit(struct sim *sim)
{
    sim_memory_deinit(&sim->memory);
    policy_book_free(sim->book);
    free(sim->rings);
    free(sim->active);
    free(sim->pressing);
    free(sim);
}

int sim_run(const struct sim_setup *setup, struct sim_result *result)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    if (!sim)
        return -ENOMEM;
    *result = (struct sim_result){0};
    sim->setup = setup;
    sim->result = result;
    sim->now_ns = sim->regular_ns = OPENED_NS;
    sim->late_ns = OPENED_NS + (uint64_t)(setup->seconds * 0.2 * 1e9);
    uint64_t end_ns = OPENED_NS + (uint64_t)(setup->seconds * 1e9);
    int r = init(sim);
    if (r == 0)
        run_round(sim, true, false);
    while (r == 0 && sim->now_ns < end_ns) {
        slice(sim);
        run_rounds(sim);
        if (sim->now_ns <= sim->late_ns)
            sim->memory.moves_before_late = sim->memory.moves;
    }
    if (r == 0)
        gather(sim);
    deinit(sim);
    return r;
}
