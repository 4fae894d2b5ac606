/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each metric is called and means. vchand(8) lists them; packaging/grafana shows them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/metrics_sample.h"
#include "broker/metrics_text.h"

/* Of the broker as a whole, and of a zone: 64-bit fields of the sample. */
struct value {
    struct metrics_family family;
    size_t offset;
};

#define BROKER(field) offsetof(struct metrics_sample, field)
static const struct value of_broker[] = {
    {{"vchan_connections", METRICS_GAUGE, NULL, "Clients of the broker."}, BROKER(connections)},
    {{"vchan_channels", METRICS_GAUGE, NULL, "Channels that are open or wait for their client."},
     BROKER(channels)},
    {{"vchan_channels_max", METRICS_GAUGE, NULL, "Channels that there can be at once."},
     BROKER(channels_max)},
    {{"vchan_domains", METRICS_GAUGE, NULL, "Domains with a name, a quota or something open."},
     BROKER(domains_in_all)},
    {{"vchan_ends_opened", METRICS_COUNTER, NULL, "Ends of channels that were opened."},
     BROKER(opens)},
    {{"vchan_ends_closed", METRICS_COUNTER, NULL, "Ends of channels that were closed or died."},
     BROKER(closes)},
    {{"vchan_rebalance_rounds", METRICS_COUNTER, NULL, "Rounds of the rebalancer."},
     BROKER(rounds)},
    {{"vchan_rebalance_decisions", METRICS_COUNTER, NULL,
      "Decisions about memory, refused ones too."},
     BROKER(decisions)},
    {{"vchan_rebalance_moves", METRICS_COUNTER, NULL,
      "Generations published: each resize or move of a ring."},
     BROKER(moves)},
    {{"vchan_grace_periods", METRICS_COUNTER, NULL, "Grace periods waited for."},
     BROKER(grace_periods)},
    {{"vchan_rings", METRICS_GAUGE, NULL, "Rings, two a channel."}, BROKER(rings_in_all)},
    {{"vchan_rings_stalled", METRICS_GAUGE, NULL, "Rings whose sender lacks space now."},
     BROKER(rings_stalled)},
    {{"vchan_rings_moving", METRICS_GAUGE, NULL, "Rings whose old extent is not free yet."},
     BROKER(rings_moving)},
    {{"vchan_rings_pinned", METRICS_GAUGE, NULL, "Rings whose old extent an end keeps."},
     BROKER(pinned)},
};

#define ZONE(field) offsetof(struct metrics_zone, field)
static const struct value of_zone[] = {
    {{"vchan_zone_region_bytes", METRICS_GAUGE, "bytes", "Size of the region."},
     ZONE(region_bytes)},
    {{"vchan_zone_data_bytes", METRICS_GAUGE, "bytes", "The part of the region for rings."},
     ZONE(data_bytes)},
    {{"vchan_zone_free_bytes", METRICS_GAUGE, "bytes", "Of that, in no ring."}, ZONE(free_bytes)},
    {{"vchan_zone_largest_free_bytes", METRICS_GAUGE, "bytes",
      "The longest free run: the largest ring that could be had."},
     ZONE(largest_free_bytes)},
    {{"vchan_zone_resident_bytes", METRICS_GAUGE, "bytes",
      "Memory that the host spends on the region."},
     ZONE(resident_bytes)},
    {{"vchan_zone_channels_max", METRICS_GAUGE, NULL, "Channels that there can be in the zone."},
     ZONE(channels_max)},
};

#define DOMAIN64(field) offsetof(struct proto_domain_info, field)
static const struct value of_domain[] = {
    {{"vchan_domain_held_bytes", METRICS_GAUGE, "bytes",
      "Memory of the rings that the domain sends in."},
     DOMAIN64(bytes_held)},
    {{"vchan_domain_quota_bytes", METRICS_GAUGE, "bytes", "What it may hold, 0 for no limit."},
     DOMAIN64(quota_bytes)},
};

#define RING(field) offsetof(struct proto_ring_info, field)
static const struct value of_ring[] = {
    {{"vchan_ring_size_bytes", METRICS_GAUGE, "bytes", "Memory of the ring."}, RING(size_bytes)},
    {{"vchan_ring_old_size_bytes", METRICS_GAUGE, "bytes",
      "Memory of its last generation that is not free yet."},
     RING(old_size_bytes)},
    {{"vchan_ring_held_bytes", METRICS_GAUGE, "bytes", "Bytes that wait to be read."},
     RING(bytes_held)},
    {{"vchan_ring_high_water_bytes", METRICS_GAUGE, "bytes",
      "Most bytes that waited at once since the rebalancer last looked."},
     RING(high_water_bytes)},
    {{"vchan_ring_sent_bytes", METRICS_COUNTER, "bytes", "Bytes sent."}, RING(bytes_sent)},
    {{"vchan_ring_received_bytes", METRICS_COUNTER, "bytes", "Bytes received."},
     RING(bytes_received)},
    {{"vchan_ring_sent_operations", METRICS_COUNTER, "operations", "Operations of the sender."},
     RING(operations_sent)},
    {{"vchan_ring_received_operations", METRICS_COUNTER, "operations",
      "Operations of the receiver."},
     RING(operations_received)},
    {{"vchan_ring_stalls", METRICS_COUNTER, NULL, "How often its sender lacked space."},
     RING(stalls)},
    {{"vchan_ring_stall_seconds", METRICS_COUNTER, "seconds", "How long its sender lacked space."},
     RING(stall_ns)},
    {{"vchan_ring_sender_sleeps", METRICS_COUNTER, NULL, "How often its sender went to sleep."},
     RING(sender_sleeps)},
    {{"vchan_ring_receiver_sleeps", METRICS_COUNTER, NULL, "How often its receiver went to sleep."},
     RING(receiver_sleeps)},
    {{"vchan_ring_sender_doorbells", METRICS_COUNTER, NULL, "How often its sender rang."},
     RING(sender_doorbells)},
    {{"vchan_ring_receiver_doorbells", METRICS_COUNTER, NULL, "How often its receiver rang."},
     RING(receiver_doorbells)},
    {{"vchan_ring_resizes", METRICS_COUNTER, NULL, "Generations after its first."}, RING(resizes)},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void put_value(struct metrics_text *text, const struct value *value, const void *object,
                      const struct metrics_labels *labels)
{
    uint64_t number;

    memcpy(&number, (const uint8_t *)object + value->offset, sizeof(number));
    if (value->family.unit && strcmp(value->family.unit, "seconds") == 0)
        metrics_seconds(text, labels, number);
    else
        metrics_number(text, labels, number);
}

static void render_broker(struct metrics_text *text, const struct metrics_sample *sample)
{
    static const struct metrics_family about = {"vchan_broker", METRICS_INFO, NULL,
                                                "What runs here."};
    static const struct metrics_family uptime = {"vchan_uptime_seconds", METRICS_GAUGE, "seconds",
                                                 "Since the broker was started."};
    static const struct metrics_family rings = {
        "vchan_rings_left_out", METRICS_GAUGE, NULL,
        "Rings without series of their own, which have sent least."};
    static const struct metrics_family domains = {"vchan_domains_left_out", METRICS_GAUGE, NULL,
                                                  "Domains without series of their own."};
    struct metrics_labels labels = {0};

    metrics_label(&labels, "version", VCHAN_VERSION);
    metrics_label(&labels, "policy", sample->policy);
    metrics_begin(text, &about);
    metrics_number(text, &labels, 1);
    metrics_begin(text, &uptime);
    metrics_seconds(text, NULL, sample->uptime_ns);
    for (size_t i = 0; i < COUNT(of_broker); i++) {
        metrics_begin(text, &of_broker[i].family);
        put_value(text, &of_broker[i], sample, NULL);
    }
    metrics_begin(text, &rings);
    metrics_number(text, NULL, sample->rings_in_all - sample->ring_count);
    metrics_begin(text, &domains);
    metrics_number(text, NULL, sample->domains_in_all - sample->domain_count);
}

static void render_zones(struct metrics_text *text, const struct metrics_sample *sample)
{
    static const struct metrics_family fragmentation = {
        "vchan_zone_fragmentation_ratio", METRICS_GAUGE, "ratio",
        "The part of the free memory that lies outside of its longest run."};

    for (size_t i = 0; i < COUNT(of_zone); i++) {
        metrics_begin(text, &of_zone[i].family);
        for (size_t z = 0; z < sample->zone_count; z++) {
            struct metrics_labels labels = {0};
            metrics_label(&labels, "zone", sample->zones[z].name);
            put_value(text, &of_zone[i], &sample->zones[z], &labels);
        }
    }
    metrics_begin(text, &fragmentation);
    for (size_t z = 0; z < sample->zone_count; z++) {
        const struct metrics_zone *zone = &sample->zones[z];
        struct metrics_labels labels = {0};
        metrics_label(&labels, "zone", zone->name);
        /* The two words are read one after the other, so their order may not hold. */
        metrics_ratio(text, &labels,
                      zone->free_bytes > zone->largest_free_bytes
                          ? 1.0 - (double)zone->largest_free_bytes / (double)zone->free_bytes
                          : 0.0);
    }
}

static struct metrics_labels domain_labels(const struct proto_domain_info *domain)
{
    struct metrics_labels labels = {0};

    metrics_label_number(&labels, "domain", domain->domain);
    metrics_label(&labels, "name", domain->name);
    return labels;
}

static void render_domains(struct metrics_text *text, const struct metrics_sample *sample)
{
    static const struct metrics_family connections = {"vchan_domain_connections", METRICS_GAUGE,
                                                      NULL, "Its clients of the broker."};
    static const struct metrics_family channels = {"vchan_domain_channels", METRICS_GAUGE, NULL,
                                                   "Ends of channels that it has open."};

    for (size_t i = 0; i < COUNT(of_domain); i++) {
        metrics_begin(text, &of_domain[i].family);
        for (size_t d = 0; d < sample->domain_count; d++) {
            const struct metrics_labels labels = domain_labels(&sample->domains[d]);
            put_value(text, &of_domain[i], &sample->domains[d], &labels);
        }
    }
    metrics_begin(text, &connections);
    for (size_t d = 0; d < sample->domain_count; d++) {
        const struct metrics_labels labels = domain_labels(&sample->domains[d]);
        metrics_number(text, &labels, sample->domains[d].connections);
    }
    metrics_begin(text, &channels);
    for (size_t d = 0; d < sample->domain_count; d++) {
        const struct metrics_labels labels = domain_labels(&sample->domains[d]);
        metrics_number(text, &labels, sample->domains[d].channels);
    }
}

static struct metrics_labels ring_labels(const struct metrics_sample *sample,
                                         const struct metrics_ring *ring)
{
    struct metrics_labels labels = {0};

    metrics_label_number(&labels, "channel", ring->info.channel);
    metrics_label_number(&labels, "ring", ring->info.ring);
    metrics_label(&labels, "zone", sample->zones[ring->zone].name);
    metrics_label(&labels, "sender", ring->sender);
    metrics_label(&labels, "receiver", ring->receiver);
    metrics_label_number(&labels, "port", ring->info.port);
    return labels;
}

/* labels: room for those of each ring, which every family repeats. */
static void render_rings(struct metrics_text *text, const struct metrics_sample *sample,
                         struct metrics_labels *labels)
{
    static const struct metrics_family stalled = {"vchan_ring_stalled", METRICS_GAUGE, NULL,
                                                  "1 while its sender lacks space, else 0."};

    for (size_t r = 0; r < sample->ring_count; r++)
        labels[r] = ring_labels(sample, &sample->rings[r]);
    for (size_t i = 0; i < COUNT(of_ring); i++) {
        metrics_begin(text, &of_ring[i].family);
        for (size_t r = 0; r < sample->ring_count; r++)
            put_value(text, &of_ring[i], &sample->rings[r].info, &labels[r]);
    }
    metrics_begin(text, &stalled);
    for (size_t r = 0; r < sample->ring_count; r++)
        metrics_number(text, &labels[r], sample->rings[r].info.flags & PROTO_RING_STALLED ? 1 : 0);
}

int metrics_render(const struct metrics_sample *sample, char **out, size_t *bytes)
{
    struct metrics_labels *labels = calloc(sample->ring_count + 1, sizeof(*labels));
    struct metrics_text text;

    if (!labels)
        return -ENOMEM;
    metrics_text_init(&text);
    render_broker(&text, sample);
    render_zones(&text, sample);
    render_domains(&text, sample);
    render_rings(&text, sample, labels);
    free(labels);
    int r = metrics_end(&text);
    if (r < 0) {
        metrics_text_deinit(&text);
        return r;
    }
    *out = text.text;
    *bytes = text.bytes;
    return 0;
}
