/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench/sim_ring.h - one ring of the simulation: its demand, its bytes, its counters. */
#ifndef VCHAN_BENCH_SIM_RING_H
#define VCHAN_BENCH_SIM_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/sim.h"
#include "ring/geometry.h"

struct sim_ring {
    const struct sim_demand *demand;
    uint64_t random;
    /* The producer. */
    double backlog_bytes; /* arrived and not written */
    uint64_t burst_ns;    /* the next one */
    bool stalled;
    /* The consumer. */
    double held_bytes;
    double high_bytes;
    uint64_t pause_begins_ns, pause_ends_ns;
    bool asleep;
    size_t step;
    /* Counters, as doubles: what a slice adds may be less than a byte. */
    double offered_bytes, sent_bytes, received_bytes, stall_ns, late_stall_ns;
    uint64_t stalls, consumer_sleeps;
    /* Memory. */
    uint64_t size_bytes;
    uint64_t block, old_block; /* ALLOCATOR_NOWHERE: no old one */
    double drain_bytes;        /* in the old extent */
    uint64_t moved_ns;
    uint64_t wanted_bytes; /* a move that waits for room; 0: none */
    uint64_t wanted_ns;
    bool compacting; /* others were moved for it */
    /* Lists. */
    uint32_t next;   /* in its slot of the wheel */
    uint32_t active; /* place among the active ones; UINT32_MAX: it is in the wheel */
};

#define SIM_NEVER UINT64_MAX

void sim_ring_init(struct sim_ring *ring, const struct sim_demand *demand, uint64_t seed,
                   uint64_t number);

/* One slice, which ends at now_ns. late: it counts as that. True: a stall has begun in it. */
bool sim_ring_slice(struct sim_ring *ring, uint64_t now_ns, bool late);

/* Nothing happens to it before this time; at most now_ns: it is active. */
uint64_t sim_ring_due_ns(const struct sim_ring *ring, uint64_t now_ns);

/* What the broker would read. */
void sim_ring_sample(const struct sim_ring *ring, struct ring_sample *sample);

#endif
