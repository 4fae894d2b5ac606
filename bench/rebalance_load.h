/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/rebalance_load.h - loads in which memory is what is short, for `vchan-bench rebalance`.
 *
 * Two processes, and between them channels that carry bytes both ways: each direction is a stream,
 * with a thread that writes and one that reads. A reader comes by every LOAD_READ_MS, takes what is
 * there at that moment, and goes away again, as a guest that is not always scheduled, or a program
 * that works in batches. So a stream carries at most the size of its ring each LOAD_READ_MS: memory
 * is throughput, and CPUs and caches hardly matter. The unit of the loads is what an equal share of
 * the region carries:
 *
 *     share = region bytes / streams / LOAD_READ_MS
 *
 * Writers are open loop: every LOAD_WRITE_MS they write what has fallen due, in messages of
 * LOAD_MESSAGE_BYTES, and what they could not write stays due.
 */
#ifndef VCHAN_BENCH_REBALANCE_LOAD_H
#define VCHAN_BENCH_REBALANCE_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/measure.h"
#include "client/vchan.h"

#define LOAD_READ_MS 20u
#define LOAD_WRITE_MS 5u
#define LOAD_MESSAGE_BYTES 4096u
#define LOAD_CHANNELS_MAX 128u
#define LOAD_STREAMS_MAX (2u * LOAD_CHANNELS_MAX)
/* Of "bursty". */
#define LOAD_BURST_MS 400u
#define LOAD_BURST_EVERY_MS 4000u

struct rebalance_load {
    const char *name;
    const char *text; /* what each stream does, in shares */
};

/* NULL at the end. */
const struct rebalance_load *rebalance_load_at(size_t index);

/* What one stream is to write. */
struct stream_rate {
    double bytes_per_s; /* always */
    double burst_bytes_per_s;
    double burst_at_s; /* the first one begins */
    unsigned group;    /* streams of one group are equals */
};

/* The rate of stream number `stream` of so many. share: bytes a second. */
struct stream_rate rebalance_load_rate(const struct rebalance_load *load, unsigned stream,
                                       unsigned streams, double share);

/* Bytes that fall due in the first seconds. */
double rebalance_load_due(const struct stream_rate *rate, double seconds);

/* In memory that both processes have. Times are measure_now_ns's. */
struct rebalance_shared {
    uint32_t ready;             /* atomic: sides that have all channels open */
    uint64_t start_ns;          /* atomic; 0: not yet */
    uint64_t from_ns, until_ns; /* what counts; set before start_ns */
    struct stream_rate rates[LOAD_STREAMS_MAX];
    struct histogram writes[LOAD_STREAMS_MAX]; /* ticks of those that began in that time */
};

/* One of the two processes: stream 2i is what side 0 sends in channel i, 2i + 1 the other one. */
struct rebalance_side {
    unsigned side;
    unsigned channels;
    const char *socket_path;
    struct rebalance_shared *shared;
    struct vchan *handles[LOAD_CHANNELS_MAX];
};

/* Opens all channels and counts itself as ready; failures end the benchmark. */
void rebalance_side_open(struct rebalance_side *side);

/* Starts its threads; they wait for start_ns and end by themselves after until_ns. */
struct rebalance_threads;
struct rebalance_threads *rebalance_side_start(struct rebalance_side *side);
void rebalance_side_join(struct rebalance_side *side, struct rebalance_threads *threads);

#endif
