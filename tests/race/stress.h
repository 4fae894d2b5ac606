/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tests/race/stress.h - a ring under all that can happen to it at once.
 *
 * A producer and a consumer (processes, or threads for ThreadSanitizer) push a stream in which
 * every byte is known through one ring, with random sizes, pauses inside and between operations,
 * promises, sleeping and spinning. The caller plays the broker: it publishes random extents all the
 * time, takes old ones back by both ways, and fills what is free with rubbish, in which a write
 * after the free would show.
 */
#ifndef VCHAN_TESTS_STRESS_H
#define VCHAN_TESTS_STRESS_H

#include <stdbool.h>
#include <stdint.h>

struct stress_options {
    unsigned seconds;
    unsigned seed;
    bool threads;       /* else processes */
    bool fence;         /* both ends fence, as under different kernels */
    bool kill_producer; /* with SIGKILL, in the end */
    bool kill_consumer;
};

/* A run goes on until this much has happened, within reason. */
#define STRESS_BYTES_MIN 100000u
#define STRESS_GENERATIONS_MIN 50u
#define STRESS_FOLLOWED_MIN 10u

struct stress_result {
    bool failed;
    char why[160];
    uint64_t bytes, generations, followed, reclaimed, pinned;
};

void stress_run(const struct stress_options *options, struct stress_result *result);

#endif
