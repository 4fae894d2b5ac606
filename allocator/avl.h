/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * allocator/avl.h - an intrusive balanced binary tree that knows nothing of its keys.
 *
 * The node is embedded in what it orders. The caller descends with its own comparison (which the
 * compiler then inlines) and hands over the place it arrived at; the tree links, unlinks and
 * balances. The nodes never move in memory and the tree allocates none, so an insertion cannot
 * fail.
 *
 * Source: G. Adelson-Velsky and E. Landis, "An algorithm for the organization of information",
 * 1962; Knuth, The Art of Computer Programming vol. 3, 6.2.3. The height of n nodes is below 1.45
 * log2(n + 2).
 *
 * Not thread-safe. Nothing here returns an error.
 */
#ifndef VCHAN_ALLOCATOR_AVL_H
#define VCHAN_ALLOCATOR_AVL_H

#include <stddef.h>
#include <stdint.h>

/* Index in avl_node.child. */
#define AVL_LEFT 0
#define AVL_RIGHT 1

struct avl_node {
    struct avl_node *parent;
    struct avl_node *child[2];
    int32_t height; /* of the subtree: 1 for a leaf */
};

struct avl_tree {
    struct avl_node *root; /* NULL: empty; all zero is a valid empty tree */
};

/* The structure that embeds the node as this member. */
#define AVL_ENTRY(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* Links node as the child of parent on a free side; parent NULL: as the first node. O(log n). */
void avl_link(struct avl_tree *tree, struct avl_node *node, struct avl_node *parent, int side);

/* Links node directly behind another one in the order; after NULL: before all others. O(log n). */
void avl_insert_after(struct avl_tree *tree, struct avl_node *node, struct avl_node *after);

/* Unlinks node, which is in the tree. Its memory stays the caller's. O(log n). */
void avl_remove(struct avl_tree *tree, struct avl_node *node);

/* The outermost node on a side, NULL when the tree is empty. O(log n). */
struct avl_node *avl_end(const struct avl_tree *tree, int side);

/* The neighbour of node in the order, NULL at the end. O(log n); a whole walk is O(n). */
struct avl_node *avl_step(const struct avl_node *node, int side);

#endif
