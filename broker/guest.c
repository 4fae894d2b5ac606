/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/guest_mailbox.h"
#include "broker/opening.h"
#include "ring/order.h"

/* Fixed: growing would need a thread of liburcu's. */
#define TABLE_BUCKETS 256u

struct key {
    uint32_t zone; /* index */
    uint32_t domain;
};

static unsigned long hash(const struct key *key)
{
    return key->domain + key->zone * 97ul;
}

static int matches(struct cds_lfht_node *node, const void *data)
{
    const struct guest *guest = caa_container_of(node, struct guest, node);
    const struct key *key = data;

    return guest->zone->index == key->zone && guest->domain == key->domain;
}

int guests_init(struct guests *guests, uint32_t zone_count)
{
    *guests = (struct guests){
        .table = cds_lfht_new(TABLE_BUCKETS, TABLE_BUCKETS, TABLE_BUCKETS, 0, NULL),
        .numbers = calloc(zone_count, sizeof(*guests->numbers)),
    };
    if (guests->table && guests->numbers)
        return 0;
    guests_deinit(guests);
    return -ENOMEM;
}

void guests_deinit(struct guests *guests)
{
    if (guests->table)
        cds_lfht_destroy(guests->table, NULL);
    free(guests->numbers);
    *guests = (struct guests){0};
}

static void close_events(struct guest *guest)
{
    for (uint32_t i = 0; i < guest->vectors; i++) {
        if (guest->event[i] >= 0)
            close(guest->event[i]);
        if (guest->host_event[i] >= 0)
            close(guest->host_event[i]);
    }
}

static int make_events(struct guest *guest)
{
    for (uint32_t i = 0; i < guest->vectors; i++)
        guest->event[i] = guest->host_event[i] = -1;
    for (uint32_t i = 0; i < guest->vectors; i++) {
        guest->event[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (guest->event[i] >= 0)
            guest->host_event[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (guest->event[i] < 0 || guest->host_event[i] < 0) {
            int r = -errno;
            close_events(guest);
            return r;
        }
    }
    return 0;
}

/* The one that is free for the longest time, so that nobody takes a newcomer for who had it last.
 * 0: none is free. */
static uint32_t pick_number(const struct guest_numbers *numbers)
{
    uint32_t best = 0;

    for (uint32_t id = 1; id < REGION_PEERS; id++)
        if (!numbers->guest[id] && (best == 0 || numbers->left[id] < numbers->left[best]))
            best = id;
    return best;
}

static int count_in_domain(struct broker *broker, uint32_t number, int change)
{
    struct domain *domain;

    int r = domains_need(&broker->domains, number, &domain);
    if (r < 0)
        return r;
    order_store_plain(&domain->guests, domain->guests + (uint32_t)change);
    domains_settle(&broker->domains, domain);
    return 0;
}

/* Its entry of the table of peers, as if nobody had ever asked for a mailbox. */
static void clear_peer(const struct guest *guest)
{
    struct layout_peer *peer = region_peer(&guest->zone->region, guest->id);

    order_store_release(&peer->answered, 0u);
    order_store_plain(&peer->domain, guest->domain);
    order_store_plain(&peer->page_offset, (uint64_t)0);
    order_store_plain(&peer->incarnation, (uint64_t)0);
    order_store_plain(&peer->request, 0u);
}

static void publish(struct guests *guests, struct guest *guest)
{
    const struct key key = {guest->zone->index, guest->domain};

    guests->numbers[guest->zone->index].guest[guest->id] = guest;
    cds_lfht_node_init(&guest->node);
    rcu_enter();
    rcu_release();
    cds_lfht_add(guests->table, hash(&key), &guest->node);
    rcu_leave();
    order_store_plain(&guests->count, guests->count + 1);
}

int guest_new(struct broker *broker, struct zone *zone, uint32_t domain, uint32_t qemu_pid,
              struct guest **out)
{
    struct guests *guests = &broker->guests;
    const uint32_t id = pick_number(&guests->numbers[zone->index]);

    if (guests_find(guests, zone, domain))
        return -EBUSY;
    if (id == 0)
        return -ENOSPC;
    struct guest *guest = calloc(1, sizeof(*guest));
    if (!guest)
        return -ENOMEM;
    guest->broker = broker;
    guest->zone = zone;
    guest->domain = domain;
    guest->id = id;
    guest->qemu_pid = qemu_pid;
    guest->vectors = (uint32_t)broker->config.guest_vectors;
    guest->device_vectors = guest->vectors;
    guest->connected_ns = broker_now_ns();
    guest->state = PROTO_GUEST_CONNECTED;
    guest->arrival = ++guests->arrivals;
    guest->users = 1;
    CDS_INIT_LIST_HEAD(&guest->shared_ends);
    int r = make_events(guest);
    if (r == 0) {
        r = count_in_domain(broker, domain, 1);
        if (r < 0)
            close_events(guest);
    }
    if (r < 0) {
        free(guest);
        return r;
    }
    clear_peer(guest);
    publish(guests, guest);
    *out = guest;
    return 0;
}

static void free_record(struct rcu_head *head)
{
    rcu_acquire();
    free(caa_container_of(head, struct guest, rcu));
}

void guest_unuse(struct guest *guest)
{
    if (--guest->users > 0)
        return;
    close_events(guest);
    rcu_release();
    call_rcu(&guest->rcu, free_record);
}

void guest_free(struct guest *guest)
{
    struct guests *guests = &guest->broker->guests;
    struct guest_numbers *numbers = &guests->numbers[guest->zone->index];

    guest_mailbox_free(guest);
    rcu_enter();
    cds_lfht_del(guests->table, &guest->node);
    rcu_leave();
    order_store_plain(&guests->count, guests->count - 1);
    numbers->guest[guest->id] = NULL;
    numbers->left[guest->id] = ++guests->departures;
    clear_peer(guest);
    count_in_domain(guest->broker, guest->domain, -1);
    opening_guest_gone(guest);
    guest_unuse(guest);
}

struct guest *guests_by_id(const struct guests *guests, const struct zone *zone, uint32_t id)
{
    return guests->numbers[zone->index].guest[id];
}

static struct guest *at(struct cds_lfht_iter *iterator)
{
    struct cds_lfht_node *node = cds_lfht_iter_get_node(iterator);

    rcu_acquire();
    return node ? caa_container_of(node, struct guest, node) : NULL;
}

struct guest *guests_find(const struct guests *guests, const struct zone *zone, uint32_t domain)
{
    const struct key key = {zone->index, domain};
    struct cds_lfht_iter iterator;

    rcu_enter();
    cds_lfht_lookup(guests->table, hash(&key), matches, &key, &iterator);
    struct guest *guest = at(&iterator);
    rcu_leave();
    return guest;
}

struct guest *guests_find_domain(const struct guests *guests, uint32_t domain)
{
    struct cds_lfht_iter iterator;
    struct guest *guest;

    rcu_enter();
    for (guest = guests_first(guests, &iterator); guest; guest = guests_next(guests, &iterator))
        if (guest->domain == domain)
            break;
    rcu_leave();
    return guest;
}

struct guest *guests_first(const struct guests *guests, struct cds_lfht_iter *iterator)
{
    cds_lfht_first(guests->table, iterator);
    return at(iterator);
}

struct guest *guests_next(const struct guests *guests, struct cds_lfht_iter *iterator)
{
    cds_lfht_next(guests->table, iterator);
    return at(iterator);
}
