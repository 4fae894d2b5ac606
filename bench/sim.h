/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/sim.h - rings in simulated time, under any policy: up to 100,000 of them, with what the
 * broker would look at, decide and carry out.
 *
 * A ring is a fluid: bytes arrive at its producer (sim_demand), which writes them as fast as it can
 * while there is space and waits while there is none; its consumer drains at its own rate, wakes a
 * while after the first byte, and pauses now and then. What one lap hands over takes
 * SIM_HANDOVER_NS at least, so a small ring is slow even when both ends are awake. Time goes in
 * slices of a millisecond; within one, all flows are even.
 *
 * Memory is that of the real allocator (allocator/): a ring that changes holds two extents until
 * what was in the old one is drained, or for a grace period; a growth for which no run is long
 * enough waits while others are moved (allocator/plan.h). What the policy sees goes through the
 * broker's own policy_book and policy_track. Rounds come as in broker/rebalancer.c: by the period,
 * after a stall began, and in a hurry after that; but the time that a round takes is not simulated.
 *
 * The same setup gives the same result, but for round_ns; the demand is the same whatever the
 * policy does.
 */
#ifndef VCHAN_BENCH_SIM_H
#define VCHAN_BENCH_SIM_H

#include <stddef.h>
#include <stdint.h>

#include "bench/measure.h"
#include "broker/policy.h"

#define SIM_SLICE_NS 1000000u
#define SIM_HANDOVER_NS 10000u
#define SIM_WAKE_NS 50000u
#define SIM_GRACE_NS 10000000u
#define SIM_MESSAGE_BYTES 1024u

/* Of a trace: from at_ns on, bytes arrive and are drained at these rates (bytes a second). */
struct sim_step {
    uint64_t at_ns;
    double offered, drained;
};

/* What a ring's ends do. */
struct sim_demand {
    double write_rate, read_rate;  /* bytes a second, at most */
    double steady_rate;            /* bytes arrive all the time, bytes a second */
    double burst_bytes, gap_ns;    /* and in bursts: the mean of either; 0: none */
    bool random;                   /* both are drawn from an exponential distribution */
    double pause_ns, pause_gap_ns; /* the consumer's; means, drawn likewise; 0: none */
    const struct sim_step *steps;  /* instead of all that, but for write_rate; NULL: none */
    size_t step_count;
    unsigned equals;               /* rings with the same number are to fare alike */
    uint32_t weight;               /* 0: 100 */
    uint64_t min_bytes, max_bytes; /* 0: a block, 16 MiB */
};

struct sim_setup {
    const struct policy *policy;
    const struct policy_config *config;
    uint64_t region_bytes;
    const struct sim_demand *demands;
    size_t ring_count;
    uint64_t seed;
    double seconds;
};

struct sim_result {
    double offered_bytes, received_bytes;
    double stall_seconds;      /* of all producers, in sum */
    double late_stall_seconds; /* in the last 80% of the time */
    uint64_t moves, late_moves, compaction_moves;
    uint64_t refused_moves; /* that found no room after all */
    double fairness; /* Jain's, of the received share of the offered, the worst group of equals */
    double used_bytes_mean;
    uint64_t used_bytes_most;
    uint64_t rounds, pressing_rounds;
    double listed_mean; /* rings that a round about all was about */
    struct histogram round_ns, pressing_ns;
};

/* 0, -ENOMEM, -ENOSPC: the rings' minima do not fit into the region. */
int sim_run(const struct sim_setup *setup, struct sim_result *result);

#endif
