/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/patience.h - how long a call may wait. The clock is read when it first has to: calls that
 * need not wait never read it.
 */
#ifndef VCHAN_CLIENT_PATIENCE_H
#define VCHAN_CLIENT_PATIENCE_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

struct patience {
    int timeout_ms;       /* 0: none at all; negative: for ever */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: not set yet */
};

static inline uint64_t patience_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What is left, in the form that poll and epoll_wait take: -1 for ever, 0 over, else rounded up. */
static inline int patience_left_ms(struct patience *patience)
{
    if (patience->timeout_ms <= 0)
        return patience->timeout_ms < 0 ? -1 : 0;
    uint64_t now_ns = patience_now_ns();
    if (patience->deadline_ns == 0)
        patience->deadline_ns = now_ns + (uint64_t)patience->timeout_ms * 1000000u;
    if (now_ns >= patience->deadline_ns)
        return 0;
    uint64_t left_ms = (patience->deadline_ns - now_ns + 999999u) / 1000000u;
    return left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

#endif
