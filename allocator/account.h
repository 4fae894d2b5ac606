/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * allocator/account.h - what each domain holds and may hold. Internal to allocator/.
 *
 * An account exists while its domain holds an extent or has a quota, so that domains which come and
 * go leave nothing behind. Two trees: by domain for look-ups, by what is held (most first) for the
 * message that says who holds the memory.
 */
#ifndef VCHAN_ALLOCATOR_ACCOUNT_H
#define VCHAN_ALLOCATOR_ACCOUNT_H

#include "allocator/avl.h"

#include <stdint.h>

struct account {
    struct avl_node by_domain; /* owner: accounts.by_domain */
    struct avl_node by_held;   /* owner: accounts.by_held */
    uint64_t held_blocks;      /* in its extents */
    uint64_t charged_blocks;   /* what the quota counts: a replacement shares its old extent's */
    uint64_t quota_blocks;     /* 0: unlimited */
    uint64_t extents;
    uint32_t domain;
};

struct accounts {
    struct avl_tree by_domain; /* domain ascending */
    struct avl_tree by_held;   /* held_blocks descending, then domain ascending */
};

/* The domain's account or NULL. O(log domains). */
struct account *account_find(const struct accounts *accounts, uint32_t domain);

/* The domain's account, opened where there is none. Owned by accounts. 0 or -ENOMEM. */
int account_open(struct accounts *accounts, uint32_t domain, struct account **out);

/* Closes the account if its domain holds nothing and has no quota; otherwise does nothing. */
void account_close_if_unused(struct accounts *accounts, struct account *account);

/* 0 if that many more blocks may be charged, -EDQUOT if not. */
int account_admits(const struct account *account, uint64_t more_blocks);

/* Adds to what the account holds, modulo 2^64: what is given back is added as a negative. */
void account_add(struct accounts *accounts, struct account *account, uint64_t held_blocks,
                 uint64_t charged_blocks, uint64_t extents);

/* Closes all of them. */
void accounts_deinit(struct accounts *accounts);

#endif
