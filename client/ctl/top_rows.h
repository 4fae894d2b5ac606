/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/top_rows.h - rings with their rates, in the order in which top shows them. Pure
 * functions, linear but for the sorting.
 */
#ifndef VCHAN_CLIENT_CTL_TOP_ROWS_H
#define VCHAN_CLIENT_CTL_TOP_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"

enum top_key { TOP_TRAFFIC, TOP_STALLS, TOP_SIZE, TOP_HELD, TOP_KEYS };

/* "traffic", "stalls", "size", "held". */
const char *top_key_text(enum top_key key);
/* -EINVAL: it is none of these. */
int top_key_parse(const char *text, enum top_key *key);

/* A ring, and per second since the last sample of it; known: there was one. */
struct top_row {
    const struct proto_ring_info *ring;
    bool known;
    uint64_t bytes_per_second; /* sent */
    uint64_t operations_per_second;
    double stalls_per_second;
    unsigned stall_permille; /* of the time, its sender lacked space */
};

/*
 * Fills rows[count], one for each ring. before: the last sample; both sorted by channel and ring,
 * without repetitions. A counter that went back is a rate of 0.
 */
void top_rows_fill(struct top_row *rows, const struct proto_ring_info *rings, size_t count,
                   const struct proto_ring_info *before, size_t before_count, uint64_t elapsed_ns);

/*
 * Which rows to show, most first (reverse: least first): those of a domain that sends or receives
 * in them, PROTO_ANY for all. picked has room for count. Returns how many.
 */
size_t top_rows_pick(const struct top_row *rows, size_t count, uint32_t domain, enum top_key key,
                     bool reverse, const struct top_row **picked);

struct top_sums {
    uint64_t bytes_per_second;
    uint64_t operations_per_second;
    double stalls_per_second;
    size_t stalled; /* rings that lack space now */
    size_t moving;
    uint64_t largest_bytes; /* size of the largest ring */
};

struct top_sums top_rows_sum(const struct top_row *rows, size_t count);

#endif
