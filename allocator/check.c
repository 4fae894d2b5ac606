/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* allocator_check(): the invariants of the books, recomputed from the address list alone. */
#include "allocator/allocator.h"
#include "allocator/span.h"

#include <errno.h>

/* Returns from the function, with the broken invariant's name, unless it holds. */
#define HOLDS(condition, text)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return (text);                                                                         \
    } while (0)

struct totals {
    uint64_t used_blocks;
    uint64_t outgoing_blocks;
    uint64_t extents;
    uint64_t runs;
};

static const char *check_tree_node(const struct avl_node *node)
{
    int32_t height[2] = {0, 0};

    for (int side = AVL_LEFT; side <= AVL_RIGHT; side++) {
        const struct avl_node *child = node->child[side];

        HOLDS(!child || child->parent == node, "a tree node's parent is not its parent");
        height[side] = child ? child->height : 0;
    }
    HOLDS(height[0] - height[1] <= 1 && height[1] - height[0] <= 1, "a tree is out of balance");
    HOLDS(node->height == 1 + (height[0] > height[1] ? height[0] : height[1]),
          "a tree height is wrong");
    return NULL;
}

static const char *check_extent(const struct span *span)
{
    const struct span *old = span->replaces;
    uint64_t charged_blocks = span->blocks;

    HOLDS(!old || old->kind == SPAN_EXTENT, "an extent replaces what is none");
    HOLDS(!old || old->replaced_by == span, "a replacement is not tied both ways");
    HOLDS(!old || old->account == span->account, "a replacement has another domain");
    HOLDS(!span->replaced_by || span->replaced_by->replaces == span,
          "an outgoing extent is not tied both ways");
    HOLDS(!old || !span->replaced_by, "an extent is incoming and outgoing");
    if (old)
        charged_blocks = span->blocks > old->blocks ? span->blocks - old->blocks : 0;
    HOLDS(span->charged_blocks == charged_blocks, "an extent's charge is wrong");
    return NULL;
}

static const char *check_list(const struct allocator *allocator, struct totals *totals)
{
    const struct span *edge = &allocator->edge;
    uint64_t block = 0;
    const char *why;

    for (const struct span *span = edge->next; span != edge; span = span->next) {
        HOLDS(span->next->prev == span, "the address list is not tied both ways");
        HOLDS(span->start_block == block, "spans leave a gap or overlap");
        HOLDS(span->blocks, "a span is empty");
        block = span_end_block(span);
        if (span->kind == SPAN_FREE) {
            HOLDS(span->prev->kind != SPAN_FREE, "two free runs touch");
            totals->runs++;
            continue;
        }
        HOLDS(span->kind == SPAN_EXTENT, "a span is of no kind");
        why = check_extent(span);
        if (why)
            return why;
        totals->extents++;
        totals->used_blocks += span->blocks;
        totals->outgoing_blocks += span->replaced_by ? span->blocks : 0;
    }
    HOLDS(block == allocator->total_blocks, "the spans do not cover the section");
    return NULL;
}

static const char *check_span_tree(const struct avl_tree *tree, enum span_kind kind, uint64_t count)
{
    const struct span *last = NULL;

    for (struct avl_node *node = avl_end(tree, AVL_LEFT); node; node = avl_step(node, AVL_RIGHT)) {
        const struct span *span = span_of(node);
        const char *why = check_tree_node(node);

        if (why)
            return why;
        HOLDS(span->kind == kind, "a tree holds a span of another kind");
        if (last && (kind == SPAN_EXTENT || last->blocks == span->blocks))
            HOLDS(last->start_block < span->start_block, "spans are out of address order");
        else if (last)
            HOLDS(last->blocks < span->blocks, "free runs are out of order");
        last = span;
        HOLDS(count--, "a tree holds too many spans");
    }
    HOLDS(!count, "a tree lacks spans");
    return NULL;
}

static const char *check_account(const struct allocator *allocator, const struct account *account)
{
    uint64_t held_blocks = 0;
    uint64_t charged_blocks = 0;
    uint64_t extents = 0;

    for (const struct span *span = allocator->edge.next; span != &allocator->edge;
         span = span->next) {
        if (span->kind != SPAN_EXTENT || span->account != account)
            continue;
        held_blocks += span->blocks;
        charged_blocks += span->charged_blocks;
        extents++;
    }
    HOLDS(account->held_blocks == held_blocks, "what a domain holds is wrong");
    HOLDS(account->charged_blocks == charged_blocks, "what a domain is charged is wrong");
    HOLDS(account->extents == extents, "a domain's extents are miscounted");
    HOLDS(extents || account->quota_blocks, "an account is of no use");
    HOLDS(account_find(&allocator->accounts, account->domain) == account,
          "an account is not found");
    return NULL;
}

static const char *check_accounts(const struct allocator *allocator, uint64_t used_blocks)
{
    const struct avl_tree *by_held = &allocator->accounts.by_held;
    const struct account *last = NULL;

    for (struct avl_node *node = avl_end(by_held, AVL_LEFT); node;
         node = avl_step(node, AVL_RIGHT)) {
        const struct account *account = AVL_ENTRY(node, struct account, by_held);
        const char *why = check_tree_node(node);

        if (!why)
            why = check_tree_node(&account->by_domain);
        if (!why)
            why = check_account(allocator, account);
        if (why)
            return why;
        HOLDS(!last || last->held_blocks >= account->held_blocks, "domains are out of order");
        last = account;
        used_blocks -= account->held_blocks;
    }
    HOLDS(!used_blocks, "blocks are held by no account");
    return NULL;
}

static const char *check_all(const struct allocator *allocator)
{
    struct totals totals = {0};
    const char *why = check_list(allocator, &totals);

    if (why)
        return why;
    HOLDS(totals.used_blocks == allocator->used_blocks, "used blocks are miscounted");
    HOLDS(totals.outgoing_blocks == allocator->outgoing_blocks, "outgoing blocks are miscounted");
    HOLDS(totals.extents == allocator->extent_count, "extents are miscounted");
    HOLDS(totals.runs == allocator->run_count, "free runs are miscounted");
    HOLDS(allocator->used_high_water_blocks >= allocator->used_blocks,
          "the high water is below the use");
    why = check_span_tree(&allocator->extents, SPAN_EXTENT, totals.extents);
    if (!why)
        why = check_span_tree(&allocator->runs, SPAN_FREE, totals.runs);
    return why ? why : check_accounts(allocator, totals.used_blocks);
}

int allocator_check(const struct allocator *allocator, const char **why)
{
    *why = check_all(allocator);
    return *why ? -EUCLEAN : 0;
}
