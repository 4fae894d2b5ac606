/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/fuzz/allocator_model.h - the allocator beside a model too simple to be wrong.
 *
 * The model has one entry for each block and scans them all. A run reads bytes as operations, does
 * each on both, and aborts with a message where they differ. The fuzz target feeds it what the
 * fuzzer finds, the unit test pseudo-random bytes.
 */
#ifndef VCHAN_TESTS_FUZZ_ALLOCATOR_MODEL_H
#define VCHAN_TESTS_FUZZ_ALLOCATOR_MODEL_H

#include "allocator/allocator.h"
#include "allocator/plan.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_BLOCKS 192
#define MODEL_DOMAINS 4
#define MODEL_FREE (-1)

struct model_extent { /* valid at its start block */
    int blocks;       /* 0: no extent starts here */
    uint32_t domain;
    uint64_t cookie;
    int replaces; /* start or MODEL_FREE */
    int replaced_by;
};

struct model {
    struct allocator *allocator;
    int total;
    int start_of[MODEL_BLOCKS]; /* of the extent that holds the block, or MODEL_FREE */
    struct model_extent extent[MODEL_BLOCKS];
    int quota[MODEL_DOMAINS];
    int high_water;
    const uint8_t *bytes;
    size_t bytes_left;
    uint64_t next_cookie;
    unsigned long operations;
};

#define MODEL_AGREES(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: differs: %s\n", __FILE__, __LINE__, #condition);               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static int model_byte(struct model *model)
{
    if (!model->bytes_left)
        return 0;
    model->bytes_left--;
    return *model->bytes++;
}

/* The start of an extent if the block lies in one; now and then any block. */
static int model_pick(struct model *model)
{
    int block = model_byte(model) % model->total;

    if (model->start_of[block] == MODEL_FREE || model_byte(model) % 16 == 0)
        return block;
    return model->start_of[block];
}

/* Mostly a few blocks, so that there are many extents; now and then up to 63, or 0. */
static int model_size(struct model *model)
{
    int byte = model_byte(model);

    return byte % 4 ? 1 + byte / 4 % 8 : byte / 4;
}

static int model_run_at(const struct model *model, int block)
{
    int blocks = 0;

    while (block + blocks < model->total && model->start_of[block + blocks] == MODEL_FREE)
        blocks++;
    return blocks;
}

static int model_best_fit(const struct model *model, int blocks)
{
    int best = MODEL_FREE;
    int best_blocks = 0;

    for (int block = 0; block < model->total; block++) {
        int run_blocks = model_run_at(model, block);

        if (run_blocks >= blocks && (best == MODEL_FREE || run_blocks < best_blocks)) {
            best = block;
            best_blocks = run_blocks;
        }
        block += run_blocks;
    }
    return best;
}

static int model_charge(const struct model *model, const struct model_extent *extent)
{
    int shared_blocks = 0;

    if (extent->replaces != MODEL_FREE)
        shared_blocks = model->extent[extent->replaces].blocks;
    return extent->blocks > shared_blocks ? extent->blocks - shared_blocks : 0;
}

static struct allocator_usage model_usage(const struct model *model, uint32_t domain)
{
    struct allocator_usage usage = {.domain = domain,
                                    .quota_blocks = (uint64_t)model->quota[domain]};

    for (int block = 0; block < model->total; block++) {
        const struct model_extent *extent = &model->extent[block];

        if (!extent->blocks || extent->domain != domain)
            continue;
        usage.held_blocks += (uint64_t)extent->blocks;
        usage.charged_blocks += (uint64_t)model_charge(model, extent);
        usage.extents++;
    }
    return usage;
}

static bool model_admits(const struct model *model, uint32_t domain, int more_blocks)
{
    uint64_t charged_blocks = model_usage(model, domain).charged_blocks;

    return more_blocks <= 0 || !model->quota[domain] ||
           charged_blocks + (uint64_t)more_blocks <= (uint64_t)model->quota[domain];
}

static int model_used(const struct model *model)
{
    int used = 0;

    for (int block = 0; block < model->total; block++)
        used += model->start_of[block] != MODEL_FREE;
    return used;
}

static void model_put(struct model *model, int start, struct model_extent extent)
{
    model->extent[start] = extent;
    for (int block = start; block < start + extent.blocks; block++)
        model->start_of[block] = start;
    if (extent.replaces != MODEL_FREE)
        model->extent[extent.replaces].replaced_by = start;
    if (model_used(model) > model->high_water)
        model->high_water = model_used(model);
}

static void model_take(struct model *model, int start)
{
    struct model_extent *extent = &model->extent[start];

    for (int block = start; block < start + extent->blocks; block++)
        model->start_of[block] = MODEL_FREE;
    if (extent->replaces != MODEL_FREE)
        model->extent[extent->replaces].replaced_by = MODEL_FREE;
    if (extent->replaced_by != MODEL_FREE)
        model->extent[extent->replaced_by].replaces = MODEL_FREE;
    extent->blocks = 0;
}

static bool model_is_tied(const struct model_extent *extent)
{
    return extent->replaces != MODEL_FREE || extent->replaced_by != MODEL_FREE;
}

/* An allocation of all four kinds: with an old extent or without, at a place or best fit. */
static void model_do_allocate(struct model *model, bool replace, bool at)
{
    int old = replace ? model_pick(model) : MODEL_FREE;
    int blocks = model_size(model);
    int place = at ? model_byte(model) % (model->total + 4) : model_best_fit(model, blocks);
    struct model_extent extent = {.blocks = blocks, .replaces = old, .replaced_by = MODEL_FREE};
    const struct model_extent *replaced = replace ? &model->extent[old] : NULL;
    uint64_t start = at ? (uint64_t)place : ALLOCATOR_NOWHERE;
    int expected = 0;
    int r;

    extent.domain = replace ? replaced->domain : (uint32_t)model_byte(model) % MODEL_DOMAINS;
    extent.cookie = replace ? replaced->cookie : model->next_cookie++;
    if (replace && !replaced->blocks)
        expected = -ENOENT;
    else if (!blocks)
        expected = -EINVAL;
    else if (replace && model_is_tied(replaced))
        expected = -EBUSY;
    else if (at && place + blocks > model->total)
        expected = -EINVAL;
    else if (!model_admits(model, extent.domain, blocks - (replace ? replaced->blocks : 0)))
        expected = -EDQUOT;
    else if (at && model_run_at(model, place) < blocks)
        expected = -EBUSY;
    else if (place == MODEL_FREE)
        expected = -ENOSPC;
    if (replace && at)
        r = allocator_replace_at(model->allocator, (uint64_t)old, start, (uint64_t)blocks);
    else if (replace)
        r = allocator_replace(model->allocator, (uint64_t)old, (uint64_t)blocks, &start);
    else if (at)
        r = allocator_allocate_at(model->allocator, extent.domain, start, (uint64_t)blocks,
                                  extent.cookie);
    else
        r = allocator_allocate(model->allocator, extent.domain, (uint64_t)blocks, extent.cookie,
                               &start);
    MODEL_AGREES(r == expected);
    MODEL_AGREES(r || start == (uint64_t)place);
    if (!r)
        model_put(model, place, extent);
}

static void model_do_release(struct model *model)
{
    int start = model_pick(model);
    bool is_extent = model->extent[start].blocks;
    int r = allocator_release(model->allocator, (uint64_t)start);

    MODEL_AGREES(r == (is_extent ? 0 : -ENOENT));
    if (!r)
        model_take(model, start);
}

static void model_do_resize(struct model *model)
{
    int start = model_pick(model);
    int blocks = model_size(model);
    struct model_extent extent = model->extent[start];
    int more_blocks = blocks - extent.blocks;
    int expected = 0;
    int r = allocator_resize_in_place(model->allocator, (uint64_t)start, (uint64_t)blocks);

    if (!extent.blocks)
        expected = -ENOENT;
    else if (!blocks)
        expected = -EINVAL;
    else if (model_is_tied(&extent))
        expected = -EBUSY;
    else if (!model_admits(model, extent.domain, more_blocks))
        expected = -EDQUOT;
    else if (more_blocks > 0 && model_run_at(model, start + extent.blocks) < more_blocks)
        expected = -ENOSPC;
    MODEL_AGREES(r == expected);
    if (r)
        return;
    model_take(model, start);
    extent.blocks = blocks;
    model_put(model, start, extent);
}

static void model_do_quota(struct model *model)
{
    int domain = model_byte(model) % MODEL_DOMAINS;
    int blocks = model_byte(model) & ~3;

    MODEL_AGREES(!allocator_quota_set(model->allocator, (uint32_t)domain, (uint64_t)blocks));
    model->quota[domain] = blocks;
}

/* For plans: extents with an odd cookie may not move. */
static bool model_movable(const struct allocator_span *extent, void *data)
{
    (void)data;
    return !(extent->cookie & 1);
}

/* A move's source is settled and movable, its destination free. Takes the destination. */
static void model_start_move(struct model *model, const struct allocator_move *move)
{
    struct model_extent extent;

    MODEL_AGREES(move->from_block < (uint64_t)model->total);
    MODEL_AGREES(move->to_block + move->blocks <= (uint64_t)model->total);
    extent = model->extent[move->from_block];
    MODEL_AGREES(move->blocks && (uint64_t)extent.blocks == move->blocks);
    MODEL_AGREES(!model_is_tied(&extent) && !(extent.cookie & 1));
    MODEL_AGREES((uint64_t)model_run_at(model, (int)move->to_block) >= move->blocks);
    MODEL_AGREES(
        !allocator_replace_at(model->allocator, move->from_block, move->to_block, move->blocks));
    extent.replaces = (int)move->from_block;
    model_put(model, (int)move->to_block, extent);
}

static void model_end_move(struct model *model, const struct allocator_move *move)
{
    MODEL_AGREES(!allocator_release(model->allocator, move->from_block));
    model_take(model, (int)move->from_block);
}

static void model_do_plan(struct model *model)
{
    struct allocator_limits limits = {.movable = model_movable};
    struct allocator_move moves[8];
    struct allocator_plan plan = {0};
    uint64_t needed_blocks = (uint64_t)model_byte(model) / 2;
    uint64_t free_blocks = (uint64_t)(model->total - model_used(model));
    uint64_t moved_blocks = 0;
    int r;

    limits.budget_blocks = (uint64_t)model_byte(model);
    limits.max_moves = (size_t)model_byte(model) % 9;
    r = allocator_plan_moves(model->allocator, needed_blocks, &limits, moves, &plan);
    if (!needed_blocks || free_blocks < needed_blocks) {
        MODEL_AGREES(r == (needed_blocks ? -ENOSPC : -EINVAL));
        return;
    }
    if (model_best_fit(model, (int)needed_blocks) != MODEL_FREE)
        MODEL_AGREES(!r && !plan.moves && !plan.moved_blocks);
    MODEL_AGREES(!r || r == -EAGAIN);
    if (r)
        return;
    MODEL_AGREES(plan.moves <= limits.max_moves && plan.blocks >= needed_blocks);
    for (size_t i = 0; i < plan.moves; i++) {
        model_start_move(model, &moves[i]);
        moved_blocks += moves[i].blocks;
        MODEL_AGREES(moves[i].to_block + moves[i].blocks <= plan.start_block ||
                     moves[i].to_block >= plan.start_block + plan.blocks);
    }
    MODEL_AGREES(moved_blocks == plan.moved_blocks && moved_blocks <= limits.budget_blocks);
    for (size_t i = 0; i < plan.moves; i++)
        model_end_move(model, &moves[i]);
    MODEL_AGREES((uint64_t)model_run_at(model, (int)plan.start_block) >= plan.blocks);
}

static void model_do_compact(struct model *model)
{
    struct allocator_limits limits = {.max_moves = 1, .movable = model_movable};
    struct allocator_move move;
    int r;

    limits.budget_blocks = (uint64_t)model_byte(model);
    r = allocator_plan_compact(model->allocator, &limits, &move);
    MODEL_AGREES(!r || r == -ENOENT);
    if (r)
        return;
    MODEL_AGREES(move.to_block < move.from_block && move.blocks <= limits.budget_blocks);
    model_start_move(model, &move);
    model_end_move(model, &move);
}

/* Every span, as allocator_span_at() walks them, and what is counted about them. */
static void model_compare(const struct model *model)
{
    struct allocator_figures figures;
    struct allocator_span span;
    uint64_t extents = 0;
    uint64_t runs = 0;
    uint64_t longest = 0;
    uint64_t outgoing = 0;

    for (uint64_t at = 0; !allocator_span_at(model->allocator, at, &span); at += span.blocks) {
        const struct model_extent *extent = &model->extent[at];

        MODEL_AGREES(span.start_block == at);
        if (span.free) {
            MODEL_AGREES((uint64_t)model_run_at(model, (int)at) == span.blocks);
            longest = span.blocks > longest ? span.blocks : longest;
            runs++;
            continue;
        }
        MODEL_AGREES((uint64_t)extent->blocks == span.blocks && extent->domain == span.domain);
        MODEL_AGREES(extent->cookie == span.cookie);
        MODEL_AGREES((uint64_t)model_charge(model, extent) == span.charged_blocks);
        MODEL_AGREES((uint64_t)(int64_t)extent->replaces == span.replaces_block);
        MODEL_AGREES((uint64_t)(int64_t)extent->replaced_by == span.replaced_by_block);
        outgoing += extent->replaced_by != MODEL_FREE ? span.blocks : 0;
        extents++;
    }
    allocator_figures(model->allocator, &figures);
    MODEL_AGREES(figures.total_blocks == (uint64_t)model->total);
    MODEL_AGREES(figures.used_blocks == (uint64_t)model_used(model));
    MODEL_AGREES(figures.free_blocks == figures.total_blocks - figures.used_blocks);
    MODEL_AGREES(figures.used_high_water_blocks == (uint64_t)model->high_water);
    MODEL_AGREES(figures.extents == extents && figures.free_runs == runs);
    MODEL_AGREES(figures.largest_free_blocks == longest && figures.outgoing_blocks == outgoing);
    MODEL_AGREES((figures.fragmentation_permille == 0) == (runs <= 1));
}

static void model_compare_domains(const struct model *model)
{
    struct allocator_usage top[MODEL_DOMAINS + 1];
    size_t count = allocator_top_domains(model->allocator, top, MODEL_DOMAINS + 1);
    size_t holders = 0;

    for (uint32_t domain = 0; domain < MODEL_DOMAINS; domain++) {
        struct allocator_usage expected = model_usage(model, domain);
        struct allocator_usage usage;

        allocator_domain_usage(model->allocator, domain, &usage);
        MODEL_AGREES(usage.domain == domain && usage.held_blocks == expected.held_blocks);
        MODEL_AGREES(usage.charged_blocks == expected.charged_blocks);
        MODEL_AGREES(usage.quota_blocks == expected.quota_blocks);
        MODEL_AGREES(usage.extents == expected.extents);
        holders += expected.held_blocks != 0;
    }
    MODEL_AGREES(count == holders);
    for (size_t i = 1; i < count; i++)
        MODEL_AGREES(top[i - 1].held_blocks >= top[i].held_blocks);
}

static void model_step(struct model *model)
{
    const char *why;
    int operation = model_byte(model) % 32;

    if (operation < 11)
        model_do_allocate(model, operation == 9, operation == 10);
    else if (operation < 12)
        model_do_allocate(model, true, true);
    else if (operation < 23)
        model_do_release(model);
    else if (operation < 26)
        model_do_resize(model);
    else if (operation < 27)
        model_do_quota(model);
    else if (operation < 31)
        model_do_plan(model);
    else
        model_do_compact(model);
    model->operations++;
    if (allocator_check(model->allocator, &why)) {
        fprintf(stderr, "after %lu operations: %s\n", model->operations, why);
        abort();
    }
}

/* Does what the bytes say, with an allocator of its own. Returns how many operations that was. */
static unsigned long model_run(const uint8_t *bytes, size_t size)
{
    struct model model = {.bytes = bytes, .bytes_left = size};

    model.total = 1 + model_byte(&model) % MODEL_BLOCKS;
    for (int block = 0; block < MODEL_BLOCKS; block++)
        model.start_of[block] = MODEL_FREE;
    MODEL_AGREES(!allocator_new((uint64_t)model.total, &model.allocator));
    while (model.bytes_left) {
        model_step(&model);
        model_compare(&model);
        model_compare_domains(&model);
    }
    allocator_free(model.allocator);
    return model.operations;
}

#endif
