/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/listing.h"

#include <string.h>

#include "broker/broker.h"
#include "broker/guest.h"
#include "broker/history.h"
#include "ring/order.h"

/* Numbers tried in one reader's section: a section delays call_rcu, so it is short. */
#define NUMBERS_A_SECTION 1024u
#define DOMAINS (PROTO_DOMAIN_MAX + 1u)

/* Adds items for one number; false when the page is full: it is tried again for the next page. */
typedef bool (*lister)(const struct broker *broker, uint32_t number, uint32_t asker,
                       uint64_t now_ns, struct listing *listing);

static void *add_item(struct listing *listing)
{
    if ((listing->reply.count + 1) * listing->reply.item_bytes > sizeof(listing->items))
        return NULL;
    return listing->items + listing->reply.count++ * listing->reply.item_bytes;
}

static uint64_t held_by(const struct broker *broker, uint32_t domain)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < broker->zone_count; i++)
        bytes += zone_held_bytes(broker->zones[i], domain);
    return bytes;
}

void listing_fill_domain(const struct broker *broker, const struct domain *domain,
                         struct proto_domain_info *item)
{
    const uint32_t connections = order_load_plain(&domain->connections);
    const uint32_t guests = order_load_plain(&domain->guests);

    *item = (struct proto_domain_info){
        .domain = domain->number,
        .state = connections + guests > 0 ? PROTO_DOMAIN_RUNNING : PROTO_DOMAIN_CONFIGURED,
        .connections = connections,
        .channels = order_load_plain(&domain->channels),
        .guests = guests,
        .hypervisor = domain->hypervisor,
        .bytes_held = held_by(broker, domain->number),
        .quota_bytes = order_load_plain(&domain->quota_bytes),
    };
    memcpy(item->uuid, domain->uuid, sizeof(item->uuid));
    memcpy(item->name, domain->name, sizeof(item->name));
}

static bool list_domain(const struct broker *broker, uint32_t number, uint32_t asker,
                        uint64_t now_ns, struct listing *listing)
{
    const struct domain *domain = domains_find(&broker->domains, number);

    /* Names and states of domains are everybody's: they are needed to open a channel. */
    (void)asker;
    (void)now_ns;
    if (!domain)
        return true;
    struct proto_domain_info *item = add_item(listing);
    if (!item)
        return false;
    listing_fill_domain(broker, domain, item);
    return true;
}

static bool may_see(const struct channel *channel, uint32_t asker)
{
    return asker == PROTO_DOMAIN_HOST || channel->key.server_domain == asker ||
           channel->key.client_domain == asker;
}

static bool list_channel(const struct broker *broker, uint32_t number, uint32_t asker,
                         uint64_t now_ns, struct listing *listing)
{
    const struct channel *channel = channels_find(&broker->channels, number);

    if (!channel || !may_see(channel, asker))
        return true;
    struct proto_channel_info *item = add_item(listing);
    if (!item)
        return false;
    *item = (struct proto_channel_info){
        .channel = number,
        .state = order_load_plain(&channel->state),
        .server_domain = channel->key.server_domain,
        .client_domain = channel->key.client_domain,
        .port = channel->key.port,
        .server_pid = order_load_plain(&channel->end[CHANNEL_SERVER].pid),
        .client_pid = order_load_plain(&channel->end[CHANNEL_CLIENT].pid),
        .gone = order_load_plain(&channel->gone),
        .reason = order_load_plain(&channel->reason),
        .zone = channel->zone->index,
        .incarnation = channel->incarnation,
        .age_ns = now_ns - channel->opened_ns,
    };
    return true;
}

void listing_fill_ring(const struct channel *channel, unsigned index, uint64_t now_ns,
                       struct proto_ring_info *item)
{
    const struct channel_ring *ring = &channel->ring[index];
    const struct channel_ring_view *view = channel_ring_view(channel, index);
    const uint64_t active_ns = order_load_plain(&ring->active_ns);
    struct ring_sample sample;

    ring_sample_take(&channel->page->ring[index], view->current.size + view->old.size,
                     order_load_plain(&channel->page->ring[index].geometry.sample_epoch), &sample);
    *item = (struct proto_ring_info){
        .channel = channel->number,
        .ring = index,
        .sender_domain = ring->sender_domain,
        .receiver_domain = ring->receiver_domain,
        .sender_pid = order_load_plain(&channel->end[index].pid),
        .receiver_pid = order_load_plain(&channel->end[1 - index].pid),
        .port = channel->key.port,
        .flags = (sample.stalled ? PROTO_RING_STALLED : 0) |
                 (view->old.size > 0 ? PROTO_RING_MOVING : 0) |
                 (view->old.size > 0 && view->pin >= RING_PIN_PRODUCER ? PROTO_RING_PINNED : 0),
        .weight = view->weight,
        .channel_state = order_load_plain(&channel->state),
        .incarnation = channel->incarnation,
        .generation = view->generation,
        .offset_bytes = view->current.offset - channel->zone->region.data_offset,
        .size_bytes = view->current.size,
        .old_size_bytes = view->old.size,
        .min_bytes = view->min_bytes,
        .max_bytes = view->max_bytes,
        .bytes_held = sample.held_bytes,
        .high_water_bytes = sample.high_water_bytes,
        .bytes_sent = sample.sent_bytes,
        .bytes_received = sample.received_bytes,
        .operations_sent = sample.sent_operations,
        .operations_received = sample.received_operations,
        .stalls = sample.stalls,
        .stall_ns = sample.stall_ns,
        .sender_doorbells = sample.producer_doorbells,
        .receiver_doorbells = sample.consumer_doorbells,
        .sender_sleeps = sample.producer_sleeps,
        .receiver_sleeps = sample.consumer_sleeps,
        .idle_ns = active_ns == 0     ? UINT64_MAX
                 : now_ns > active_ns ? now_ns - active_ns
                                      : 0,
        .resizes = view->resizes,
    };
}

/* Both of a channel's, or none, so that a page ends between two channels. */
static bool list_rings(const struct broker *broker, uint32_t number, uint32_t asker,
                       uint64_t now_ns, struct listing *listing)
{
    const struct channel *channel = channels_find(&broker->channels, number);

    if (!channel || !may_see(channel, asker))
        return true;
    if ((listing->reply.count + 2) * sizeof(struct proto_ring_info) > sizeof(listing->items))
        return false;
    listing_fill_ring(channel, LAYOUT_SERVER_SENDS, now_ns, add_item(listing));
    listing_fill_ring(channel, LAYOUT_CLIENT_SENDS, now_ns, add_item(listing));
    return true;
}

/* number: of the zone, times DOMAINS, and the domain. */
static bool list_guest(const struct broker *broker, uint32_t number, uint32_t asker,
                       uint64_t now_ns, struct listing *listing)
{
    const struct guest *guest =
        guests_find(&broker->guests, broker->zones[number / DOMAINS], number % DOMAINS);

    (void)asker;
    if (!guest)
        return true;
    struct proto_guest_info *item = add_item(listing);
    if (!item)
        return false;
    *item = (struct proto_guest_info){
        .domain = guest->domain,
        .zone = guest->zone->index,
        .peer = guest->id,
        .state = order_load_plain(&guest->state),
        .vectors = order_load_plain(&guest->device_vectors),
        .flags = order_load_plain(&guest->flags),
        .sessions = order_load_plain(&guest->sessions),
        .mailboxes = order_load_plain(&guest->mailboxes),
        .age_ns = now_ns - guest->connected_ns,
        .qemu_pid = guest->qemu_pid,
    };
    for (size_t i = 0; i < sizeof(item->version); i++)
        item->version[i] = order_load_plain(&guest->version[i]);
    memcpy(item->zone_name, guest->zone->name, sizeof(item->zone_name));
    return true;
}

static void walk(const struct broker *broker, lister add, uint64_t first, uint64_t end,
                 uint32_t asker, uint64_t now_ns, struct listing *listing)
{
    uint64_t number = first;
    bool room = true;

    while (number < end && room) {
        const uint64_t pause = end - number > NUMBERS_A_SECTION ? number + NUMBERS_A_SECTION : end;
        rcu_enter();
        while (number < pause && (room = add(broker, (uint32_t)number, asker, now_ns, listing)))
            number++;
        rcu_leave();
    }
    listing->reply.next = number < end ? number : 0;
}

static void list_history(const struct broker *broker, const struct proto_list *request,
                         struct listing *listing)
{
    const size_t max = sizeof(listing->items) / sizeof(struct proto_decision);

    listing->reply = (struct proto_list_reply){.item_bytes = sizeof(struct proto_decision)};
    listing->reply.count = (uint32_t)history_read(
        broker->history, request->cursor, (void *)listing->items, max, &listing->reply.next);
}

static const struct {
    lister add;
    uint32_t item_bytes;
} lists[PROTO_COMMAND_MAX + 1] = {
    [PROTO_LIST_DOMAINS] = {list_domain, sizeof(struct proto_domain_info)},
    [PROTO_LIST_CHANNELS] = {list_channel, sizeof(struct proto_channel_info)},
    [PROTO_LIST_RINGS] = {list_rings, sizeof(struct proto_ring_info)},
    [PROTO_LIST_GUESTS] = {list_guest, sizeof(struct proto_guest_info)},
};

static uint64_t end_of(const struct broker *broker, unsigned id)
{
    switch (id) {
    case PROTO_LIST_DOMAINS:
        return DOMAINS;
    case PROTO_LIST_GUESTS:
        return (uint64_t)broker->zone_count * DOMAINS;
    default:
        return broker->channels_max;
    }
}

void listing_fill(const struct broker *broker, unsigned id, const struct proto_list *request,
                  uint32_t asker, uint64_t now_ns, struct listing *listing)
{
    const bool of_channels = id == PROTO_LIST_CHANNELS || id == PROTO_LIST_RINGS;

    if (id == PROTO_LIST_HISTORY) {
        list_history(broker, request, listing);
        return;
    }
    const uint64_t end = end_of(broker, id);
    uint64_t first = request->cursor, last = end;
    listing->reply = (struct proto_list_reply){.item_bytes = lists[id].item_bytes};
    if (of_channels && request->channel != PROTO_ANY) {
        if (first <= request->channel && request->channel < end)
            first = request->channel;
        last = first <= request->channel && request->channel < end ? first + 1 : first;
    }
    if (first < last)
        walk(broker, lists[id].add, first, last, asker, now_ns, listing);
}
