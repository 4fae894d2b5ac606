/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/rebalance_watch.h - looks at a broker and its streams while a load runs, and writes down
 * what it sees.
 */
#ifndef VCHAN_BENCH_REBALANCE_WATCH_H
#define VCHAN_BENCH_REBALANCE_WATCH_H

#include <stdint.h>
#include <stdio.h>

#include "bench/rebalance_load.h"
#include "client/connection.h"
#include "proto/proto.h"

struct stream_seen {
    uint64_t size_bytes, written_bytes, read_bytes, stall_ns;
};

struct rebalance_seen {
    uint64_t at_ns;
    struct proto_broker_info broker;
    struct stream_seen streams[LOAD_STREAMS_MAX];
};

struct rebalance_watch {
    struct connection connection;
    const struct rebalance_side *side;
    FILE *trace;          /* NULL: none */
    double control_bytes; /* resident, and not of rings: header and pages */
    /* Sums over all looks since watch_begin. */
    uint64_t looks;
    double resident_bytes, used_bytes;
    double apart_bytes; /* between what is used and what is resident: the most */
};

/* Failures end the benchmark. side is side 0, with its channels open. */
void rebalance_watch_open(struct rebalance_watch *watch, const struct rebalance_side *side,
                          const char *socket_path);
void rebalance_watch_close(struct rebalance_watch *watch);

void rebalance_watch_look(struct rebalance_watch *watch, struct rebalance_seen *seen);

/* Looks every some ms, counts and traces, until that time. */
void rebalance_watch_until(struct rebalance_watch *watch, uint64_t start_ns, uint64_t until_ns,
                           unsigned every_ms);

/* Forgets the sums. */
void rebalance_watch_begin(struct rebalance_watch *watch);

/* The heading of a trace. */
void rebalance_watch_head(FILE *trace);

/* The decisions in the broker's history, as CSV; its heading. */
void rebalance_watch_history_head(FILE *out);
void rebalance_watch_history(struct rebalance_watch *watch, FILE *out);

#endif
