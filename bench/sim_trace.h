/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/sim_trace.h - what is done with a recording (vchanctl record, broker/policy_trace.h):
 *
 *   replay   gives a policy what the recorded one was asked, and compares the answers
 *   load     turns it into the demand of simulated rings: in each interval between two looks, what
 *            came to a ring's producer and what its consumer could drain
 *
 * What came is what was sent, and while the producer stalled, as much in proportion; how fast the
 * consumer can drain is the best rate that it has lately shown. So a recording in which a ring was
 * always stalled says little about what it would have sent.
 */
#ifndef VCHAN_BENCH_SIM_TRACE_H
#define VCHAN_BENCH_SIM_TRACE_H

#include <stdint.h>

#include "bench/report.h"
#include "bench/sim.h"

/*
 * NULL: the recorded policy, and a difference is exit status 1; else this one, and what it would
 * have decided is shown. Failures end the program.
 */
int sim_trace_replay(struct report *report, const char *path, const struct policy *policy);

struct sim_trace_load {
    struct sim_demand *demands;
    size_t ring_count;
    struct policy_config config; /* the first in the recording */
    uint64_t region_bytes;
    double seconds;
};

/* Of zone 0. Failures end the program. */
void sim_trace_load(const char *path, struct sim_trace_load *load);
void sim_trace_load_deinit(struct sim_trace_load *load);

#endif
