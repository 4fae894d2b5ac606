/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/roster.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/guest.h"
#include "broker/guest_sockets.h"

void roster_deinit(struct roster *roster)
{
    free(roster->entries);
    *roster = (struct roster){0};
}

void roster_safe_name(const char *text, char *name)
{
    size_t n = 0;

    /* It goes where numbers may stand, and into paths. */
    if (isdigit((unsigned char)text[0]) || text[0] == '.' || !text[0])
        n = (size_t)snprintf(name, PROTO_NAME_BYTES, "vm-");
    for (; *text && n < PROTO_NAME_BYTES - 1; text++)
        name[n++] =
            (unsigned char)*text < 0x80 && (isalnum((unsigned char)*text) || strchr("._-", *text))
                ? *text
                : '_';
    name[n] = '\0';
}

static bool is_gone(const struct roster_entry *entry)
{
    return entry->state == PROTO_HYPERVISOR_GONE;
}

static struct roster_entry *find_uuid(const struct roster *roster, const uint8_t uuid[16])
{
    for (size_t i = 0; i < roster->count; i++)
        if (memcmp(roster->entries[i].uuid, uuid, sizeof(roster->entries[i].uuid)) == 0)
            return &roster->entries[i];
    return NULL;
}

static struct roster_entry *find_number(const struct roster *roster, uint32_t number)
{
    for (size_t i = 0; i < roster->count; i++)
        if (roster->entries[i].number == number)
            return &roster->entries[i];
    return NULL;
}

const struct roster_entry *roster_find(const struct roster *roster, uint32_t number)
{
    const struct roster_entry *entry = find_number(roster, number);

    return entry && !is_gone(entry) ? entry : NULL;
}

const struct roster_entry *roster_find_uuid(const struct roster *roster, const uint8_t uuid[16])
{
    const struct roster_entry *entry = find_uuid(roster, uuid);

    return entry && !is_gone(entry) ? entry : NULL;
}

const struct roster_entry *roster_find_name(const struct roster *roster, const char *name)
{
    const struct roster_entry *found = NULL;

    for (size_t i = 0; i < roster->count; i++) {
        const struct roster_entry *entry = &roster->entries[i];
        if (is_gone(entry) || strcmp(entry->reported, name) != 0)
            continue;
        if (found)
            return NULL;
        found = entry;
    }
    return found;
}

/* The section that means this domain; NULL: none. */
static const struct config_domain *section_of(const struct config *config, const uint8_t uuid[16],
                                              const char *name)
{
    static const uint8_t none[16];

    for (size_t i = 0; i < config->domain_count; i++)
        if (memcmp(config->domains[i].uuid, uuid, sizeof(none)) == 0)
            return &config->domains[i];
    for (size_t i = 0; i < config->domain_count; i++)
        if (memcmp(config->domains[i].uuid, none, sizeof(none)) == 0 &&
            strcmp(config->domains[i].name, name) == 0)
            return &config->domains[i];
    return NULL;
}

static bool is_section_id(const struct config *config, uint32_t number)
{
    for (size_t i = 0; i < config->domain_count; i++)
        if (config->domains[i].id == number)
            return true;
    return false;
}

static int free_number(const struct broker *broker, const struct roster *roster, uint32_t *number)
{
    for (uint32_t n = (uint32_t)broker->config.guest_first_id; n <= PROTO_DOMAIN_MAX; n++)
        if (!find_number(roster, n) && !is_section_id(&broker->config, n) &&
            !domain_set_has(&broker->domains.local, n) && !domains_find(&broker->domains, n)) {
            *number = n;
            return 0;
        }
    return -ENOSPC;
}

static bool is_name_taken(const struct broker *broker, const struct roster *roster,
                          const struct roster_entry *mine, const char *name)
{
    for (size_t i = 0; i < broker->config.domain_count; i++)
        if (broker->config.domains[i].id != mine->number &&
            strcmp(broker->config.domains[i].name, name) == 0)
            return true;
    for (size_t i = 0; i < roster->count; i++)
        if (&roster->entries[i] != mine && !is_gone(&roster->entries[i]) &&
            strcmp(roster->entries[i].name, name) == 0)
            return true;
    return false;
}

static void give_name(const struct broker *broker, const struct roster *roster,
                      struct roster_entry *entry, const struct config_domain *section)
{
    if (section && section->id == entry->number) {
        snprintf(entry->name, sizeof(entry->name), "%s", section->name);
        return;
    }
    roster_safe_name(entry->reported, entry->name);
    if (is_name_taken(broker, roster, entry, entry->name)) {
        char tail[16];
        int n = snprintf(tail, sizeof(tail), "-%u", entry->number);
        size_t keep = strlen(entry->name);
        if (keep > sizeof(entry->name) - 1 - (size_t)n)
            keep = sizeof(entry->name) - 1 - (size_t)n;
        memcpy(entry->name + keep, tail, (size_t)n + 1);
    }
}

static void drop(struct roster *roster, struct roster_entry *entry)
{
    *entry = roster->entries[--roster->count];
}

/* A place for one more; an entry that is gone gives way where there is none. */
static int make_room(struct roster *roster)
{
    if (roster->count >= ROSTER_ENTRIES_MAX) {
        for (size_t i = 0; i < roster->count; i++)
            if (is_gone(&roster->entries[i])) {
                drop(roster, &roster->entries[i]);
                return 0;
            }
        return -ENOSPC;
    }
    if (roster->count < roster->capacity)
        return 0;
    size_t capacity = roster->capacity ? 2 * roster->capacity : 16;
    struct roster_entry *grown = reallocarray(roster->entries, capacity, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    roster->entries = grown;
    roster->capacity = capacity;
    return 0;
}

/* The number for a domain that is not in the roster. */
static int choose_number(const struct broker *broker, struct roster *roster,
                         const struct config_domain *section, uint32_t *number)
{
    struct roster_entry *holder = section ? find_number(roster, (uint32_t)section->id) : NULL;

    if (!section || (holder && !is_gone(holder)))
        return free_number(broker, roster, number);
    if (holder)
        drop(roster, holder);
    *number = (uint32_t)section->id;
    return 0;
}

static int add(struct broker *broker, struct roster *roster,
               const struct proto_hypervisor_domain *domain, struct roster_entry **out)
{
    const struct config_domain *section = section_of(&broker->config, domain->uuid, domain->name);
    uint32_t number;
    int r = choose_number(broker, roster, section, &number);

    if (r == 0)
        r = make_room(roster);
    if (r < 0)
        return r;
    struct roster_entry *entry = &roster->entries[roster->count++];
    *entry = (struct roster_entry){.number = number, .state = PROTO_HYPERVISOR_GONE};
    memcpy(entry->uuid, domain->uuid, sizeof(entry->uuid));
    *out = entry;
    return 0;
}

/* The hypervisor knows nobody of that number any more. */
static int withdraw(struct broker *broker, uint32_t number)
{
    static const uint8_t none[16];
    const uint8_t *uuid = none;

    for (size_t i = 0; i < broker->config.domain_count; i++)
        if (broker->config.domains[i].id == number)
            uuid = broker->config.domains[i].uuid;
    guest_sockets_drop(broker, number);
    return domains_report(&broker->domains, number, "", uuid, 0);
}

/* Tells the table of domains and the sockets what the entry says. */
static int publish(struct broker *broker, const struct roster_entry *entry)
{
    if (is_gone(entry))
        return withdraw(broker, entry->number);
    int r = domains_report(&broker->domains, entry->number, entry->name, entry->uuid,
                           entry->state);
    if (r < 0)
        return r;
    if (entry->state != PROTO_HYPERVISOR_UNKNOWN)
        guest_sockets_need(broker, entry->number); /* logs what it cannot make */
    return 0;
}

int roster_report(struct broker *broker, struct roster *roster,
                  const struct proto_hypervisor_domain *domain, uint32_t *number)
{
    struct roster_entry *entry = find_uuid(roster, domain->uuid);

    if (!entry) {
        int r = add(broker, roster, domain, &entry);
        if (r < 0)
            return r;
    }
    *number = entry->number;
    if (entry->state == domain->state && strcmp(entry->reported, domain->name) == 0)
        return 0;
    snprintf(entry->reported, sizeof(entry->reported), "%s", domain->name);
    give_name(broker, roster, entry, section_of(&broker->config, entry->uuid, entry->reported));
    entry->state = domain->state;
    return publish(broker, entry);
}

static void set_all(struct broker *broker, struct roster *roster, uint32_t from, uint32_t to)
{
    for (size_t i = 0; i < roster->count; i++) {
        struct roster_entry *entry = &roster->entries[i];
        if (is_gone(entry) || (from && entry->state != from))
            continue;
        entry->state = to;
        if (publish(broker, entry) < 0)
            log_error(&broker->log, "domain %u (%s): its state is not told: out of memory",
                      entry->number, entry->name);
    }
}

void roster_lost(struct broker *broker, struct roster *roster)
{
    set_all(broker, roster, 0, PROTO_HYPERVISOR_UNKNOWN);
}

void roster_complete(struct broker *broker, struct roster *roster)
{
    set_all(broker, roster, PROTO_HYPERVISOR_UNKNOWN, PROTO_HYPERVISOR_GONE);
}

static bool is_in_use(const struct broker *broker, uint32_t number)
{
    const struct domain *domain = domains_find(&broker->domains, number);

    return (domain && (domain->connections > 0 || domain->channels > 0)) ||
           guests_find_domain(&broker->guests, number);
}

/* The number that the entry should have now; its own if it may stay. */
static uint32_t better_number(struct broker *broker, struct roster *roster,
                              const struct roster_entry *entry, const struct config_domain *section)
{
    uint32_t number = entry->number;

    if (section && !find_number(roster, (uint32_t)section->id))
        return (uint32_t)section->id;
    if (section || !is_section_id(&broker->config, number))
        return number;
    return free_number(broker, roster, &number) < 0 ? entry->number : number;
}

void roster_reconsider(struct broker *broker, struct roster *roster)
{
    for (size_t i = 0; i < roster->count; i++) {
        struct roster_entry *entry = &roster->entries[i];
        const struct config_domain *section =
            section_of(&broker->config, entry->uuid, entry->reported);
        uint32_t number = better_number(broker, roster, entry, section);
        if (is_gone(entry))
            continue;
        if (number != entry->number && is_in_use(broker, entry->number)) {
            log_warning(&broker->log,
                        "domain %u (%s) is in use and stays %u, although it should be %u now",
                        entry->number, entry->name, entry->number, number);
        } else if (number != entry->number) {
            withdraw(broker, entry->number);
            log_notice(&broker->log, "domain %u (%s) is domain %u now", entry->number, entry->name,
                       number);
            entry->number = number;
        }
        give_name(broker, roster, entry, section);
        if (publish(broker, entry) < 0)
            log_error(&broker->log, "domain %u (%s): out of memory", entry->number, entry->name);
    }
}
