/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/pair.h - two processes on two CPUs that measure subjects together, slice by slice.
 *
 * This process leads; a child, forked by pair_new, follows: it is told what to do through shared
 * memory. Each slice lies between two probes of the distance between the CPUs, and knows whether
 * somebody else had one of them for a while.
 */
#ifndef VCHAN_BENCH_PAIR_H
#define VCHAN_BENCH_PAIR_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/subject.h"

enum pair_kind { PAIR_THROUGHPUT, PAIR_ROUND_TRIP };

struct pair_slice {
    double value;   /* bytes a second, or nanoseconds a round trip */
    bool disturbed; /* somebody else had a CPU of ours for a while */
};

struct pair;

/*
 * Prepares and opens all subjects, which are borrowed. cpus: of the leader (this thread is bound)
 * and the follower; -1 for none.
 */
struct pair *pair_new(struct subject *subjects, size_t subjects_count, const int cpus[2]);
void pair_free(struct pair *pair);

/* Measures one subject for about that long. */
struct pair_slice pair_measure(struct pair *pair, size_t subject, enum pair_kind kind, size_t bytes,
                               double slice_ms);

/*
 * Round trips, so many, with a pause before each: the ends sleep meanwhile. Adds ticks to
 * round_trips.
 */
void pair_doze(struct pair *pair, size_t subject, size_t bytes, uint64_t messages,
               unsigned pause_us, struct histogram *round_trips);

/*
 * Sends messages of that size, differently filled, one way and there and back, and compares every
 * byte. Returns how many bytes; 0 for an external subject.
 */
uint64_t pair_verify(struct pair *pair, size_t subject, size_t bytes);

/* Nanoseconds that a cache line takes to the follower's CPU and back; about a millisecond. */
double pair_probe(struct pair *pair);

#endif
