/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/domain.h - which domains there are.
 *
 *                known?                       counts as running?
 *   host (0)     always                       always
 *   local        in `domains` of [local]      always (processes on the host play it)
 *   configured   has a [domain NAME]          if it is local too, or a VM of it is attached
 *   libvirt's    its helper reported it       likewise
 *
 * A record exists for a domain that is configured, reported, attached, has a quota, or has
 * something open (connections, channels); any other local domain needs none. Records live in a hash
 * table that other threads read (broker/rcu.h); the event loop writes.
 */
#ifndef VCHAN_BROKER_DOMAIN_H
#define VCHAN_BROKER_DOMAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/rcu.h"
#include "broker/zone.h"
#include "proto/proto.h"

/* Name, uuid, configured and hypervisor are constant while published; the counters are plain
 * words. */
struct domain {
    struct cds_lfht_node node; /* owner: domains.table */
    struct rcu_head rcu;
    uint32_t number;
    bool configured;
    char name[PROTO_NAME_BYTES];
    uint8_t uuid[16];
    uint32_t connections;
    uint32_t channels;    /* ends it has open */
    uint64_t quota_bytes; /* 0: none */
    uint32_t guests;      /* ivshmem devices that are connected, in all zones */
    uint32_t hypervisor;  /* PROTO_HYPERVISOR_*; 0: nobody reported it */
};

struct domains {
    struct cds_lfht *table;
    uint32_t count;          /* of records; event loop only */
    struct domain_set local; /* likewise */
};

int domains_init(struct domains *domains);
void domains_deinit(struct domains *domains); /* no readers are left */

/* Is it a VM that is attached? Then no process on this host may play it. Event loop, or under
 * rcu_enter. */
bool domains_has_guest(const struct domains *domains, uint32_t number);

/* May something be opened to it? 0, -ENOENT (not known), -EHOSTDOWN (known, does not run). Event
 * loop. */
int domains_check(const struct domains *domains, uint32_t number);

/* NULL: there is no record. Under rcu_enter, or in the event loop. */
struct domain *domains_find(const struct domains *domains, uint32_t number);

/* Makes a configured record, or replaces the one that is there (its counters and quota go on).
 * -ENOMEM. */
int domains_configure(struct domains *domains, uint32_t number, const char *name,
                      const uint8_t uuid[16]);

/*
 * The hypervisor's helper knows it (state: PROTO_HYPERVISOR_*), or knows it no longer (0; then uuid
 * is that of the configuration, zero when it says none). A configured name stays. -ENOMEM.
 */
int domains_report(struct domains *domains, uint32_t number, const char *name,
                   const uint8_t uuid[16], uint32_t state);

/* Takes the configured mark off all of them, before they are configured anew. */
int domains_forget_configured(struct domains *domains);

/* The record, made where there is none (-ENOMEM). Then change a counter or the quota, then
 * domains_settle, which frees the record if it is not needed. */
int domains_need(struct domains *domains, uint32_t number, struct domain **out);
void domains_settle(struct domains *domains, struct domain *domain);

/* Under rcu_enter, in no order. NULL: the end. */
struct domain *domains_first(const struct domains *domains, struct cds_lfht_iter *iterator);
struct domain *domains_next(const struct domains *domains, struct cds_lfht_iter *iterator);

#endif
