/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/sim_trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/children.h"
#include "broker/policy_trace.h"

#define NO_RING UINT32_MAX
#define NS_PER_S 1e9
#define DECISIONS_MAX 8192u
#define SHOWN_MAX 20u
/* Simulated rings begin then; see bench/sim.c. */
#define OPENED_NS 1000000000u

/* A recording that is open. */
struct source {
    const char *path;
    FILE *in;
    struct policy_trace_reader *reader;
};

static void source_open(struct source *source, const char *path)
{
    source->path = path;
    source->in = fopen(path, "re");
    if (!source->in)
        children_fail("sim: %s: %s", path, strerror(errno));
    source->reader = policy_trace_reader_new(source->in, path);
    if (!source->reader)
        children_fail("sim: out of memory");
}

static void source_close(struct source *source)
{
    policy_trace_reader_free(source->reader);
    fclose(source->in);
}

static bool source_next(struct source *source, struct policy_trace_round *round)
{
    char error[POLICY_TRACE_ERROR_BYTES];
    int r = policy_trace_read(source->reader, round, error);

    if (r < 0)
        children_fail("sim: %s", error);
    return r == 1;
}

struct tally {
    uint64_t rounds, missing, decisions, moves, recorded_moves, different;
    unsigned shown;
};

static void describe(char *text, size_t bytes, const struct policy_trace_round *round,
                     const struct policy_decision *decision)
{
    const struct policy_ring *ring = round->input.rings[decision->index];

    snprintf(text, bytes, "channel %u ring %u: %s %llu -> %llu bytes, %s (%llu)", ring->channel,
             ring->ring, decision->refused ? "refuses" : "moves",
             (unsigned long long)decision->from_bytes, (unsigned long long)decision->to_bytes,
             policy_trace_reason(decision->reason), (unsigned long long)decision->number);
}

/* On standard error, where it stands beside the table and does not disturb JSON. */
static void say_difference(const struct source *source, const struct policy_trace_round *round,
                           const struct policy_decision *decisions, size_t count, size_t at)
{
    char was[160] = "nothing more", is[160] = "nothing more";

    if (at < round->decision_count)
        describe(was, sizeof(was), round, &round->decisions[at]);
    if (at < count)
        describe(is, sizeof(is), round, &decisions[at]);
    fprintf(stderr, "%s:%u: in this round, decision %zu\n  recorded: %s\n  replayed: %s\n",
            source->path, round->line, at + 1, was, is);
}

static void compare(struct tally *tally, const struct source *source,
                    const struct policy_trace_round *round, const struct policy_decision *decisions,
                    size_t count, unsigned show_most)
{
    size_t at = 0;

    for (size_t i = 0; i < count; i++)
        tally->moves += !decisions[i].refused;
    for (size_t i = 0; i < round->decision_count; i++)
        tally->recorded_moves += !round->decisions[i].refused;
    tally->rounds++;
    tally->missing += round->missing;
    tally->decisions += count;
    while (at < count && at < round->decision_count &&
           policy_decision_equal(&decisions[at], &round->decisions[at]))
        at++;
    if (at == count && at == round->decision_count)
        return;
    tally->different++;
    if (tally->shown++ < show_most)
        say_difference(source, round, decisions, count, at);
}

static void report_tally(struct report *report, const struct tally *tally)
{
    report_number(report, "rounds", (double)tally->rounds, 0, "");
    report_number(report, "rounds_missing", (double)tally->missing, 0, "");
    report_number(report, "decisions", (double)tally->decisions, 0, "");
    report_number(report, "moves", (double)tally->moves, 0, "");
    report_number(report, "moves_recorded", (double)tally->recorded_moves, 0, "");
    report_number(report, "rounds_different", (double)tally->different, 0, "");
}

/* The broker's limit is by the configuration; a plan that was cut off there is to be cut here. */
static size_t decisions_most(const struct policy_config *config)
{
    return config->moves_max + POLICY_REFUSALS_MAX;
}

int sim_trace_replay(struct report *report, const char *path, const struct policy *policy)
{
    struct policy_decision *decisions = malloc(DECISIONS_MAX * sizeof(*decisions));
    struct policy_trace_round round;
    struct source source;
    struct tally tally = {0};

    if (!decisions)
        children_fail("sim: out of memory");
    source_open(&source, path);
    while (source_next(&source, &round)) {
        const struct policy *asked = policy ? policy : round.policy;
        size_t count =
            asked->plan(&round.input, &round.config, decisions, decisions_most(&round.config));
        compare(&tally, &source, &round, decisions, count, policy ? SHOWN_MAX : 1);
    }
    source_close(&source);
    free(decisions);
    if (tally.rounds == 0)
        children_fail("sim: %s: there is no whole round in it", path);
    report_tally(report, &tally);
    report_say(report, "%s",
               tally.different == 0 ? "  the same decisions"
               : policy             ? "  what it would have decided otherwise: the first are above"
                                    : "  not the same decisions");
    return tally.different > 0 && !policy;
}

/* Ring numbers of the recording to places, as they come. */
struct loading {
    struct sim_trace_load *load;
    uint32_t *places;
    size_t *room; /* of each ring's steps */
    size_t rings_room;
    uint64_t first_ns, last_ns;
};

static struct sim_demand *demand_of(struct loading *loading, const struct policy_ring *ring)
{
    struct sim_trace_load *load = loading->load;
    uint32_t *place = &loading->places[(size_t)ring->channel * 2 + ring->ring];

    if (*place == NO_RING) {
        if (load->ring_count == loading->rings_room) {
            loading->rings_room = loading->rings_room ? 2 * loading->rings_room : 64;
            load->demands =
                reallocarray(load->demands, loading->rings_room, sizeof(*load->demands));
            loading->room = reallocarray(loading->room, loading->rings_room, sizeof(size_t));
            if (!load->demands || !loading->room)
                children_fail("sim: out of memory");
        }
        *place = (uint32_t)load->ring_count++;
        loading->room[*place] = 0;
        load->demands[*place] = (struct sim_demand){.equals = *place};
    }
    return &load->demands[*place];
}

static void add_step(struct loading *loading, struct sim_demand *demand, struct sim_step step)
{
    size_t *room = &loading->room[demand - loading->load->demands];
    struct sim_step *steps = (struct sim_step *)(uintptr_t)demand->steps;

    if (demand->step_count == *room) {
        *room = *room ? 2 * *room : 16;
        steps = reallocarray(steps, *room, sizeof(*steps));
        if (!steps)
            children_fail("sim: out of memory");
        demand->steps = steps;
    }
    steps[demand->step_count++] = step;
}

/* What a ring did in the interval that ends now. */
static void add_interval(struct loading *loading, const struct policy_trace_round *round,
                         const struct policy_ring *ring)
{
    struct sim_demand *demand = demand_of(loading, ring);
    double interval_ns = (double)ring->interval_ns, stall_ns = (double)ring->stall_ns;
    uint64_t began_ns = round->input.now_ns - ring->interval_ns;

    demand->weight = ring->weight;
    demand->min_bytes = ring->min_bytes;
    demand->max_bytes = ring->max_bytes;
    if (interval_ns <= 0 || ring->interval_ns > round->input.now_ns || began_ns < loading->first_ns)
        return;
    double writing = interval_ns > stall_ns ? (interval_ns - stall_ns) / interval_ns : 0;
    double offered = (double)ring->sent_bytes / interval_ns * NS_PER_S;
    struct sim_step step = {
        .at_ns = began_ns - loading->first_ns + OPENED_NS,
        .offered = writing > 0.1 ? offered / writing : offered * 10,
        .drained = (double)ring->drain_rate,
    };
    if (step.offered * 2 > demand->write_rate)
        demand->write_rate = step.offered * 2;
    add_step(loading, demand, step);
}

static void add_round(struct loading *loading, const struct policy_trace_round *round)
{
    const struct policy_input *input = &round->input;

    if (loading->first_ns == 0) {
        loading->first_ns = input->now_ns;
        loading->load->config = round->config;
        loading->load->region_bytes = input->total_bytes / 4096 * 4096;
    }
    if (input->now_ns < loading->last_ns)
        children_fail("sim: line %u of the recording: time runs backwards", round->line);
    loading->last_ns = input->now_ns;
    for (size_t i = 0; i < input->ring_count && !input->pressure; i++)
        if ((uint64_t)input->rings[i]->channel * 2 + 1 < POLICY_TRACE_RINGS_MAX &&
            input->rings[i]->ring < 2)
            add_interval(loading, round, input->rings[i]);
}

void sim_trace_load(const char *path, struct sim_trace_load *load)
{
    struct loading loading = {.load = load};
    struct policy_trace_round round;
    struct source source;

    *load = (struct sim_trace_load){0};
    loading.places = malloc(POLICY_TRACE_RINGS_MAX * sizeof(*loading.places));
    if (!loading.places)
        children_fail("sim: out of memory");
    memset(loading.places, 0xff, POLICY_TRACE_RINGS_MAX * sizeof(*loading.places));
    source_open(&source, path);
    while (source_next(&source, &round))
        if (round.zone == 0)
            add_round(&loading, &round);
    source_close(&source);
    free(loading.places);
    free(loading.room);
    load->seconds = (double)(loading.last_ns - loading.first_ns) / NS_PER_S;
    if (load->ring_count == 0 || load->seconds <= 0)
        children_fail("sim: %s: there is no load in it", path);
    for (size_t i = 0; i < load->ring_count; i++)
        if (load->demands[i].write_rate <= 0)
            load->demands[i].write_rate = 1;
}

void sim_trace_load_deinit(struct sim_trace_load *load)
{
    for (size_t i = 0; i < load->ring_count; i++)
        free((void *)(uintptr_t)load->demands[i].steps);
    free(load->demands);
    *load = (struct sim_trace_load){0};
}
