/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/sim_load.h - what the ends of simulated rings do. The amounts are in shares: the memory
 * that each ring would have, were it divided evenly.
 *
 *   constant  each ring the same bytes a second for ever, from little to much, read a little faster
 *   uniform   all alike: bursts of half a share, ten a second
 *   bursty    all alike, but one in twenty at a time: bursts of four shares, every ten seconds
 *   skewed    Zipf: what comes in bursts to a ring goes down with its number; together as uniform
 *   mixed     a quarter each: constant, bursty, skewed, and silent
 *
 * Consumers pause now and then, for 2 ms on average, so that there is something to be held.
 */
#ifndef VCHAN_BENCH_SIM_LOAD_H
#define VCHAN_BENCH_SIM_LOAD_H

#include <stdbool.h>
#include <stddef.h>

#include "bench/sim.h"

/* Writes ring_count demands. -EINVAL: no load of that name. */
int sim_load_make(const char *name, uint64_t region_bytes, size_t ring_count,
                  struct sim_demand *demands);

bool sim_load_known(const char *name);

#endif
