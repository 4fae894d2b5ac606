/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/probe.h - how far apart the two CPUs are just now.
 *
 * The virtual CPUs of a host wander: now they share a core's cache, now they are on different ones.
 * A figure that two processes reach together is worth little without the time that a cache line
 * takes from one to the other and back, measured just before and just after.
 */
#ifndef VCHAN_BENCH_PROBE_H
#define VCHAN_BENCH_PROBE_H

#include <stdint.h>

struct probe_line {
    uint64_t word;
    uint8_t pad[120];
};

/* In memory that both share, zero at first. One writer a line. */
struct probe {
    struct probe_line there, back;
};

/*
 * One side calls probe_lead, the other probe_follow. Returns nanoseconds a round trip: the median
 * of 16 batches, so that somebody else's few milliseconds on a CPU do not show. About a
 * millisecond.
 */
double probe_lead(struct probe *probe);
void probe_follow(struct probe *probe);

#endif
