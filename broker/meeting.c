/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/meeting.h"

#include <errno.h>
#include <stdio.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/guest.h"

#define NAME_BYTES (PROTO_NAME_BYTES + 24)

/* "domain 3 (web)" */
static const char *name_of(const struct broker *broker, uint32_t number, char text[NAME_BYTES])
{
    const struct domain *domain = domains_find(&broker->domains, number);
    const char *name = domain ? domain->name : "";

    snprintf(text, NAME_BYTES, *name ? "domain %u (%s)" : "domain %u", number, name);
    return text;
}

static int check_domains(struct connection *connection, const struct channel_key *key)
{
    const struct broker *broker = connection->broker;
    const uint32_t me = connection->domain;
    const uint32_t peer = key->server_domain == me ? key->client_domain : key->server_domain;
    char name[NAME_BYTES];

    if (!connection->guest && domains_has_guest(&broker->domains, me))
        return connection_refuse(connection, -EPERM,
                                 "%s has become a VM, and no process on the host can be that",
                                 name_of(broker, me, name));
    int r = domains_check(&broker->domains, peer);
    if (r == -ENOENT)
        connection_refuse(connection, r, "there is no domain %u", peer);
    else if (r < 0)
        connection_refuse(connection, r, "%s does not run", name_of(broker, peer, name));
    return r;
}

static bool is_attached(const struct broker *broker, const struct zone *zone, uint32_t domain,
                        struct guest **guest)
{
    *guest = NULL;
    if (!domains_has_guest(&broker->domains, domain))
        return true;
    *guest = guests_find(&broker->guests, zone, domain);
    return *guest && (*guest)->state == PROTO_GUEST_ATTACHED;
}

/* missing: of the two, one that is in a zone with the other and is not attached there. */
static int refuse(struct connection *connection, const struct channel_key *key, uint32_t missing,
                  bool has_device)
{
    const struct broker *broker = connection->broker;
    const uint32_t other = missing == key->server_domain ? key->client_domain : key->server_domain;
    const struct domain *domain = domains_find(&broker->domains, missing);
    char name[NAME_BYTES], other_name[NAME_BYTES];

    if (has_device)
        return connection_refuse(connection, -EHOSTDOWN,
                                 "%s has its device, but no vchan-agent has attached to it yet",
                                 name_of(broker, missing, name));
    return connection_refuse(connection, -EHOSTDOWN,
                             "%s is not attached in any zone that it shares with %s; see vchanctl "
                             "domain show %s",
                             name_of(broker, missing, name), name_of(broker, other, other_name),
                             domain && *domain->name ? domain->name : "NUMBER");
}

int meeting_find(struct connection *connection, const struct channel_key *key,
                 struct meeting *meeting)
{
    const struct broker *broker = connection->broker;
    const uint32_t domains[2] = {key->server_domain, key->client_domain};
    uint32_t missing = PROTO_DOMAIN_HOST;
    bool shared = false, has_device = false;

    int r = check_domains(connection, key);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < broker->zone_count; i++) {
        struct zone *zone = broker->zones[i];
        if (!domain_set_has(&zone->members, domains[0]) ||
            !domain_set_has(&zone->members, domains[1]))
            continue;
        shared = true;
        unsigned end = 0;
        while (end < 2 && is_attached(broker, zone, domains[end], &meeting->guest[end]))
            end++;
        meeting->zone = zone;
        if (end == 2)
            return 0;
        missing = domains[end];
        has_device = meeting->guest[end];
    }
    if (!shared)
        return connection_refuse(connection, -EPERM, "domains %u and %u have no zone in common",
                                 connection->domain,
                                 domains[0] == connection->domain ? domains[1] : domains[0]);
    return refuse(connection, key, missing, has_device);
}
