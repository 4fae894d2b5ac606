/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/config_reader.h"

#include <errno.h>
#include <string.h>

#include "broker/region.h"

static bool power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static int check_region(struct reader *reader, unsigned line, const char *what, uint64_t bytes,
                        uint64_t channels)
{
    if (!power_of_two(bytes))
        return config_fail(reader, line, "region-size: %s: it must be a power of two, such as 256M",
                           what);
    if (bytes < region_size_min(config_channels_for(channels, bytes)))
        return config_fail(reader, line,
                           "channels: %s: that many pages of 4K do not fit into the region", what);
    return 0;
}

static int check_domains(struct reader *reader)
{
    const struct config *config = reader->config;

    for (size_t i = 0; i < config->domain_count; i++) {
        const struct config_domain *domain = &config->domains[i];
        if (domain->id == CONFIG_UNSET)
            return config_fail(reader, domain->line, "id: [domain %s] must have one", domain->name);
        for (size_t j = 0; j < i; j++)
            if (config->domains[j].id == domain->id)
                return config_fail(reader, domain->line,
                                   "id: [domain %s] has the number of [domain %s]", domain->name,
                                   config->domains[j].name);
    }
    return 0;
}

static int resolve_mentions(struct reader *reader)
{
    struct config *config = reader->config;

    for (size_t i = 0; i < reader->mention_count; i++) {
        const struct mention *mention = &reader->mentions[i];
        void *object = config;
        size_t d = 0;
        while (d < config->domain_count && strcmp(config->domains[d].name, mention->name) != 0)
            d++;
        if (d == config->domain_count)
            return config_fail(reader, mention->line, "%s: there is no section [domain %s]",
                               mention->key->name, mention->name);
        if (mention->key->section == SECTION_ZONE)
            object = &config->zones[mention->zone];
        domain_set_add((void *)((uint8_t *)object + mention->key->offset),
                       (uint32_t)config->domains[d].id);
    }
    return 0;
}

static int check_zones(struct reader *reader)
{
    static const struct domain_set nobody;
    const struct config *config = reader->config;

    for (size_t i = 0; i < config->zone_count; i++) {
        struct config_zone *zone = &reader->config->zones[i];
        if (memcmp(&zone->members, &nobody, sizeof(nobody)) == 0)
            return config_fail(reader, zone->line, "members: [zone %s] must have some", zone->name);
        if (zone->region_bytes == CONFIG_UNSET)
            zone->region_bytes = config->region_bytes;
        if (zone->channels == CONFIG_UNSET)
            zone->channels = config->channels;
        if (check_region(reader, zone->line, zone->name, zone->region_bytes, zone->channels) < 0)
            return -EINVAL;
    }
    return 0;
}

/* What no key alone can tell. */
int config_check_all(struct reader *reader)
{
    struct config *config = reader->config;

    if (check_domains(reader) < 0 || resolve_mentions(reader) < 0)
        return -EINVAL;
    const char *field = policy_config_check(&config->policy);
    if (field)
        return config_fail(reader, reader->line, "[rebalance]: %s is out of its range", field);
    if (check_region(reader, config_line_of(reader, SECTION_BROKER, "region-size"), "[broker]",
                     config->region_bytes, config->channels) < 0)
        return -EINVAL;
    config->socket_group_line = config_line_of(reader, SECTION_BROKER, "socket-group");
    config->guest_socket_group_line = config_line_of(reader, SECTION_GUESTS, "socket-group");
    return check_zones(reader);
}
