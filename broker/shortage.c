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

static int refuse_quota(struct connection *connection, const struct zone *zone, uint32_t domain,
                        uint64_t wanted)
{
    char held[SHORTAGE_SIZE_BYTES], quota[SHORTAGE_SIZE_BYTES], want[SHORTAGE_SIZE_BYTES];
    struct allocator_usage usage;

    allocator_domain_usage(zone->allocator, domain, &usage);
    return connection_refuse(
        connection, -ENOSPC, "domain %u holds %s of its quota of %s, and a ring of %s is wanted",
        domain, shortage_size(usage.charged_blocks * LAYOUT_BLOCK_BYTES, held),
        shortage_size(usage.quota_blocks * LAYOUT_BLOCK_BYTES, quota), shortage_size(wanted, want));
}

static int refuse_space(struct connection *connection, const struct zone *zone, uint64_t wanted)
{
    char free_size[SHORTAGE_SIZE_BYTES], run[SHORTAGE_SIZE_BYTES], want[SHORTAGE_SIZE_BYTES],
        holders[256];
    struct allocator_figures figures;

    allocator_figures(zone->allocator, &figures);
    name_holders(connection->broker, zone, holders, sizeof(holders));
    return connection_refuse(connection, -ENOSPC,
                             "zone %s has no room for a ring of %s: %s is free, at most %s in one "
                             "piece; most is held by %s",
                             zone->name, shortage_size(wanted, want),
                             shortage_size(figures.free_blocks * LAYOUT_BLOCK_BYTES, free_size),
                             shortage_size(figures.largest_free_blocks * LAYOUT_BLOCK_BYTES, run),
                             holders);
}

int shortage_refuse(struct connection *connection, int err, const struct zone *zone,
                    const struct channel_key *key, const struct channel_wishes *wishes,
                    unsigned ring)
{
    const uint64_t wanted = ring < 2 ? wishes->min_bytes[ring] : LAYOUT_CHANNEL_PAGE_BYTES;

    if (err == -EDQUOT)
        return refuse_quota(connection, zone,
                            ring == LAYOUT_SERVER_SENDS ? key->server_domain : key->client_domain,
                            wanted);
    if (err == -ENOSPC && ring == 2 && zone->free_count == 0)
        return connection_refuse(connection, err, "all %u channels of zone %s are in use",
                                 zone->region.channel_count, zone->name);
    if (err == -ENOSPC && ring < 2 &&
        allocator_room(zone->allocator, wanted / LAYOUT_BLOCK_BYTES) != ALLOCATOR_ROOM)
        return refuse_space(connection, zone, wanted);
    if (err == -ENOSPC)
        return connection_refuse(connection, err, "the host has no memory left for the region");
    return connection_refuse(connection, err, "the broker cannot make the channel: %s",
                             strerror(-err));
}
