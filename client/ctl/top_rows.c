/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/top_rows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const key_texts[TOP_KEYS] = {
    [TOP_TRAFFIC] = "traffic",
    [TOP_STALLS] = "stalls",
    [TOP_SIZE] = "size",
    [TOP_HELD] = "held",
};

const char *top_key_text(enum top_key key)
{
    return key_texts[key];
}

int top_key_parse(const char *text, enum top_key *key)
{
    for (int i = 0; i < TOP_KEYS; i++)
        if (strcmp(key_texts[i], text) == 0) {
            *key = (enum top_key)i;
            return 0;
        }
    return -EINVAL;
}

static double per_second(uint64_t now, uint64_t before, uint64_t elapsed_ns)
{
    return now > before ? (double)(now - before) * 1e9 / (double)elapsed_ns : 0.0;
}

/* A stall is counted when it ends: one that lasted from sample to sample is seen by the flag. */
static unsigned stall_permille(const struct proto_ring_info *ring,
                               const struct proto_ring_info *before, uint64_t elapsed_ns)
{
    const uint64_t stalled_ns =
        ring->stall_ns > before->stall_ns ? ring->stall_ns - before->stall_ns : 0;

    if (stalled_ns >= elapsed_ns || (stalled_ns == 0 && (ring->flags & PROTO_RING_STALLED) &&
                                     (before->flags & PROTO_RING_STALLED)))
        return 1000;
    return (unsigned)((double)stalled_ns * 1000.0 / (double)elapsed_ns);
}

static bool same_ring(const struct proto_ring_info *a, const struct proto_ring_info *b)
{
    return a->channel == b->channel && a->ring == b->ring && a->incarnation == b->incarnation;
}

static bool comes_before(const struct proto_ring_info *a, const struct proto_ring_info *b)
{
    return a->channel != b->channel ? a->channel < b->channel : a->ring < b->ring;
}

void top_rows_fill(struct top_row *rows, const struct proto_ring_info *rings, size_t count,
                   const struct proto_ring_info *before, size_t before_count, uint64_t elapsed_ns)
{
    size_t b = 0;

    for (size_t i = 0; i < count; i++) {
        const struct proto_ring_info *ring = &rings[i];
        rows[i] = (struct top_row){.ring = ring};
        while (b < before_count && comes_before(&before[b], ring))
            b++;
        if (b == before_count || !same_ring(ring, &before[b]) || elapsed_ns == 0)
            continue;
        rows[i].known = true;
        rows[i].bytes_per_second =
            (uint64_t)per_second(ring->bytes_sent, before[b].bytes_sent, elapsed_ns);
        rows[i].operations_per_second =
            (uint64_t)per_second(ring->operations_sent, before[b].operations_sent, elapsed_ns);
        rows[i].stalls_per_second = per_second(ring->stalls, before[b].stalls, elapsed_ns);
        rows[i].stall_permille = stall_permille(ring, &before[b], elapsed_ns);
    }
}

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a < b) - (a > b);
}

/* Equals keep the order of their numbers, also when reversed: lines must not jump about. */
static int compare_rings(const struct top_row *a, const struct top_row *b)
{
    return comes_before(a->ring, b->ring) ? -1 : comes_before(b->ring, a->ring);
}

struct order {
    enum top_key key;
    int sign;
};

static int compare_by_key(const struct top_row *a, const struct top_row *b, enum top_key key)
{
    int c;

    switch (key) {
    case TOP_STALLS:
        c = compare_numbers(a->stall_permille, b->stall_permille);
        return c ? c : compare_numbers(a->ring->stall_ns, b->ring->stall_ns);
    case TOP_SIZE:
        return compare_numbers(a->ring->size_bytes, b->ring->size_bytes);
    case TOP_HELD:
        return compare_numbers(a->ring->bytes_held, b->ring->bytes_held);
    default:
        c = compare_numbers(a->bytes_per_second, b->bytes_per_second);
        return c ? c : compare_numbers(a->ring->bytes_sent, b->ring->bytes_sent);
    }
}

static int compare_rows(const void *a, const void *b, void *context)
{
    const struct top_row *const *x = a, *const *y = b;
    const struct order *order = context;
    const int c = compare_by_key(*x, *y, order->key);

    return c ? c * order->sign : compare_rings(*x, *y);
}

size_t top_rows_pick(const struct top_row *rows, size_t count, uint32_t domain, enum top_key key,
                     bool reverse, const struct top_row **picked)
{
    struct order order = {.key = key, .sign = reverse ? -1 : 1};
    size_t kept = 0;

    for (size_t i = 0; i < count; i++)
        if (domain == PROTO_ANY || rows[i].ring->sender_domain == domain ||
            rows[i].ring->receiver_domain == domain)
            picked[kept++] = &rows[i];
    if (kept > 0)
        qsort_r(picked, kept, sizeof(picked[0]), compare_rows, &order);
    return kept;
}

struct top_sums top_rows_sum(const struct top_row *rows, size_t count)
{
    struct top_sums sums = {0};

    for (size_t i = 0; i < count; i++) {
        const struct proto_ring_info *ring = rows[i].ring;
        sums.bytes_per_second += rows[i].bytes_per_second;
        sums.operations_per_second += rows[i].operations_per_second;
        sums.stalls_per_second += rows[i].stalls_per_second;
        sums.stalled += ring->flags & PROTO_RING_STALLED ? 1 : 0;
        sums.moving += ring->flags & PROTO_RING_MOVING ? 1 : 0;
        if (ring->size_bytes > sums.largest_bytes)
            sums.largest_bytes = ring->size_bytes;
    }
    return sums;
}
