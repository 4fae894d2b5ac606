/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/device.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/guest_sockets.h"
#include "broker/roster.h"
#include "ring/order.h"

/* A list in a sentence: "a, b, c", cut off where it gets too long to read. */
struct enumeration {
    char text[1024];
    size_t used;
    uint32_t left_out;
};

static void add(struct enumeration *list, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add(struct enumeration *list, const char *format, ...)
{
    char item[160];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(item, sizeof(item), format, arguments);
    va_end(arguments);
    int n = snprintf(list->text + list->used, sizeof(list->text) - list->used, "%s%s",
                     list->used ? ", " : "", item);
    if (list->left_out || (size_t)n >= sizeof(list->text) - 32 - list->used) {
        list->text[list->used] = '\0';
        list->left_out++;
    } else {
        list->used += (size_t)n;
    }
}

static const char *ended(struct enumeration *list)
{
    if (list->left_out)
        snprintf(list->text + list->used, sizeof(list->text) - list->used, ", and %" PRIu32 " more",
                 list->left_out);
    return list->used ? list->text : "none";
}

/* A VM can be behind it: it is configured, or the hypervisor's helper knows it. */
static bool can_be_vm(const struct domain *domain)
{
    return domain->number != PROTO_DOMAIN_HOST && (domain->configured || domain->hypervisor);
}

static struct domain *find_name(const struct domains *domains, const char *name)
{
    struct domain *domain;
    struct cds_lfht_iter iterator;

    rcu_enter();
    for (domain = domains_first(domains, &iterator); domain;
         domain = domains_next(domains, &iterator))
        if (can_be_vm(domain) && strcmp(domain->name, name) == 0)
            break;
    rcu_leave();
    return domain;
}

static bool is_number(const char *text, uint32_t *number)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || errno || value > PROTO_DOMAIN_MAX)
        return false;
    *number = (uint32_t)value;
    return true;
}

static struct domain *find_uuid(const struct domains *domains, const uint8_t uuid[16])
{
    struct domain *domain;
    struct cds_lfht_iter iterator;

    rcu_enter();
    for (domain = domains_first(domains, &iterator); domain;
         domain = domains_next(domains, &iterator))
        if (can_be_vm(domain) && memcmp(domain->uuid, uuid, sizeof(domain->uuid)) == 0)
            break;
    rcu_leave();
    return domain;
}

static struct domain *find(const struct broker *broker, const struct roster *roster,
                           const char *text)
{
    struct domain *domain = NULL;
    uint8_t uuid[16];
    uint32_t number;

    if (is_number(text, &number))
        domain = domains_find(&broker->domains, number);
    else if (config_parse_uuid(text, uuid) == 0)
        domain = find_uuid(&broker->domains, uuid);
    else
        domain = find_name(&broker->domains, text);
    if (!domain) {
        const struct roster_entry *entry = roster_find_name(roster, text);
        domain = entry ? domains_find(&broker->domains, entry->number) : NULL;
    }
    return domain && can_be_vm(domain) ? domain : NULL;
}

static int refuse_unknown(struct connection *connection, const char *text)
{
    const struct broker *broker = connection->broker;
    struct enumeration known = {0};
    struct cds_lfht_iter iterator;
    struct domain *domain;

    rcu_enter();
    for (domain = domains_first(&broker->domains, &iterator); domain;
         domain = domains_next(&broker->domains, &iterator))
        if (can_be_vm(domain))
            add(&known, "%s (%" PRIu32 ")", domain->name, domain->number);
    rcu_leave();
    return connection_refuse(connection, -ENOENT,
                             "no VM is called \"%s\"; known are: %s (from the configuration and "
                             "from libvirt, when vchan-libvirt is connected)",
                             text, ended(&known));
}

static int find_zone(struct connection *connection, const struct proto_domain_request *request,
                     const struct domain *domain, struct zone **out)
{
    const struct broker *broker = connection->broker;
    struct enumeration member_of = {0};
    uint32_t count = 0;
    bool exists = false;

    for (uint32_t i = 0; i < broker->zone_count; i++) {
        struct zone *zone = broker->zones[i];
        const bool named = strcmp(zone->name, request->zone) == 0;
        exists = exists || named;
        if (!domain_set_has(&zone->members, domain->number))
            continue;
        add(&member_of, "%s", zone->name);
        if (named || !request->zone[0]) {
            *out = zone;
            count++;
        }
    }
    if (count == 1)
        return 0;
    if (count > 1)
        return connection_refuse(connection, -EINVAL,
                                 "domain %s is in several zones, each with a device of its own; "
                                 "say which: %s",
                                 domain->name, ended(&member_of));
    if (request->zone[0] && !exists)
        return connection_refuse(connection, -ENOENT,
                                 "there is no zone \"%s\"; domain %s is in: %s", request->zone,
                                 domain->name, ended(&member_of));
    return connection_refuse(connection, -EPERM,
                             "domain %s (%" PRIu32 ") is not in %s; it is in: %s. Members are "
                             "named by [zone] in vchand.conf",
                             domain->name, domain->number,
                             request->zone[0] ? "that zone" : "any zone", ended(&member_of));
}

int device_describe(struct connection *connection, const struct roster *roster,
                    const struct proto_domain_request *request, struct proto_domain_device *device,
                    struct zone **out)
{
    const struct broker *broker = connection->broker;
    const struct domain *domain = find(broker, roster, request->domain);

    if (!domain)
        return refuse_unknown(connection, request->domain);
    int r = find_zone(connection, request, domain, out);
    if (r < 0)
        return r;
    *device = (struct proto_domain_device){
        .domain = domain->number,
        .vectors = (uint32_t)broker->config.guest_vectors,
        .region_bytes = (*out)->region.size_bytes,
    };
    memcpy(device->uuid, domain->uuid, sizeof(device->uuid));
    memcpy(device->name, domain->name, sizeof(device->name));
    memcpy(device->zone, (*out)->name, sizeof(device->zone));
    return guest_socket_path(broker, *out, domain->number, device->socket);
}

/* Bits of the ends that the domain has open. */
static uint32_t ends_of(const struct channel *channel, const struct zone *zone, uint32_t domain)
{
    uint32_t ends = 0;

    if (channel->zone != zone || channel->state == LAYOUT_CHANNEL_CLOSED)
        return 0;
    if (channel->key.server_domain == domain && channel->end[CHANNEL_SERVER].connection)
        ends |= LAYOUT_GONE_SERVER;
    if (channel->key.client_domain == domain && channel->end[CHANNEL_CLIENT].connection)
        ends |= LAYOUT_GONE_CLIENT;
    return ends;
}

int device_refuse_busy(struct connection *connection, const struct zone *zone,
                       const struct proto_domain_device *device)
{
    const struct channels *channels = &connection->broker->channels;
    struct enumeration open = {0};
    struct cds_lfht_iter iterator;
    const struct channel *channel;
    uint32_t count = 0;

    rcu_enter();
    for (channel = channels_first(channels, &iterator); channel;
         channel = channels_next(channels, &iterator)) {
        if (!ends_of(channel, zone, device->domain))
            continue;
        add(&open, "channel %u (server domain %u, client domain %u, port %u)", channel->number,
            channel->key.server_domain, channel->key.client_domain, channel->key.port);
        count++;
    }
    rcu_leave();
    if (count == 0)
        return 0;
    return connection_refuse(connection, -EBUSY,
                             "domain %s has %u channels open in zone %s, which detaching ends: %s. "
                             "Close them, or detach with --force",
                             device->name, count, device->zone, ended(&open));
}

void device_close_channels(struct connection *connection, const struct zone *zone, uint32_t domain)
{
    const struct channels *channels = &connection->broker->channels;
    struct cds_lfht_iter iterator;
    struct channel *channel;

    rcu_enter();
    for (channel = channels_first(channels, &iterator); channel;
         channel = channels_next(channels, &iterator)) {
        const uint32_t ends = ends_of(channel, zone, domain);
        if (!ends)
            continue;
        connection_log(connection, LOG_NOTICE, "channel %u is closed: the device is detached",
                       channel->number);
        channel_close(channel, 0, ends);
    }
    rcu_leave();
}
