/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/policy_track.h - from a ring's counters, look after look, to what a policy knows of it.
 *
 * Pure: time is given. A regular look ends the interval; the next look begins a new one. A look in
 * between (pressure) shows the interval as far as it is.
 */
#ifndef VCHAN_BROKER_POLICY_TRACK_H
#define VCHAN_BROKER_POLICY_TRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/policy.h"
#include "ring/geometry.h"

/* What the broker knows of a ring at a look. */
struct policy_look {
    uint64_t now_ns;
    uint64_t opened_ns;
    uint64_t incarnation;
    uint32_t channel;
    uint32_t ring;
    uint32_t domain;
    uint32_t weight;
    uint64_t size_bytes;
    uint64_t min_bytes;
    uint64_t max_bytes;
    uint64_t promised_bytes;
    bool moving;
    bool regular;
    struct ring_sample sample;
};

/* A zero track has seen nothing; one of another incarnation starts anew. */
struct policy_track {
    struct policy_ring ring;
    struct ring_sample start; /* of this interval */
    struct ring_sample last;  /* the last look */
    uint64_t start_ns, last_ns;
    bool interval_over;
    uint64_t stall_seen_ns; /* the stall that is going on was first seen then */
    uint64_t peak_window_ns, peak_now_bytes, peak_before_bytes;
    uint64_t lately_window_ns, lately_now_bytes, lately_before_bytes;
    uint64_t shrunk_ns; /* 0: never */
    uint64_t shrunk_from_bytes;
    uint64_t regret_ns; /* when to see whether it should not have shrunk; 0: no question */
    uint64_t regret_from_bytes, regret_peak_bytes;
    uint64_t patience_ns;             /* when patience last changed */
    uint64_t recall_ns;               /* when recall last changed, or was confirmed */
    uint32_t judge_intervals;         /* until the last growth is judged; 0: it has been */
    uint32_t stalled_permille_before; /* that growth */
    uint64_t judged_rate;             /* bytes drained a second, smoothed, when it was */
    uint64_t rate;
    uint32_t rate_looks; /* that it is made of */
    uint64_t refused_ns;
};

void policy_track_look(struct policy_track *track, const struct policy_look *look,
                       const struct policy_config *config);

/* Nobody has looked since the last look, but nothing has happened until then. */
void policy_track_skip(struct policy_track *track, uint64_t until_ns);

/* A decision about this ring has been recorded. */
void policy_track_decided(struct policy_track *track, const struct policy_decision *decision,
                          uint64_t now_ns);

/* Did bytes go in or out in this interval? */
bool policy_track_active(const struct policy_track *track);

#endif
