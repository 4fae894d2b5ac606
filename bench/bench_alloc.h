/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench/bench_alloc.h - what the allocator's operations cost, by the number of live extents. */
#ifndef VCHAN_BENCH_BENCH_ALLOC_H
#define VCHAN_BENCH_BENCH_ALLOC_H

#include <stdbool.h>

/*
 * `vchan-bench alloc [EXTENTS...]`: measures with that many live extents of random sizes in a
 * section that is half free and fragmented (fixed seed; by default 100, 1,000, 10,000 and 100,000
 * extents), and prints nanoseconds an operation, as a table or, with json, as one object. argv[0]
 * is the mode's name. Returns an exit status: 0, 1 (an operation failed), 2 (bad arguments).
 */
int bench_alloc(int argc, char **argv, bool json);

#endif
