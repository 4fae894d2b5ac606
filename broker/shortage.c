/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/shortage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/connection.h"

#define HOLDERS 3

const char *shortage_size(uint64_t bytes, char text[SHORTAGE_SIZE_BYTES])
{
    static const char units[] = "BKMGT";
    unsigned unit = 0;
    double shown = (double)bytes;

    while (shown >= 1024 && unit < 4) {
        shown /= 1024;
        unit++;
    }
    snprintf(text, SHORTAGE_SIZE_BYTES, shown == (double)(uint64_t)shown ? "%.0f%c" : "%.1f%c",
             shown, units[unit]);
    return text;
}

/* "domain 3 (web) 100M, domain 4 12K" */
static void name_holders(struct broker *broker, const struct zone *zone, char *text, size_t bytes)
{
    struct allocator_usage usages[HOLDERS];
    size_t count = allocator_top_domains(zone->allocator, usages, HOLDERS);
    char size[SHORTAGE_SIZE_BYTES];
    size_t used = 0;

    snprintf(text, bytes, "nobody");
    for (size_t i = 0; i < count && used < bytes; i++) {
        const struct domain *domain = domains_find(&broker->domains, usages[i].domain);
        const char *name = domain ? domain->name : "";
        int n = snprintf(text + used, bytes - used, "%sdomain %u%s%s%s %s", i ? ", " : "",
                         usages[i].domain, *name ? " (" : "", name, *name ? ")" : "",
                         shortage_size(usages[i].held_blocks * LAYOUT_BLOCK_BYTES, size));
        used += n > 0 ? (size_t)n : 0;
    }
}

/* "a ring of 8K", "rings of 64K and 8K" */
#define WANTED_BYTES 64
static const char *name_wanted(const uint64_t *bytes, unsigned count, char text[WANTED_BYTES])
{
    char first[SHORTAGE_SIZE_BYTES], second[SHORTAGE_SIZE_BYTES];

    if (count == 1)
        snprintf(text, WANTED_BYTES, "a ring of %s", shortage_size(bytes[0], first));
    else
        snprintf(text, WANTED_BYTES, "rings of %s and %s", shortage_size(bytes[0], first),
                 shortage_size(bytes[1], second));
    return text;
}

/* wanted: the sizes of one or two rings. */
static int refuse_quota(struct connection *connection, const struct zone *zone, uint32_t domain,
                        const uint64_t *wanted, unsigned count)
{
    char held[SHORTAGE_SIZE_BYTES], quota[SHORTAGE_SIZE_BYTES], want[WANTED_BYTES];
    struct allocator_usage usage;

    allocator_domain_usage(zone->allocator, domain, &usage);
    return connection_refuse(connection, -ENOSPC,
                             "domain %u holds %s of its quota of %s, and %s %s wanted", domain,
                             shortage_size(usage.charged_blocks * LAYOUT_BLOCK_BYTES, held),
                             shortage_size(usage.quota_blocks * LAYOUT_BLOCK_BYTES, quota),
                             name_wanted(wanted, count, want), count == 1 ? "is" : "are");
}

static int refuse_space(struct connection *connection, const struct zone *zone,
                        const uint64_t *wanted, unsigned count)
{
    char free_size[SHORTAGE_SIZE_BYTES], run[SHORTAGE_SIZE_BYTES], want[WANTED_BYTES], holders[256];
    struct allocator_figures figures;

    allocator_figures(zone->allocator, &figures);
    name_holders(connection->broker, zone, holders, sizeof(holders));
    return connection_refuse(connection, -ENOSPC,
                             "zone %s has no room for %s: %s is free, at most %s in one piece; "
                             "most is held by %s",
                             zone->name, name_wanted(wanted, count, want),
                             shortage_size(figures.free_blocks * LAYOUT_BLOCK_BYTES, free_size),
                             shortage_size(figures.largest_free_blocks * LAYOUT_BLOCK_BYTES, run),
                             holders);
}

int shortage_refuse(struct connection *connection, int err, const struct zone *zone,
                    const struct channel_key *key, const struct channel_wishes *wishes,
                    unsigned ring)
{
    const uint32_t sender = ring == LAYOUT_SERVER_SENDS ? key->server_domain : key->client_domain;
    const bool one_sends_both = key->server_domain == key->client_domain;

    /* The first ring had its extent when the second got none: together they do not fit. */
    if (err == -EDQUOT && (ring == 0 || !one_sends_both))
        return refuse_quota(connection, zone, sender, &wishes->min_bytes[ring], 1);
    if (err == -EDQUOT)
        return refuse_quota(connection, zone, sender, wishes->min_bytes, 2);
    if (err == -ENOSPC && ring == 2)
        return connection_refuse(connection, err, "all %u channels of zone %s are in use",
                                 zone->region.channel_count, zone->name);
    if (err == -ENOSPC)
        return refuse_space(connection, zone, wishes->min_bytes, ring == 0 ? 1 : 2);
    if (err == -ENOSR)
        return connection_refuse(connection, -ENOSPC,
                                 "the ivshmem devices of domains %u and %u have different numbers "
                                 "of vectors, and no vector is left that both know; give both "
                                 "vectors=\"%u\"",
                                 key->server_domain, key->client_domain,
                                 (uint32_t)connection->broker->config.guest_vectors);
    if (err == -ENOMEM)
        return connection_refuse(connection, -ENOSPC,
                                 "the host has no memory left for the channel");
    return connection_refuse(connection, err, "the broker cannot make the channel: %s",
                             strerror(-err));
}

int shortage_refuse_resize(struct connection *connection, int err, const struct channel *channel,
                           unsigned ring, uint64_t size_bytes)
{
    if (err == -EDQUOT)
        return refuse_quota(connection, channel->zone, channel->ring[ring].sender_domain,
                            &size_bytes, 1);
    if (err == -ENOSPC)
        return refuse_space(connection, channel->zone, &size_bytes, 1);
    return connection_refuse(connection, err, "the broker cannot resize the ring: %s",
                             strerror(-err));
}
