/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * allocator/span.h - the spans and their two orders; the inside of struct allocator.
 *
 * Internal to allocator/. The picture and the reasons are in allocator/allocator.h.
 */
#ifndef VCHAN_ALLOCATOR_SPAN_H
#define VCHAN_ALLOCATOR_SPAN_H

#include "allocator/account.h"
#include "allocator/allocator.h"
#include "allocator/avl.h"

#include <stdbool.h>
#include <stdint.h>

enum span_kind {
    SPAN_EDGE, /* the list's head: before block 0 and behind the last */
    SPAN_FREE,
    SPAN_EXTENT,
};

struct span {
    struct avl_node node; /* owner: allocator.extents or allocator.runs, by kind */
    struct span *prev;    /* owner: the list from allocator.edge, in address order, circular */
    struct span *next;
    uint64_t start_block;
    uint64_t blocks;
    enum span_kind kind;
    union {
        struct { /* SPAN_EXTENT */
            struct account *account;
            uint64_t cookie;
            uint64_t charged_blocks;
            struct span *replaces;    /* incoming; its replaced_by points back */
            struct span *replaced_by; /* outgoing; its replaces points back */
        };
        struct { /* SPAN_FREE: the planner's notes, valid while plan_number is the allocator's */
            uint64_t plan_number;
            uint64_t plan_start_block; /* what is left of the run for destinations */
            uint64_t plan_blocks;
        };
    };
};

struct allocator {
    struct span edge;
    struct avl_tree extents; /* by start_block */
    struct avl_tree runs;    /* free runs by (blocks, start_block) */
    struct accounts accounts;
    uint64_t total_blocks;
    uint64_t used_blocks;
    uint64_t used_high_water_blocks;
    uint64_t outgoing_blocks;
    uint64_t extent_count;
    uint64_t run_count;
    uint64_t plan_number; /* of the planner's last attempt */
    uint64_t bar_start_block, bar_end_block; /* equal: nothing is barred */
};

static inline struct span *span_of(const struct avl_node *node)
{
    return AVL_ENTRY(node, struct span, node);
}

static inline uint64_t span_end_block(const struct span *span)
{
    return span->start_block + span->blocks;
}

/* Does this free run reach into the barred range? */
static inline bool span_run_is_barred(const struct allocator *allocator, const struct span *run)
{
    return run->start_block < allocator->bar_end_block &&
           span_end_block(run) > allocator->bar_start_block;
}

/* A zeroed span of that kind, in no list and no tree; for span_free(). NULL: no memory. */
struct span *span_new(enum span_kind kind, uint64_t start_block, uint64_t blocks);

void span_free(struct span *span);

/* Puts span behind another one in the address list. */
void span_list_after(struct span *span, struct span *before);

void span_list_remove(struct span *span);

/* The free runs by length. A run leaves the tree before its length or start changes. O(log n). */
void span_run_insert(struct allocator *allocator, struct span *run);
void span_run_remove(struct allocator *allocator, struct span *run);

/* The shortest run of at least that many blocks, lowest first among equals; NULL: none. */
struct span *span_run_best_fit(const struct allocator *allocator, uint64_t blocks);

/* The same among the runs that are not barred (allocator_bar). O(log n + runs in the bar). */
struct span *span_run_best_fit_open(const struct allocator *allocator, uint64_t blocks);

/* The longest run, the highest of equals; NULL: nothing is free. */
struct span *span_run_longest(const struct allocator *allocator);

/* The next run in the order by length: shorter ones AVL_LEFT, longer ones AVL_RIGHT. NULL: none. */
struct span *span_run_step(const struct span *run, int side);

/* The extent that starts there; NULL: none. O(log n). */
struct span *span_find_extent(const struct allocator *allocator, uint64_t start_block);

/* The span that contains the block, which is below total_blocks. O(log n). */
struct span *span_containing(const struct allocator *allocator, uint64_t block);

/* The span as callers see it. */
struct allocator_span span_describe(const struct span *span);

#endif
