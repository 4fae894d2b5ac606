/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "allocator/allocator.h"

#include "allocator/account.h"
#include "allocator/span.h"

#include <errno.h>
#include <stdlib.h>

/* What an extent is to be, before it has a place. */
struct claim {
    struct account *account;
    struct span *replaces; /* or NULL */
    uint64_t blocks;
    uint64_t charged_blocks;
    uint64_t cookie;
};

int allocator_new(uint64_t data_blocks, struct allocator **out)
{
    struct allocator *allocator;
    struct span *run;

    if (!data_blocks || data_blocks > ALLOCATOR_BLOCKS_MAX)
        return -EINVAL;
    allocator = calloc(1, sizeof(*allocator));
    run = span_new(SPAN_FREE, 0, data_blocks);
    if (!allocator || !run) {
        free(allocator);
        span_free(run);
        return -ENOMEM;
    }
    allocator->edge.kind = SPAN_EDGE;
    allocator->edge.prev = allocator->edge.next = &allocator->edge;
    allocator->total_blocks = data_blocks;
    span_list_after(run, &allocator->edge);
    span_run_insert(allocator, run);
    *out = allocator;
    return 0;
}

void allocator_free(struct allocator *allocator)
{
    struct span *span;

    if (!allocator)
        return;
    while ((span = allocator->edge.next) != &allocator->edge) {
        span_list_remove(span);
        span_free(span);
    }
    accounts_deinit(&allocator->accounts);
    free(allocator);
}

static void count_used(struct allocator *allocator, uint64_t more_blocks)
{
    allocator->used_blocks += more_blocks;
    if (allocator->used_blocks > allocator->used_high_water_blocks)
        allocator->used_high_water_blocks = allocator->used_blocks;
}

/* Takes the extent's blocks out of the free run that contains them and links it in their place. */
static int carve(struct allocator *allocator, struct span *run, struct span *extent)
{
    uint64_t end_block = span_end_block(extent);
    uint64_t before_blocks = extent->start_block - run->start_block;
    uint64_t after_blocks = span_end_block(run) - end_block;
    struct span *after = NULL;

    if (before_blocks && after_blocks) {
        after = span_new(SPAN_FREE, end_block, after_blocks);
        if (!after)
            return -ENOMEM;
    }
    span_run_remove(allocator, run);
    if (before_blocks) {
        run->blocks = before_blocks;
        span_run_insert(allocator, run);
        span_list_after(extent, run);
        if (after) {
            span_list_after(after, extent);
            span_run_insert(allocator, after);
        }
        return 0;
    }
    span_list_after(extent, run->prev);
    if (after_blocks) {
        run->start_block = end_block;
        run->blocks = after_blocks;
        span_run_insert(allocator, run);
    } else {
        span_list_remove(run);
        span_free(run);
    }
    return 0;
}

/* Turns a claim that the quota admits into an extent at that place of a free run. 0 or -ENOMEM. */
static int claim_take(struct allocator *allocator, const struct claim *claim, struct span *run,
                      uint64_t start_block)
{
    struct span *extent = span_new(SPAN_EXTENT, start_block, claim->blocks);
    int r;

    if (!extent)
        return -ENOMEM;
    r = carve(allocator, run, extent);
    if (r) {
        span_free(extent);
        return r;
    }
    extent->account = claim->account;
    extent->cookie = claim->cookie;
    extent->charged_blocks = claim->charged_blocks;
    extent->replaces = claim->replaces;
    if (claim->replaces) {
        claim->replaces->replaced_by = extent;
        allocator->outgoing_blocks += claim->replaces->blocks;
    }
    /* Before an extent in the list there is another one, or one free run and then another one. */
    struct span *before = extent->prev->kind == SPAN_FREE ? extent->prev->prev : extent->prev;

    avl_insert_after(&allocator->extents, &extent->node,
                     before->kind == SPAN_EDGE ? NULL : &before->node);
    allocator->extent_count++;
    count_used(allocator, extent->blocks);
    account_add(&allocator->accounts, extent->account, extent->blocks, extent->charged_blocks, 1);
    return 0;
}

/* Best fit; *start_block is set on success only. */
static int claim_place(struct allocator *allocator, const struct claim *claim,
                       uint64_t *start_block)
{
    struct span *run;
    uint64_t start;
    int r = account_admits(claim->account, claim->charged_blocks);

    if (r)
        return r;
    run = span_run_best_fit_open(allocator, claim->blocks);
    if (!run)
        return -ENOSPC;
    start = run->start_block;
    r = claim_take(allocator, claim, run, start);
    if (!r)
        *start_block = start;
    return r;
}

static int claim_place_at(struct allocator *allocator, const struct claim *claim,
                          uint64_t start_block)
{
    struct span *run;
    int r;

    if (start_block >= allocator->total_blocks ||
        claim->blocks > allocator->total_blocks - start_block)
        return -EINVAL;
    r = account_admits(claim->account, claim->charged_blocks);
    if (r)
        return r;
    run = span_containing(allocator, start_block);
    if (run->kind != SPAN_FREE || span_end_block(run) < start_block + claim->blocks)
        return -EBUSY;
    return claim_take(allocator, claim, run, start_block);
}

/* A claim of a domain's own. Opens its account; claim_close() closes it if nothing came of it. */
static int claim_open(struct allocator *allocator, uint32_t domain, uint64_t blocks,
                      uint64_t cookie, struct claim *claim)
{
    if (!blocks)
        return -EINVAL;
    *claim = (struct claim){.blocks = blocks, .charged_blocks = blocks, .cookie = cookie};
    return account_open(&allocator->accounts, domain, &claim->account);
}

static int claim_close(struct allocator *allocator, const struct claim *claim, int r)
{
    if (r)
        account_close_if_unused(&allocator->accounts, claim->account);
    return r;
}

/* A claim in the name of an extent: charged only for what goes beyond it. */
static int claim_open_replacement(struct allocator *allocator, uint64_t old_block, uint64_t blocks,
                                  struct claim *claim)
{
    struct span *old = span_find_extent(allocator, old_block);

    if (!old)
        return -ENOENT;
    if (!blocks)
        return -EINVAL;
    if (old->replaces || old->replaced_by)
        return -EBUSY;
    *claim = (struct claim){
        .account = old->account,
        .replaces = old,
        .blocks = blocks,
        .charged_blocks = blocks > old->blocks ? blocks - old->blocks : 0,
        .cookie = old->cookie,
    };
    return 0;
}

int allocator_allocate(struct allocator *allocator, uint32_t domain, uint64_t blocks,
                       uint64_t cookie, uint64_t *start_block)
{
    struct claim claim;
    int r = claim_open(allocator, domain, blocks, cookie, &claim);

    return r ? r : claim_close(allocator, &claim, claim_place(allocator, &claim, start_block));
}

int allocator_allocate_at(struct allocator *allocator, uint32_t domain, uint64_t start_block,
                          uint64_t blocks, uint64_t cookie)
{
    struct claim claim;
    int r = claim_open(allocator, domain, blocks, cookie, &claim);

    return r ? r : claim_close(allocator, &claim, claim_place_at(allocator, &claim, start_block));
}

int allocator_replace(struct allocator *allocator, uint64_t old_block, uint64_t blocks,
                      uint64_t *start_block)
{
    struct claim claim;
    int r = claim_open_replacement(allocator, old_block, blocks, &claim);

    return r ? r : claim_place(allocator, &claim, start_block);
}

int allocator_replace_at(struct allocator *allocator, uint64_t old_block, uint64_t start_block,
                         uint64_t blocks)
{
    struct claim claim;
    int r = claim_open_replacement(allocator, old_block, blocks, &claim);

    return r ? r : claim_place_at(allocator, &claim, start_block);
}

/* Undoes the tie between an extent that goes and its replacement or what it replaces. */
static void untie(struct allocator *allocator, struct span *extent)
{
    struct span *incoming = extent->replaced_by;
    struct span *outgoing = extent->replaces;

    if (incoming) {
        /* It was charged only for what goes beyond the one that leaves; now it stands alone. */
        uint64_t more_blocks = incoming->blocks - incoming->charged_blocks;

        incoming->replaces = NULL;
        incoming->charged_blocks = incoming->blocks;
        account_add(&allocator->accounts, incoming->account, 0, more_blocks, 0);
        allocator->outgoing_blocks -= extent->blocks;
    }
    if (outgoing) {
        outgoing->replaced_by = NULL;
        allocator->outgoing_blocks -= outgoing->blocks;
    }
}

/* Makes an extent's span a free run, one with the free runs beside it. */
static void coalesce(struct allocator *allocator, struct span *span)
{
    struct span *prev = span->prev;
    struct span *next = span->next;

    span->kind = SPAN_FREE;
    span->plan_number = 0;
    if (prev->kind == SPAN_FREE) {
        span_run_remove(allocator, prev);
        span_list_remove(prev);
        span->start_block = prev->start_block;
        span->blocks += prev->blocks;
        span_free(prev);
    }
    if (next->kind == SPAN_FREE) {
        span_run_remove(allocator, next);
        span_list_remove(next);
        span->blocks += next->blocks;
        span_free(next);
    }
    span_run_insert(allocator, span);
}

int allocator_release(struct allocator *allocator, uint64_t start_block)
{
    struct span *extent = span_find_extent(allocator, start_block);
    struct account *account;

    if (!extent)
        return -ENOENT;
    account = extent->account;
    untie(allocator, extent);
    avl_remove(&allocator->extents, &extent->node);
    allocator->extent_count--;
    allocator->used_blocks -= extent->blocks;
    account_add(&allocator->accounts, account, -extent->blocks, -extent->charged_blocks,
                (uint64_t)-1);
    account_close_if_unused(&allocator->accounts, account);
    coalesce(allocator, extent);
    return 0;
}

/* Takes blocks from the low end of the run behind the extent. */
static int grow(struct allocator *allocator, struct span *extent, uint64_t more_blocks)
{
    struct span *run = extent->next;
    int r = account_admits(extent->account, more_blocks);

    if (r)
        return r;
    if (run->kind != SPAN_FREE || run->blocks < more_blocks || span_run_is_barred(allocator, run))
        return -ENOSPC;
    span_run_remove(allocator, run);
    run->start_block += more_blocks;
    run->blocks -= more_blocks;
    if (run->blocks) {
        span_run_insert(allocator, run);
    } else {
        span_list_remove(run);
        span_free(run);
    }
    return 0;
}

/* Gives the extent's last blocks to the run behind it, or makes them one. */
static int shrink(struct allocator *allocator, struct span *extent, uint64_t fewer_blocks)
{
    uint64_t start_block = span_end_block(extent) - fewer_blocks;
    struct span *run = extent->next;

    if (run->kind == SPAN_FREE) {
        span_run_remove(allocator, run);
        run->start_block = start_block;
        run->blocks += fewer_blocks;
    } else {
        run = span_new(SPAN_FREE, start_block, fewer_blocks);
        if (!run)
            return -ENOMEM;
        span_list_after(run, extent);
    }
    span_run_insert(allocator, run);
    return 0;
}

int allocator_resize_in_place(struct allocator *allocator, uint64_t start_block, uint64_t blocks)
{
    struct span *extent = span_find_extent(allocator, start_block);
    uint64_t difference;
    int r = 0;

    if (!extent)
        return -ENOENT;
    if (!blocks)
        return -EINVAL;
    if (extent->replaces || extent->replaced_by)
        return -EBUSY;
    if (blocks > extent->blocks)
        r = grow(allocator, extent, blocks - extent->blocks);
    else if (blocks < extent->blocks)
        r = shrink(allocator, extent, extent->blocks - blocks);
    if (r)
        return r;
    /* Modulo 2^64 when it shrank, as account_add() takes it. */
    difference = blocks - extent->blocks;
    extent->blocks = blocks;
    extent->charged_blocks = blocks;
    count_used(allocator, difference);
    account_add(&allocator->accounts, extent->account, difference, difference, 0);
    return 0;
}

void allocator_bar(struct allocator *allocator, uint64_t start_block, uint64_t blocks)
{
    allocator->bar_start_block = start_block;
    allocator->bar_end_block = start_block + blocks;
}

int allocator_quota_set(struct allocator *allocator, uint32_t domain, uint64_t quota_blocks)
{
    struct account *account;
    int r = account_open(&allocator->accounts, domain, &account);

    if (r)
        return r;
    account->quota_blocks = quota_blocks;
    account_close_if_unused(&allocator->accounts, account);
    return 0;
}

static struct allocator_usage usage_of(const struct account *account)
{
    return (struct allocator_usage){
        .held_blocks = account->held_blocks,
        .charged_blocks = account->charged_blocks,
        .quota_blocks = account->quota_blocks,
        .extents = account->extents,
        .domain = account->domain,
    };
}

void allocator_domain_usage(const struct allocator *allocator, uint32_t domain,
                            struct allocator_usage *usage)
{
    const struct account *account = account_find(&allocator->accounts, domain);

    *usage = account ? usage_of(account) : (struct allocator_usage){.domain = domain};
}

size_t allocator_top_domains(const struct allocator *allocator, struct allocator_usage *usages,
                             size_t max)
{
    struct avl_node *node = avl_end(&allocator->accounts.by_held, AVL_LEFT);
    size_t count = 0;

    for (; node && count < max; node = avl_step(node, AVL_RIGHT)) {
        const struct account *account = AVL_ENTRY(node, struct account, by_held);

        if (!account->held_blocks)
            break;
        usages[count++] = usage_of(account);
    }
    return count;
}

void allocator_figures(const struct allocator *allocator, struct allocator_figures *figures)
{
    const struct span *longest = span_run_longest(allocator);
    uint64_t free_blocks = allocator->total_blocks - allocator->used_blocks;
    uint64_t largest_blocks = longest ? longest->blocks : 0;

    *figures = (struct allocator_figures){
        .total_blocks = allocator->total_blocks,
        .used_blocks = allocator->used_blocks,
        .free_blocks = free_blocks,
        .outgoing_blocks = allocator->outgoing_blocks,
        .used_high_water_blocks = allocator->used_high_water_blocks,
        .largest_free_blocks = largest_blocks,
        .extents = allocator->extent_count,
        .free_runs = allocator->run_count,
    };
    /* 1000 * ALLOCATOR_BLOCKS_MAX fits 64 bits. */
    if (free_blocks)
        figures->fragmentation_permille = (uint32_t)(1000 - 1000 * largest_blocks / free_blocks);
}

enum allocator_room allocator_room(const struct allocator *allocator, uint64_t blocks)
{
    if (span_run_best_fit_open(allocator, blocks))
        return ALLOCATOR_ROOM;
    if (allocator->total_blocks - allocator->used_blocks >= blocks)
        return ALLOCATOR_FRAGMENTED;
    return ALLOCATOR_FULL;
}

int allocator_find(const struct allocator *allocator, uint64_t start_block,
                   struct allocator_span *span)
{
    const struct span *extent = span_find_extent(allocator, start_block);

    if (!extent)
        return -ENOENT;
    *span = span_describe(extent);
    return 0;
}

int allocator_span_at(const struct allocator *allocator, uint64_t block,
                      struct allocator_span *span)
{
    if (block >= allocator->total_blocks)
        return -ENOENT;
    *span = span_describe(span_containing(allocator, block));
    return 0;
}
