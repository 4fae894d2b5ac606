/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl domain list: the domains that can be VMs, joined with the devices that are there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/domain.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/table.h"
#include "client/ctl/text.h"

struct domain_listing {
    struct names names;
    struct broker_items guests; /* proto_guest_info */
};

static int compare_guests(const void *a, const void *b)
{
    const struct proto_guest_info *x = a, *y = b;

    return x->domain != y->domain ? (x->domain > y->domain) - (x->domain < y->domain)
                                  : (x->zone > y->zone) - (x->zone < y->zone);
}

int domain_guests(struct broker_link *link, struct broker_items *guests)
{
    int r = broker_link_list(link, PROTO_LIST_GUESTS, 0, PROTO_ANY, sizeof(struct proto_guest_info),
                             guests);

    if (r < 0)
        return r;
    broker_items_order(guests, sizeof(struct proto_guest_info), compare_guests);
    struct proto_guest_info *infos = guests->items;
    for (size_t i = 0; i < guests->count; i++) {
        text_clean(infos[i].version, sizeof(infos[i].version));
        text_clean(infos[i].zone_name, sizeof(infos[i].zone_name));
    }
    return 0;
}

static int load(struct domain_listing *listing, struct broker_link *link)
{
    int r = names_load(&listing->names, link);

    return r < 0 ? r : domain_guests(link, &listing->guests);
}

static void deinit(struct domain_listing *listing)
{
    names_deinit(&listing->names);
    broker_items_deinit(&listing->guests);
}

/* A local domain that nobody named is not of interest here. */
static bool can_be_vm(const struct proto_domain_info *domain)
{
    return domain->domain != PROTO_DOMAIN_HOST &&
           (domain->name[0] || domain->hypervisor || domain->guests);
}

static const struct proto_guest_info *next_guest(const struct domain_listing *listing,
                                                 uint32_t domain,
                                                 const struct proto_guest_info *last)
{
    const struct proto_guest_info *all = listing->guests.items;

    for (size_t i = last ? (size_t)(last - all) + 1 : 0; i < listing->guests.count; i++)
        if (all[i].domain == domain)
            return &all[i];
    return NULL;
}

static const char *device_word(const struct proto_guest_info *guest)
{
    return !guest ? "none" : guest->state == PROTO_GUEST_ATTACHED ? "attached" : "connected";
}

static void set_text(struct json *object, const char *key, const char *text)
{
    if (*text)
        json_set_text(object, key, text);
    else
        json_set_null(object, key);
}

static struct json *guest_json(const struct proto_guest_info *guest)
{
    struct json *object = json_new_object();

    json_set_text(object, "zone", guest->zone_name);
    json_set_text(object, "device", device_word(guest));
    json_set_number(object, "peer", guest->peer);
    json_set_number(object, "vectors", guest->vectors);
    json_set_boolean(object, "polls", guest->flags & PROTO_AGENT_POLLS);
    json_set_number(object, "sessions", guest->sessions);
    json_set_number(object, "mailboxes", guest->mailboxes);
    json_set_number(object, "age_ns", guest->age_ns);
    json_set_number(object, "qemu_pid", guest->qemu_pid);
    set_text(object, "agent_version", guest->version);
    return object;
}

static int write_json(const struct domain_listing *listing)
{
    const struct proto_domain_info *domains = listing->names.domains.items;
    struct json *object = json_new_object(), *array = json_new_array();

    for (size_t i = 0; i < listing->names.domains.count; i++) {
        const struct proto_guest_info *guest = NULL;
        struct json *item, *devices;
        if (!can_be_vm(&domains[i]))
            continue;
        item = json_new_object();
        devices = json_new_array();
        json_set_number(item, "domain", domains[i].domain);
        set_text(item, "name", domains[i].name);
        set_text(item, "uuid", names_uuid(domains[i].uuid).text);
        set_text(item, "libvirt", domain_state_word(domains[i].hypervisor));
        while ((guest = next_guest(listing, domains[i].domain, guest)))
            json_push(devices, guest_json(guest));
        json_set(item, "devices", devices);
        json_push(array, item);
    }
    json_set(object, "domains", array);
    return json_write(object, stdout, true);
}

static void add_row(struct table *table, const struct domain_listing *listing,
                    const struct proto_domain_info *domain, const struct proto_guest_info *guest)
{
    table_add(table, "%u", domain->domain);
    table_add(table, "%s", names_text(&listing->names, domain->domain).text);
    table_add(table, "%s", domain_state_word(domain->hypervisor));
    table_add(table, "%s", guest ? guest->zone_name : "");
    table_add(table, "%s", device_word(guest));
    table_add(table, "%s%s", guest ? guest->version : "",
              guest && (guest->flags & PROTO_AGENT_POLLS) ? " (polls)" : "");
    for (int i = 0; !guest && i < 4; i++)
        table_add(table, "%s", "");
    if (!guest)
        return;
    table_add(table, "%u", guest->vectors);
    table_add(table, "%u", guest->sessions);
    table_add(table, "%s", quantity_duration(guest->age_ns).text);
    table_add(table, "%u", guest->qemu_pid);
}

static int write_table(const struct domain_listing *listing, bool bold)
{
    static const struct table_column columns[] = {
        {"DOMAIN", TABLE_RIGHT},   {"NAME", TABLE_LEFT},      {"LIBVIRT", TABLE_LEFT},
        {"ZONE", TABLE_LEFT},      {"DEVICE", TABLE_LEFT},    {"AGENT", TABLE_LEFT},
        {"VECTORS", TABLE_RIGHT},  {"SESSIONS", TABLE_RIGHT}, {"AGE", TABLE_RIGHT},
        {"QEMU-PID", TABLE_RIGHT},
    };
    const struct proto_domain_info *domains = listing->names.domains.items;
    struct table table;

    table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < listing->names.domains.count; i++) {
        const struct proto_guest_info *guest;
        if (!can_be_vm(&domains[i]))
            continue;
        guest = next_guest(listing, domains[i].domain, NULL);
        do {
            add_row(&table, listing, &domains[i], guest);
            guest = guest ? next_guest(listing, domains[i].domain, guest) : NULL;
        } while (guest);
    }
    int r = table_print(&table, stdout, bold);
    table_deinit(&table);
    return r;
}

int domain_list(struct ctl *ctl)
{
    struct domain_listing listing = {0};
    int r = load(&listing, &ctl->link);

    if (r == 0)
        r = ctl->json ? write_json(&listing) : write_table(&listing, ctl->colour);
    deinit(&listing);
    return r < 0 ? ctl_fail(ctl, r, "cannot list the virtual machines") : CTL_OK;
}
