/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/duel.h - comparing subjects fairly on CPUs that wander.
 *
 * For each message size, in turn and again and again:
 *
 *     probe  A  probe  B  probe  C  probe ...      (one round)
 *
 * A slice belongs to a class, near or far, when the probes on both sides of it agree on that, and
 * nobody else had one of the CPUs meanwhile; else to none. Two subjects are compared within a
 * round, when both of their slices are of one class; reported is the median of these ratios. Where
 * the probes' figures form one group, the class of all is "same".
 */
#ifndef VCHAN_BENCH_DUEL_H
#define VCHAN_BENCH_DUEL_H

#include <stddef.h>

#include "bench/pair.h"
#include "bench/report.h"
#include "bench/subject.h"

struct duel {
    struct subject *subjects; /* the first is what the others are compared with */
    size_t subjects_count;
    const size_t *sizes;
    size_t sizes_count;
    double seconds; /* for all of it */
    bool round_trip_only;
    const int *cpus;
};

#define DUEL_SUBJECTS_MAX 10u

/*
 * Measures throughput and round trip of all and reports them. Bytes are verified before each size.
 */
void duel_run(struct report *report, const struct duel *duel);

#endif
