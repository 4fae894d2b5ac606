/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "allocator/span.h"

#include <stdlib.h>

struct span *span_new(enum span_kind kind, uint64_t start_block, uint64_t blocks)
{
    struct span *span = calloc(1, sizeof(*span));

    if (span) {
        span->kind = kind;
        span->start_block = start_block;
        span->blocks = blocks;
    }
    return span;
}

void span_free(struct span *span)
{
    free(span);
}

void span_list_after(struct span *span, struct span *before)
{
    span->prev = before;
    span->next = before->next;
    before->next->prev = span;
    before->next = span;
}

void span_list_remove(struct span *span)
{
    span->prev->next = span->next;
    span->next->prev = span->prev;
}

static bool run_is_before(const struct span *a, const struct span *b)
{
    if (a->blocks != b->blocks)
        return a->blocks < b->blocks;
    return a->start_block < b->start_block;
}

void span_run_insert(struct allocator *allocator, struct span *run)
{
    struct avl_node *parent = NULL;
    struct avl_node *node = allocator->runs.root;
    int side = AVL_LEFT;

    while (node) {
        parent = node;
        side = run_is_before(run, span_of(node)) ? AVL_LEFT : AVL_RIGHT;
        node = node->child[side];
    }
    avl_link(&allocator->runs, &run->node, parent, side);
    allocator->run_count++;
}

void span_run_remove(struct allocator *allocator, struct span *run)
{
    avl_remove(&allocator->runs, &run->node);
    allocator->run_count--;
}

struct span *span_run_best_fit(const struct allocator *allocator, uint64_t blocks)
{
    struct avl_node *node = allocator->runs.root;
    struct span *best = NULL;

    while (node) {
        struct span *run = span_of(node);

        if (run->blocks >= blocks) {
            best = run;
            node = node->child[AVL_LEFT];
        } else {
            node = node->child[AVL_RIGHT];
        }
    }
    return best;
}

struct span *span_run_best_fit_open(const struct allocator *allocator, uint64_t blocks)
{
    struct span *run = span_run_best_fit(allocator, blocks);

    while (run && span_run_is_barred(allocator, run))
        run = span_run_step(run, AVL_RIGHT);
    return run;
}

struct span *span_run_longest(const struct allocator *allocator)
{
    struct avl_node *node = avl_end(&allocator->runs, AVL_RIGHT);

    return node ? span_of(node) : NULL;
}

struct span *span_run_step(const struct span *run, int side)
{
    struct avl_node *node = avl_step(&run->node, side);

    return node ? span_of(node) : NULL;
}

/* The last extent that starts at or before the block; NULL: none does. */
static struct span *extent_at_or_before(const struct allocator *allocator, uint64_t block)
{
    struct avl_node *node = allocator->extents.root;
    struct span *found = NULL;

    while (node) {
        struct span *extent = span_of(node);

        if (extent->start_block <= block) {
            found = extent;
            node = node->child[AVL_RIGHT];
        } else {
            node = node->child[AVL_LEFT];
        }
    }
    return found;
}

struct span *span_find_extent(const struct allocator *allocator, uint64_t start_block)
{
    struct span *extent = extent_at_or_before(allocator, start_block);

    return extent && extent->start_block == start_block ? extent : NULL;
}

struct span *span_containing(const struct allocator *allocator, uint64_t block)
{
    struct span *extent = extent_at_or_before(allocator, block);

    if (extent && block < span_end_block(extent))
        return extent;
    /* No later extent starts at or before the block, so the run behind this one holds it. */
    return extent ? extent->next : allocator->edge.next;
}

struct allocator_span span_describe(const struct span *span)
{
    struct allocator_span described = {
        .start_block = span->start_block,
        .blocks = span->blocks,
        .replaces_block = ALLOCATOR_NOWHERE,
        .replaced_by_block = ALLOCATOR_NOWHERE,
        .free = span->kind == SPAN_FREE,
    };

    if (span->kind == SPAN_EXTENT) {
        described.cookie = span->cookie;
        described.charged_blocks = span->charged_blocks;
        described.domain = span->account->domain;
        if (span->replaces)
            described.replaces_block = span->replaces->start_block;
        if (span->replaced_by)
            described.replaced_by_block = span->replaced_by->start_block;
    }
    return described;
}
