/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "allocator/account.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static struct account *of_domain_node(const struct avl_node *node)
{
    return AVL_ENTRY(node, struct account, by_domain);
}

static bool holds_more(const struct account *a, const struct account *b)
{
    if (a->held_blocks != b->held_blocks)
        return a->held_blocks > b->held_blocks;
    return a->domain < b->domain;
}

static void link_by_held(struct accounts *accounts, struct account *account)
{
    struct avl_node *parent = NULL;
    struct avl_node *node = accounts->by_held.root;
    int side = AVL_LEFT;

    while (node) {
        parent = node;
        side = holds_more(account, AVL_ENTRY(node, struct account, by_held)) ? AVL_LEFT : AVL_RIGHT;
        node = node->child[side];
    }
    avl_link(&accounts->by_held, &account->by_held, parent, side);
}

struct account *account_find(const struct accounts *accounts, uint32_t domain)
{
    struct avl_node *node = accounts->by_domain.root;

    while (node) {
        struct account *account = of_domain_node(node);

        if (account->domain == domain)
            return account;
        node = node->child[domain < account->domain ? AVL_LEFT : AVL_RIGHT];
    }
    return NULL;
}

int account_open(struct accounts *accounts, uint32_t domain, struct account **out)
{
    struct account *account = account_find(accounts, domain);
    struct avl_node *parent = NULL;
    struct avl_node *node = accounts->by_domain.root;
    int side = AVL_LEFT;

    if (!account) {
        account = calloc(1, sizeof(*account));
        if (!account)
            return -ENOMEM;
        account->domain = domain;
        while (node) {
            parent = node;
            side = domain < of_domain_node(node)->domain ? AVL_LEFT : AVL_RIGHT;
            node = node->child[side];
        }
        avl_link(&accounts->by_domain, &account->by_domain, parent, side);
        link_by_held(accounts, account);
    }
    *out = account;
    return 0;
}

void account_close_if_unused(struct accounts *accounts, struct account *account)
{
    if (account->extents || account->quota_blocks)
        return;
    avl_remove(&accounts->by_domain, &account->by_domain);
    avl_remove(&accounts->by_held, &account->by_held);
    free(account);
}

int account_admits(const struct account *account, uint64_t more_blocks)
{
    uint64_t quota_blocks = account->quota_blocks;

    if (!quota_blocks || !more_blocks)
        return 0;
    /* The quota may have been lowered below what is charged already. */
    if (account->charged_blocks > quota_blocks ||
        more_blocks > quota_blocks - account->charged_blocks)
        return -EDQUOT;
    return 0;
}

void account_add(struct accounts *accounts, struct account *account, uint64_t held_blocks,
                 uint64_t charged_blocks, uint64_t extents)
{
    account->charged_blocks += charged_blocks;
    account->extents += extents;
    if (!held_blocks)
        return;
    avl_remove(&accounts->by_held, &account->by_held);
    account->held_blocks += held_blocks;
    link_by_held(accounts, account);
}

void accounts_deinit(struct accounts *accounts)
{
    struct avl_node *node;

    while ((node = accounts->by_domain.root)) {
        struct account *account = of_domain_node(node);

        avl_remove(&accounts->by_domain, node);
        free(account);
    }
    accounts->by_held.root = NULL;
}
