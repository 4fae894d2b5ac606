/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "allocator/avl.h"

static int32_t height_of(const struct avl_node *node)
{
    return node ? node->height : 0;
}

static void update_height(struct avl_node *node)
{
    int32_t left = height_of(node->child[AVL_LEFT]);
    int32_t right = height_of(node->child[AVL_RIGHT]);

    node->height = 1 + (left > right ? left : right);
}

/* Puts node (may be NULL) where old hangs. */
static void take_place(struct avl_tree *tree, struct avl_node *old, struct avl_node *node)
{
    struct avl_node *parent = old->parent;

    if (!parent)
        tree->root = node;
    else
        parent->child[parent->child[AVL_RIGHT] == old] = node;
    if (node)
        node->parent = parent;
}

/* The child of node on that side rises above it. Returns the child. */
static struct avl_node *rotate(struct avl_tree *tree, struct avl_node *node, int side)
{
    struct avl_node *child = node->child[side];
    struct avl_node *inner = child->child[!side];

    take_place(tree, node, child);
    child->child[!side] = node;
    node->parent = child;
    node->child[side] = inner;
    if (inner)
        inner->parent = node;
    update_height(node);
    update_height(child);
    return child;
}

/* From node upwards; stops at the first subtree whose height is what it was. */
static void rebalance(struct avl_tree *tree, struct avl_node *node)
{
    while (node) {
        int32_t before = node->height;
        int32_t lean = height_of(node->child[AVL_RIGHT]) - height_of(node->child[AVL_LEFT]);

        if (lean > 1 || lean < -1) {
            int side = lean > 1 ? AVL_RIGHT : AVL_LEFT;
            struct avl_node *child = node->child[side];

            if (height_of(child->child[side]) < height_of(child->child[!side]))
                rotate(tree, child, !side);
            node = rotate(tree, node, side);
        } else {
            update_height(node);
        }
        if (node->height == before)
            return;
        node = node->parent;
    }
}

void avl_link(struct avl_tree *tree, struct avl_node *node, struct avl_node *parent, int side)
{
    *node = (struct avl_node){.parent = parent, .height = 1};
    if (!parent)
        tree->root = node;
    else
        parent->child[side] = node;
    rebalance(tree, parent);
}

void avl_insert_after(struct avl_tree *tree, struct avl_node *node, struct avl_node *after)
{
    struct avl_node *place;

    if (after && !after->child[AVL_RIGHT]) {
        avl_link(tree, node, after, AVL_RIGHT);
        return;
    }
    place = after ? avl_step(after, AVL_RIGHT) : avl_end(tree, AVL_LEFT);
    avl_link(tree, node, place, AVL_LEFT);
}

void avl_remove(struct avl_tree *tree, struct avl_node *node)
{
    struct avl_node *left = node->child[AVL_LEFT];
    struct avl_node *right = node->child[AVL_RIGHT];
    struct avl_node *heir;
    struct avl_node *lowest_changed;

    if (!left || !right) {
        take_place(tree, node, left ? left : right);
        rebalance(tree, node->parent);
        return;
    }
    /* The successor has no left child; it leaves its place and takes the node's. */
    heir = avl_step(node, AVL_RIGHT);
    lowest_changed = heir;
    if (heir != right) {
        lowest_changed = heir->parent;
        take_place(tree, heir, heir->child[AVL_RIGHT]);
        heir->child[AVL_RIGHT] = right;
        right->parent = heir;
    }
    heir->child[AVL_LEFT] = left;
    left->parent = heir;
    heir->height = node->height;
    take_place(tree, node, heir);
    rebalance(tree, lowest_changed);
}

struct avl_node *avl_end(const struct avl_tree *tree, int side)
{
    struct avl_node *node = tree->root;

    while (node && node->child[side])
        node = node->child[side];
    return node;
}

struct avl_node *avl_step(const struct avl_node *node, int side)
{
    struct avl_node *next = node->child[side];

    if (next) {
        while (next->child[!side])
            next = next->child[!side];
        return next;
    }
    for (next = node->parent; next && next->child[side] == node; next = next->parent)
        node = next;
    return next;
}
