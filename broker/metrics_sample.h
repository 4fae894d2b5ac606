/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/metrics_sample.h - all that the metrics tell, read at one moment.
 *
 * Zones, domains and rings are read as the inspector reads them: under RCU, in short sections, and
 * without the event loop noticing. The numbers need not fit together to the byte: they are read one
 * after the other.
 *
 * What is told of single rings and domains is bounded, because each is a dozen time series in the
 * monitoring system. Of the rings, those are told that have sent most since they were opened: what
 * a ring sends in a moment changes from one to the next, and a series that comes and goes is of no
 * use.
 */
#ifndef VCHAN_BROKER_METRICS_SAMPLE_H
#define VCHAN_BROKER_METRICS_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"

struct broker;

#define METRICS_RINGS_MAX 1000u
#define METRICS_DOMAINS_MAX 1000u

struct metrics_ring {
    struct proto_ring_info info;
    uint32_t zone;
    char sender[PROTO_NAME_BYTES]; /* name, or number */
    char receiver[PROTO_NAME_BYTES];
};

struct metrics_zone {
    const char *name;
    uint64_t region_bytes;
    uint64_t data_bytes;
    uint64_t free_bytes;
    uint64_t largest_free_bytes;
    uint64_t resident_bytes;
    uint64_t channels_max;
};

struct metrics_sample {
    uint64_t now_ns;
    /* Of the broker. */
    uint64_t uptime_ns;
    const char *policy;
    uint64_t connections, channels, channels_max;
    uint64_t opens, closes;
    uint64_t rounds, grace_periods, moves, decisions, pinned;
    uint64_t rings_in_all, rings_stalled, rings_moving;
    uint64_t domains_in_all;
    /* Heap. */
    struct metrics_zone *zones;
    size_t zone_count;
    struct proto_domain_info *domains; /* by number, from the lowest */
    size_t domain_count;
    struct metrics_ring *rings; /* by channel and ring */
    size_t ring_count;
};

/* Any thread registered with RCU. 0 or -ENOMEM. */
int metrics_sample_take(const struct broker *broker, struct metrics_sample *sample);
void metrics_sample_free(struct metrics_sample *sample);

/*
 * The sample as OpenMetrics; *text: a heap block of *bytes bytes. 0 or -ENOMEM.
 * broker/metrics_render.c.
 */
int metrics_render(const struct metrics_sample *sample, char **text, size_t *bytes);

#endif
