/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * allocator/allocator.h - who owns which blocks of a region's data section.
 *
 * The allocator hands out extents: contiguous runs of blocks (4 KiB each, but nothing here depends
 * on that). It is the broker's private truth. It keeps books in private memory only and never
 * touches the region, so nothing that a peer writes can mislead it.
 *
 * THEORY OF OPERATION
 *
 * The data section is at all times covered without gap or overlap by spans; a span is a live extent
 * or a free run, and two free runs never touch (release coalesces at once):
 *
 *     block 0                                                            data_blocks
 *     [ extent ][ free run ][ extent ][ extent ][ free run ][ extent ][ free run ]
 *        |  ^       |  ^       |                    one list in address order: neighbours in O(1)
 *        +--+-------+--+-------+
 *
 *   - the list links all spans, so coalescing and in-place growth look at their neighbours at once;
 *   - an AVL tree orders the extents by start: find, release, resize, allocate_at;
 *   - an AVL tree orders the free runs by (length, start): best fit is one descent, the largest run
 *     is its last.
 *
 * A span is in exactly one of the two trees, so it needs one node; all operations are O(log n) in
 * the number of spans. Why trees and not a bitmap or a buddy system: extents are of any number of
 * blocks, from one to millions, so buddies would round up, and a bitmap costs time by the block
 * where this costs by the span.
 *
 * Placement is best fit, lowest address among equals: Knuth, The Art of Computer Programming vol.
 * 1, 2.5; Wilson, Johnstone, Neely and Boles, "Dynamic storage allocation: a survey and critical
 * review", 1995, find address-ordered best fit among the policies with the least fragmentation.
 *
 * Replacing. A ring that moves holds two extents until its old one has drained. allocator_replace()
 * allocates the second in the name of the first, and while both live the domain is charged for the
 * larger of the two only: so moving (which compacts) needs no quota, growing needs the difference,
 * and a domain still cannot gather uncharged memory by shrinking rings that it does not drain.
 *
 *              allocate            replace                  release(old)
 *     nothing ---------> settled ---------> old: outgoing  ---------------> the new one is settled
 *                         |   ^             new: incoming  ---------------> the old one is settled
 *                         +---+                             release(new)
 *                    resize_in_place
 *
 * An outgoing or incoming extent is neither resized nor replaced again nor chosen by the planner;
 * it can always be released.
 *
 * Threads: none of it is thread-safe. One thread owns an allocator (the broker's event loop), or
 * one lock.
 *
 * Errors: 0 or -errno. Whatever fails has changed nothing. Nothing prints, aborts or exits.
 */
#ifndef VCHAN_ALLOCATOR_ALLOCATOR_H
#define VCHAN_ALLOCATOR_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most blocks an allocator manages: a byte position in 4 KiB blocks still fits 64 bits. */
#define ALLOCATOR_BLOCKS_MAX (UINT64_C(1) << 51)

/* No block: the "start" of something that is not there. */
#define ALLOCATOR_NOWHERE UINT64_MAX

struct allocator;

/* A run of blocks as the books have it. A free run has 0 or NOWHERE in all that follows blocks. */
struct allocator_span {
    uint64_t start_block;
    uint64_t blocks;
    uint64_t cookie;            /* the caller's, as given; a replacement inherits it */
    uint64_t charged_blocks;    /* what the domain's quota counts for it now */
    uint64_t replaces_block;    /* incoming: start of the extent it replaces, else NOWHERE */
    uint64_t replaced_by_block; /* outgoing: start of its replacement, else NOWHERE */
    uint32_t domain;
    bool free;
};

struct allocator_figures {
    uint64_t total_blocks;
    uint64_t used_blocks;
    uint64_t free_blocks;
    uint64_t outgoing_blocks; /* of used: in extents that have been replaced and not yet released */
    uint64_t used_high_water_blocks; /* most blocks in use at once, ever */
    uint64_t largest_free_blocks; /* the longest free run: the largest extent that can be had now */
    uint64_t extents;
    uint64_t free_runs;
    uint32_t fragmentation_permille; /* 1000 * (1 - largest / free), rounded up; 0: one free run */
};

struct allocator_usage {
    uint64_t held_blocks;    /* in the domain's extents */
    uint64_t charged_blocks; /* of them, what its quota counts */
    uint64_t quota_blocks;   /* 0: unlimited */
    uint64_t extents;
    uint32_t domain;
};

/* What would come of asking for a number of blocks, quotas aside. */
enum allocator_room {
    ALLOCATOR_ROOM,       /* a free run that is not barred is long enough */
    ALLOCATOR_FRAGMENTED, /* enough is free, but not so: plan moves (allocator/plan.h) */
    ALLOCATOR_FULL,       /* less than that is free */
};

/*
 * Makes an allocator of that many blocks, all free. *out is the caller's, for allocator_free().
 * -EINVAL: 0 or more than ALLOCATOR_BLOCKS_MAX blocks. -ENOMEM. O(1).
 */
int allocator_new(uint64_t data_blocks, struct allocator **out);

/* Frees the books with all extents in them. NULL is ignored. O(n). */
void allocator_free(struct allocator *allocator);

/*
 * Allocates an extent for a domain: the shortest free run that holds it, the lowest of equals; it
 * takes the run's low end. *start_block names the extent from then on.
 * -EINVAL: 0 blocks. -EDQUOT: over the domain's quota. -ENOSPC: no free run is long enough;
 * allocator_room() tells whether for fragmentation. -ENOMEM. O(log n).
 */
int allocator_allocate(struct allocator *allocator, uint32_t domain, uint64_t blocks,
                       uint64_t cookie, uint64_t *start_block);

/*
 * Allocates these very blocks: to restore a ledger, or to keep others out of a place. To restore
 * more than a quota allows, restore first and set the quotas after.
 * -EINVAL: 0 blocks, or beyond the end. -EBUSY: some of them are taken. -EDQUOT: over the domain's
 * quota. -ENOMEM. O(log n).
 */
int allocator_allocate_at(struct allocator *allocator, uint32_t domain, uint64_t start_block,
                          uint64_t blocks, uint64_t cookie);

/*
 * Allocates the next extent of what lives in the one at old_block, with its domain and its cookie;
 * the old one becomes outgoing and stays until released. The quota is asked only for blocks beyond
 * the old extent's.
 * -ENOENT: no extent starts at old_block. -EBUSY: that one is outgoing or incoming already. Else as
 * allocator_allocate(). O(log n).
 */
int allocator_replace(struct allocator *allocator, uint64_t old_block, uint64_t blocks,
                      uint64_t *start_block);

/*
 * The same at a given place: how a planned move is carried out. -ENOENT: no extent starts at
 * old_block. -EBUSY: that one is outgoing or incoming already, or some of the blocks are taken.
 * Else as allocator_allocate_at(). O(log n).
 */
int allocator_replace_at(struct allocator *allocator, uint64_t old_block, uint64_t start_block,
                         uint64_t blocks);

/*
 * Gives an extent back; it coalesces with the free runs beside it. Needs no memory, so it cannot
 * fail for lack of it.
 * -ENOENT: no extent starts there (also when the block lies inside one). O(log n).
 */
int allocator_release(struct allocator *allocator, uint64_t start_block);

/*
 * Grows an extent into the free run behind it, or gives its tail back. The start stays.
 * -ENOENT: no extent starts there. -EINVAL: 0 blocks. -EBUSY: it is outgoing or incoming. -EDQUOT.
 * -ENOSPC: what is behind it is taken, or too short. -ENOMEM (only when it shrinks). O(log n).
 */
int allocator_resize_in_place(struct allocator *allocator, uint64_t start_block, uint64_t blocks);

/*
 * Bars a range of blocks, and lifts the bar that was there; 0 blocks: only that. Where a free run
 * reaches into the range, allocator_allocate(), allocator_replace() and allocator_resize_in_place()
 * find nothing, and allocator_room() sees no room: so what moves make free there stays for whom
 * they are made (allocator/plan.h). The _at() calls take no notice. O(1); each run in the range
 * then costs an allocation a step.
 */
void allocator_bar(struct allocator *allocator, uint64_t start_block, uint64_t blocks);

/*
 * Sets what a domain may hold, 0 for no limit. A quota below what is charged already takes nothing
 * away; the domain gets nothing more until it is below. -ENOMEM. O(log domains).
 */
int allocator_quota_set(struct allocator *allocator, uint32_t domain, uint64_t quota_blocks);

/* What a domain holds: one never heard of holds nothing and has no limit. O(log domains). */
void allocator_domain_usage(const struct allocator *allocator, uint32_t domain,
                            struct allocator_usage *usage);

/*
 * The domains that hold most, most first, the lower number first among equals; domains that hold
 * nothing are left out. Returns how many it wrote, at most max. O(max + log domains).
 */
size_t allocator_top_domains(const struct allocator *allocator, struct allocator_usage *usages,
                             size_t max);

/* O(log n), for the largest free run; the rest is counted as it changes. */
void allocator_figures(const struct allocator *allocator, struct allocator_figures *figures);

/* Would that many blocks be had in one run? O(log n). */
enum allocator_room allocator_room(const struct allocator *allocator, uint64_t blocks);

/* The extent that starts at that block. -ENOENT: none does. O(log n). */
int allocator_find(const struct allocator *allocator, uint64_t start_block,
                   struct allocator_span *span);

/*
 * The extent or free run that contains a block. -ENOENT: beyond the end. O(log n). In address
 * order, robust against changes between the steps:
 *
 *     for (block = 0; !allocator_span_at(a, block, &span); block = span.start_block + span.blocks)
 */
int allocator_span_at(const struct allocator *allocator, uint64_t block,
                      struct allocator_span *span);

/*
 * Checks every invariant of the books, for tests: 0, or -EUCLEAN with *why set to a constant text.
 * O(n * domains).
 */
int allocator_check(const struct allocator *allocator, const char **why);

#endif
