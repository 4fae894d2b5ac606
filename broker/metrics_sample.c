/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/metrics_sample.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/history.h"
#include "broker/listing.h"
#include "broker/mover.h"
#include "broker/policy.h"
#include "broker/rebalancer.h"
#include "ring/order.h"

/* Numbers tried in one reader's section: a section delays call_rcu, so it is short. */
#define NUMBERS_A_SECTION 1024u

/* The rings that are kept are a heap with the least one first, until all have been seen. */
static bool sent_less(const struct metrics_ring *a, const struct metrics_ring *b)
{
    return a->info.bytes_sent < b->info.bytes_sent;
}

static void swap(struct metrics_ring *a, struct metrics_ring *b)
{
    struct metrics_ring c = *a;

    *a = *b;
    *b = c;
}

static void sift_up(struct metrics_ring *heap, size_t i)
{
    for (; i > 0 && sent_less(&heap[i], &heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&heap[i], &heap[(i - 1) / 2]);
}

static void sift_down(struct metrics_ring *heap, size_t count)
{
    for (size_t i = 0, least;; i = least) {
        const size_t left = 2 * i + 1;
        least = i;
        for (size_t child = left; child < count && child <= left + 1; child++)
            if (sent_less(&heap[child], &heap[least]))
                least = child;
        if (least == i)
            return;
        swap(&heap[i], &heap[least]);
    }
}

static void name_domain(const struct broker *broker, uint32_t number, char name[PROTO_NAME_BYTES])
{
    const struct domain *domain = domains_find(&broker->domains, number);

    if (domain && domain->name[0])
        snprintf(name, PROTO_NAME_BYTES, "%s", domain->name);
    else
        snprintf(name, PROTO_NAME_BYTES, "%u", number);
}

/* Under rcu_enter. */
static void see_ring(const struct broker *broker, const struct channel *channel, unsigned index,
                     struct metrics_sample *sample)
{
    struct metrics_ring ring = {.zone = channel->zone->index};

    listing_fill_ring(channel, index, sample->now_ns, &ring.info);
    sample->rings_in_all++;
    sample->rings_stalled += ring.info.flags & PROTO_RING_STALLED ? 1 : 0;
    sample->rings_moving += ring.info.flags & PROTO_RING_MOVING ? 1 : 0;
    if (sample->ring_count == METRICS_RINGS_MAX && !sent_less(&sample->rings[0], &ring))
        return;
    name_domain(broker, ring.info.sender_domain, ring.sender);
    name_domain(broker, ring.info.receiver_domain, ring.receiver);
    if (sample->ring_count < METRICS_RINGS_MAX) {
        sample->rings[sample->ring_count] = ring;
        sift_up(sample->rings, sample->ring_count++);
    } else {
        sample->rings[0] = ring;
        sift_down(sample->rings, sample->ring_count);
    }
}

static int compare_rings(const void *a, const void *b)
{
    const struct proto_ring_info *x = &((const struct metrics_ring *)a)->info;
    const struct proto_ring_info *y = &((const struct metrics_ring *)b)->info;

    if (x->channel != y->channel)
        return x->channel < y->channel ? -1 : 1;
    return (x->ring > y->ring) - (x->ring < y->ring);
}

static void see_rings(const struct broker *broker, struct metrics_sample *sample)
{
    for (uint32_t number = 0; number < broker->channels_max;) {
        const uint32_t pause = broker->channels_max - number > NUMBERS_A_SECTION
                                   ? number + NUMBERS_A_SECTION
                                   : broker->channels_max;
        rcu_enter();
        for (; number < pause; number++) {
            const struct channel *channel = channels_find(&broker->channels, number);
            if (!channel)
                continue;
            see_ring(broker, channel, LAYOUT_SERVER_SENDS, sample);
            see_ring(broker, channel, LAYOUT_CLIENT_SENDS, sample);
        }
        rcu_leave();
    }
    if (sample->ring_count > 0)
        qsort(sample->rings, sample->ring_count, sizeof(sample->rings[0]), compare_rings);
}

static void see_domains(const struct broker *broker, struct metrics_sample *sample)
{
    for (uint32_t number = 0; number <= PROTO_DOMAIN_MAX;) {
        const uint32_t pause = PROTO_DOMAIN_MAX + 1 - number > NUMBERS_A_SECTION
                                   ? number + NUMBERS_A_SECTION
                                   : PROTO_DOMAIN_MAX + 1;
        rcu_enter();
        for (; number < pause; number++) {
            const struct domain *domain = domains_find(&broker->domains, number);
            if (!domain)
                continue;
            sample->domains_in_all++;
            if (sample->domain_count < METRICS_DOMAINS_MAX)
                listing_fill_domain(broker, domain, &sample->domains[sample->domain_count++]);
        }
        rcu_leave();
    }
}

static void see_zones(const struct broker *broker, struct metrics_sample *sample)
{
    for (uint32_t i = 0; i < broker->zone_count; i++) {
        const struct zone *zone = broker->zones[i];
        sample->zones[sample->zone_count++] = (struct metrics_zone){
            .name = zone->name,
            .region_bytes = zone->region.size_bytes,
            .data_bytes = zone->region.data_bytes,
            .free_bytes = order_load_plain(&zone->free_bytes),
            .largest_free_bytes = order_load_plain(&zone->largest_free_bytes),
            .resident_bytes = region_resident_bytes(&zone->region),
            .channels_max = zone->region.channel_count,
        };
    }
}

static void see_broker(const struct broker *broker, struct metrics_sample *sample)
{
    const struct rebalancer_counts looked = rebalancer_counts(broker->rebalancer);
    const struct mover_counts moved = mover_counts(broker->mover);

    sample->uptime_ns = sample->now_ns - broker->started_ns;
    sample->policy = order_load_plain(&broker->policy)->name;
    sample->connections = order_load_plain(&broker->connection_count);
    sample->channels = order_load_plain(&broker->channels.count);
    sample->channels_max = broker->channels_max;
    sample->opens = order_load_plain(&broker->opens);
    sample->closes = order_load_plain(&broker->closes);
    sample->rounds = looked.rounds;
    sample->grace_periods = looked.grace_periods;
    sample->moves = moved.moves;
    sample->pinned = moved.pinned;
    sample->decisions = history_newest(broker->history);
}

int metrics_sample_take(const struct broker *broker, struct metrics_sample *sample)
{
    *sample = (struct metrics_sample){.now_ns = broker_now_ns()};
    sample->zones = calloc(broker->zone_count, sizeof(*sample->zones));
    sample->domains = calloc(METRICS_DOMAINS_MAX, sizeof(*sample->domains));
    sample->rings = calloc(METRICS_RINGS_MAX, sizeof(*sample->rings));
    if (!sample->zones || !sample->domains || !sample->rings) {
        metrics_sample_free(sample);
        return -ENOMEM;
    }
    see_broker(broker, sample);
    see_zones(broker, sample);
    see_domains(broker, sample);
    see_rings(broker, sample);
    return 0;
}

void metrics_sample_free(struct metrics_sample *sample)
{
    free(sample->zones);
    free(sample->domains);
    free(sample->rings);
    *sample = (struct metrics_sample){0};
}
