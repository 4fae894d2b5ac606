/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench/mode.h - what vchan-bench can do: its modes, and what they are told. */
#ifndef VCHAN_BENCH_MODE_H
#define VCHAN_BENCH_MODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/report.h"

#define MODE_SIZES_MAX 32u

struct mode_options {
    double seconds;               /* 0: the mode's own default */
    int cpus[2];                  /* -1: not bound */
    const char *socket_path;      /* a running broker's; NULL: the mode starts one of its own */
    unsigned channels;            /* 0: the mode's own default */
    uint64_t cycles;              /* resize: generations; 0: default */
    unsigned pause_us;            /* resize: between two of them; 0: default */
    size_t ring_bytes;            /* 0: default */
    size_t sizes[MODE_SIZES_MAX]; /* of messages, for ring and channel */
    size_t sizes_count;
    const char *policy;      /* sim: NULL, all: each */
    const char *load;        /* sim: likewise */
    const char *trace_path;  /* sim: a recording to take the demand from */
    const char *replay_path; /* sim: a recording whose decisions are to be found again */
    uint64_t region_bytes;   /* sim; 0: by the number of rings */
    unsigned rings;          /* sim; 0: default */
    uint64_t seed;           /* sim; 0: default */
    /* What follows the mode's name and is no option. A mode that reads its options itself gets all,
     * with its name as number 0, for getopt_long. */
    int arguments_count;
    char **arguments;
};

/*
 * Each reports into the object that is open. Returns an exit status: 0, 2 (bad arguments), 77
 * (cannot run here); failures end the program.
 */
typedef int mode_run(struct report *report, const struct mode_options *options);

mode_run mode_ring;
mode_run mode_channel;
mode_run mode_latency;
mode_run mode_open;
mode_run mode_resize;
mode_run mode_alloc;
mode_run mode_load;
mode_run mode_rebalance;
mode_run mode_vm;
mode_run mode_sim;

#endif
