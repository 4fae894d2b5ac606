/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_alloc.c - what the allocator's operations cost, by the number of live extents: with
 * that many of random sizes in a section that is half free and fragmented (fixed seed).
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "allocator/allocator.h"
#include "allocator/plan.h"
#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"

#define SEED UINT64_C(0x9e3779b97f4a7c15)
#define EXTENT_BLOCKS_MAX 64u /* 4 to 256 KiB, mean 32.5 blocks */
#define DOMAINS 100u
#define OPERATIONS 200000u /* of each kind */
#define PLANS 2000u
#define PLAN_MOVES 64u
#define EXTENTS_MIN 100ul
#define EXTENTS_MAX 10000000ul

struct workload {
    struct allocator *allocator;
    uint64_t *starts; /* of the live extents, in no order */
    size_t extents;
    uint64_t random;
    int r; /* first error of an operation that should not fail */
};

/* Nanoseconds an operation, and what the section looked like. */
struct result {
    double allocate_ns;
    double release_ns;
    double resize_ns;
    double find_ns;
    double figures_ns;
    double plan_ns;
    double compact_ns;
    double plan_worst_ns;
    double plan_comb_ns;
    double planned_permille;
    double resized_permille;
    struct allocator_figures figures;
};

/* xorshift64: G. Marsaglia, "Xorshift RNGs", 2003. */
static uint64_t draw(struct workload *load, uint64_t below)
{
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return (load->random >> 11) % below;
}

static void allocate(struct workload *load, size_t at)
{
    uint32_t domain = (uint32_t)draw(load, DOMAINS);
    uint64_t blocks = 1 + draw(load, EXTENT_BLOCKS_MAX);
    int r = allocator_allocate(load->allocator, domain, blocks, at, &load->starts[at]);

    if (r && !load->r)
        load->r = r;
}

static void release(struct workload *load, size_t at)
{
    int r = allocator_release(load->allocator, load->starts[at]);

    if (r && !load->r)
        load->r = r;
}

/* How many blocks the next so many allocations will ask for. */
static uint64_t blocks_ahead(struct workload *load, size_t allocations)
{
    uint64_t random = load->random;
    uint64_t blocks = 0;

    for (size_t i = 0; i < allocations; i++) {
        draw(load, DOMAINS);
        blocks += 1 + draw(load, EXTENT_BLOCKS_MAX);
    }
    load->random = random;
    return blocks;
}

/*
 * A section that twice as many extents fill to the last block; then a random half of them goes, so
 * that half of the section is free, in no run longer than chance makes it.
 */
static int workload_init(struct workload *load, size_t extents)
{
    int r;

    *load = (struct workload){.extents = 2 * extents, .random = SEED};
    load->starts = calloc(load->extents, sizeof(load->starts[0]));
    if (!load->starts)
        return -ENOMEM;
    r = allocator_new(blocks_ahead(load, load->extents), &load->allocator);
    if (r)
        return r;
    for (size_t at = 0; at < load->extents; at++)
        allocate(load, at);
    while (load->extents > extents && !load->r) {
        size_t at = draw(load, load->extents);

        release(load, at);
        load->starts[at] = load->starts[--load->extents];
    }
    return load->r;
}

static void workload_deinit(struct workload *load)
{
    allocator_free(load->allocator);
    free(load->starts);
}

/* In batches, so that the clock is read seldom and the number of extents stays about the same. */
static void measure_allocate_and_release(struct workload *load, struct result *result)
{
    size_t batch = load->extents / 10 ? load->extents / 10 : 1;
    uint64_t release_ns = 0;
    uint64_t allocate_ns = 0;
    size_t done = 0;

    while (done < OPERATIONS && !load->r) {
        uint64_t start_ns;
        uint64_t middle_ns;

        /* Random ones come to the front; shuffling is not timed. */
        for (size_t at = 0; at < batch; at++) {
            size_t other = at + draw(load, load->extents - at);
            uint64_t start_block = load->starts[at];

            load->starts[at] = load->starts[other];
            load->starts[other] = start_block;
        }
        start_ns = measure_now_ns();
        for (size_t at = 0; at < batch; at++)
            release(load, at);
        middle_ns = measure_now_ns();
        for (size_t at = 0; at < batch; at++)
            allocate(load, at);
        allocate_ns += measure_now_ns() - middle_ns;
        release_ns += middle_ns - start_ns;
        done += batch;
    }
    result->release_ns = (double)release_ns / (double)done;
    result->allocate_ns = (double)allocate_ns / (double)done;
}

/*
 * Random extents to random sizes; the ones that what is behind them lets grow, and all that shrink.
 */
static void measure_resize(struct workload *load, struct result *result)
{
    uint64_t resized = 0;
    uint64_t start_ns = measure_now_ns();

    for (size_t i = 0; i < OPERATIONS; i++) {
        uint64_t start_block = load->starts[draw(load, load->extents)];
        uint64_t blocks = 1 + draw(load, EXTENT_BLOCKS_MAX);
        int r = allocator_resize_in_place(load->allocator, start_block, blocks);

        if (r && r != -ENOSPC && !load->r)
            load->r = r;
        resized += !r;
    }
    result->resize_ns = (double)(measure_now_ns() - start_ns) / OPERATIONS;
    result->resized_permille = 1000.0 * (double)resized / OPERATIONS;
}

static void measure_queries(struct workload *load, struct result *result)
{
    struct allocator_figures figures;
    struct allocator_span span;
    uint64_t start_ns = measure_now_ns();
    uint64_t middle_ns;

    for (size_t i = 0; i < OPERATIONS; i++) {
        int r = allocator_find(load->allocator, load->starts[draw(load, load->extents)], &span);

        if (r && !load->r)
            load->r = r;
    }
    middle_ns = measure_now_ns();
    for (size_t i = 0; i < OPERATIONS; i++) {
        allocator_figures(load->allocator, &figures);
        /* The result is used, or the compiler could hoist the call out of the loop. */
        __asm__ volatile("" : : "r"(&figures) : "memory");
    }
    result->figures_ns = (double)(measure_now_ns() - middle_ns) / OPERATIONS;
    result->find_ns = (double)(middle_ns - start_ns) / OPERATIONS;
}

/* Plans for random needs above the longest free run, none carried out; each one timed. */
static void measure_plans(struct workload *load, struct result *result)
{
    struct allocator_limits limits = {.budget_blocks = 1024, .max_moves = PLAN_MOVES};
    struct allocator_move moves[PLAN_MOVES];
    struct allocator_plan plan;
    uint64_t longest_blocks;
    uint64_t total_ns = 0;
    uint64_t worst_ns = 0;
    unsigned planned = 0;

    allocator_figures(load->allocator, &result->figures);
    longest_blocks = result->figures.largest_free_blocks;
    for (unsigned i = 0; i < PLANS; i++) {
        uint64_t needed_blocks = longest_blocks + 1 + draw(load, 8 * EXTENT_BLOCKS_MAX);
        uint64_t start_ns = measure_now_ns();
        int r = allocator_plan_moves(load->allocator, needed_blocks, &limits, moves, &plan);
        uint64_t took_ns = measure_now_ns() - start_ns;

        total_ns += took_ns;
        worst_ns = took_ns > worst_ns ? took_ns : worst_ns;
        planned += !r;
    }
    result->plan_ns = (double)total_ns / PLANS;
    result->plan_worst_ns = (double)worst_ns;
    result->planned_permille = 1000.0 * planned / PLANS;
    total_ns = measure_now_ns();
    for (unsigned i = 0; i < PLANS; i++)
        allocator_plan_compact(load->allocator, &limits, moves);
    result->compact_ns = (double)(measure_now_ns() - total_ns) / PLANS;
}

/*
 * The planner's hard case: a comb, every other block an extent, so that all free runs are alike, no
 * window is better than another, and the search goes on as long as it may.
 */
static int measure_comb(size_t extents, struct result *result)
{
    struct allocator_limits limits = {.budget_blocks = 1024, .max_moves = PLAN_MOVES};
    struct allocator_move moves[PLAN_MOVES];
    struct allocator_plan plan;
    struct allocator *allocator;
    uint64_t start_ns;
    int r = allocator_new(2 * (uint64_t)extents, &allocator);

    if (r)
        return r;
    for (size_t i = 0; i < extents && !r; i++)
        r = allocator_allocate_at(allocator, 0, 2 * i, 1, i);
    start_ns = measure_now_ns();
    for (unsigned i = 0; i < PLANS && !r; i++)
        r = allocator_plan_moves(allocator, PLAN_MOVES, &limits, moves, &plan);
    result->plan_comb_ns = (double)(measure_now_ns() - start_ns) / PLANS;
    allocator_free(allocator);
    return r;
}

static int measure(size_t extents, struct result *result)
{
    struct workload load;
    int r = workload_init(&load, extents);

    if (!r) {
        measure_plans(&load, result);
        measure_queries(&load, result);
        measure_allocate_and_release(&load, result);
        measure_resize(&load, result);
        r = load.r;
    }
    workload_deinit(&load);
    return r ? r : measure_comb(extents, result);
}

static void report_result(struct report *report, const struct result *result)
{
    const struct allocator_figures *figures = &result->figures;

    report_row(report, (struct report_cell[]){
                           {.number = (double)figures->extents},
                           {.number = (double)figures->free_runs},
                           {.number = result->allocate_ns},
                           {.number = result->release_ns},
                           {.number = result->resize_ns},
                           {.number = result->resized_permille},
                           {.number = result->find_ns},
                           {.number = result->figures_ns},
                           {.number = result->plan_ns},
                           {.number = result->plan_worst_ns},
                           {.number = result->plan_comb_ns},
                           {.number = result->compact_ns},
                           {.number = result->planned_permille},
                           {.number = (double)figures->fragmentation_permille},
                           {.number = (double)figures->largest_free_blocks},
                       });
}

static const struct report_column columns[] = {
    {"extents", "extents", 8, 0},
    {"free_runs", "runs", 7, 0},
    {"allocate_ns", "allocate", 8, 0},
    {"release_ns", "release", 8, 0},
    {"resize_ns", "resize", 8, 0},
    {"resized_permille", "resized", 8, 0},
    {"find_ns", "find", 6, 0},
    {"figures_ns", "figures", 8, 0},
    {"plan_ns", "plan", 8, 0},
    {"plan_worst_ns", "plan max", 9, 0},
    {"plan_comb_ns", "plan comb", 9, 0},
    {"plan_compact_ns", "compact", 8, 0},
    {"planned_permille", "planned", 8, 0},
    {"fragmentation_permille", "fragment", 8, 0},
    {"largest_free_blocks", "largest", 8, 0},
};

/* Measures one size and adds it. */
static void run_one(unsigned long extents, struct report *report)
{
    struct result result = {0};
    int r = measure(extents, &result);

    if (r)
        children_fail("alloc: %lu extents: %s", extents, strerror(-r));
    report_result(report, &result);
}

int mode_alloc(struct report *report, const struct mode_options *options)
{
    static char *by_default[] = {"100", "1000", "10000", "100000"};
    bool given = options->arguments_count > 0;
    char **arguments = given ? options->arguments : by_default;
    int count = given ? options->arguments_count : 4;

    for (int i = 0; i < count; i++) {
        char *end;
        unsigned long extents = strtoul(arguments[i], &end, 10);
        if (*end || extents < EXTENTS_MIN || extents > EXTENTS_MAX) {
            fprintf(stderr, "vchan-bench: alloc: '%s' is not a number of extents from %lu to %lu\n",
                    arguments[i], EXTENTS_MIN, EXTENTS_MAX);
            return 2;
        }
    }
    report_say(report, "ns an operation; sizes 1 to %u blocks; plans of at most %u moves; permille",
               EXTENT_BLOCKS_MAX, PLAN_MOVES);
    report_table(report, "rows", columns, sizeof(columns) / sizeof(columns[0]));
    for (int i = 0; i < count; i++)
        run_one(strtoul(arguments[i], NULL, 10), report);
    report_table_end(report);
    return 0;
}
