/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/roster.h - the domains that the hypervisor's helper reported, and which number each has.
 *
 * A domain is its UUID. Its number is that of the [domain NAME] section with this uuid, or, among
 * the sections without a uuid, with its name; else the lowest that is free from first-id on. It
 * keeps the number while this broker lives, also when it is undefined and defined again, until the
 * roster is full or a changed configuration gives the number to somebody else.
 *
 *             reported             the helper is lost, or lost its hypervisor
 *   (none) ------------> known ----------------------------------------------> UNKNOWN
 *                        |   ^                    reported                      |  |
 *                        |   +--------------------------------------------------+  |
 *        reported GONE   v              reported                                   |
 *                       gone -----------> known                                    |
 *                        ^       the helper has reported all there are             |
 *                        +---------------------------------------------------------+
 *
 * A name that comes from the hypervisor may hold anything: here it becomes what a section's name
 * may be, and one of a kind. People may still ask for a domain by the name they gave it.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_ROSTER_H
#define VCHAN_BROKER_ROSTER_H

#include <stddef.h>
#include <stdint.h>

#include "proto/guest.h"

struct broker;

#define ROSTER_ENTRIES_MAX 4096u

struct roster_entry {
    uint8_t uuid[16];
    uint32_t number;
    uint32_t state;                  /* PROTO_HYPERVISOR_* */
    char reported[PROTO_NAME_BYTES]; /* as the hypervisor calls it */
    char name[PROTO_NAME_BYTES];     /* as the broker does */
};

struct roster {
    struct roster_entry *entries;
    size_t count;
    size_t capacity;
};

void roster_deinit(struct roster *roster);

/* -ENOSPC: no number is left, or there are ROSTER_ENTRIES_MAX domains. -ENOMEM. */
int roster_report(struct broker *broker, struct roster *roster,
                  const struct proto_hypervisor_domain *domain, uint32_t *number);

/* Nobody knows any more what they do. */
void roster_lost(struct broker *broker, struct roster *roster);

/* All there are have been reported: those that are still unknown are gone. */
void roster_complete(struct broker *broker, struct roster *roster);

/* The configuration has changed: gives numbers and names anew, but to domains that have a guest. */
void roster_reconsider(struct broker *broker, struct roster *roster);

/* Those that are not gone; NULL: none. By the name that the hypervisor has for it: NULL too if
 * there are several. */
const struct roster_entry *roster_find(const struct roster *roster, uint32_t number);
const struct roster_entry *roster_find_uuid(const struct roster *roster, const uint8_t uuid[16]);
const struct roster_entry *roster_find_name(const struct roster *roster, const char *name);

/* Makes text (of a domain's name, which may hold anything) what a section's name may be; `name` has
 * PROTO_NAME_BYTES. */
void roster_safe_name(const char *text, char *name);

#endif
