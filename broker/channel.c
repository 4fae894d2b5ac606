/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ring/order.h"

static unsigned long hash_number(uint32_t number)
{
    return number * 0x9e3779b1ul;
}

/* A peer chooses ports, but only among few domains: a mixer will do (splitmix64's, by Vigna). */
unsigned long channel_key_hash(const struct channel_key *key)
{
    uint64_t x = ((uint64_t)key->server_domain << 48) ^ ((uint64_t)key->client_domain << 32) ^
                 key->port;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (unsigned long)(x ^ (x >> 31));
}

bool channel_key_equal(const struct channel_key *a, const struct channel_key *b)
{
    return a->server_domain == b->server_domain && a->client_domain == b->client_domain &&
           a->port == b->port;
}

static int matches_number(struct cds_lfht_node *node, const void *number)
{
    return caa_container_of(node, struct channel, by_number)->number == *(const uint32_t *)number;
}

static int matches_key(struct cds_lfht_node *node, const void *wanted)
{
    return channel_key_equal(&caa_container_of(node, struct channel, by_key)->key, wanted);
}

int channels_init(struct channels *channels, uint32_t channels_max)
{
    unsigned long buckets = 64;

    /* Of a fixed size: growing would need a thread of liburcu's, and there is a maximum. */
    while (buckets < channels_max)
        buckets *= 2;
    *channels = (struct channels){0};
    int r = doorbell_init(&channels->doorbell);
    if (r < 0)
        return r;
    r = mailbox_init(&channels->retired);
    if (r < 0) {
        doorbell_deinit(&channels->doorbell);
        return r;
    }
    channels->by_number = cds_lfht_new(buckets, buckets, buckets, 0, NULL);
    channels->by_key = cds_lfht_new(buckets, buckets, buckets, 0, NULL);
    if (channels->by_number && channels->by_key)
        return 0;
    channels_deinit(channels);
    return -ENOMEM;
}

void channels_deinit(struct channels *channels)
{
    if (channels->retired.event_fd > 0) {
        channels_reap(channels);
        mailbox_deinit(&channels->retired);
        doorbell_deinit(&channels->doorbell);
    }
    if (channels->by_number)
        cds_lfht_destroy(channels->by_number, NULL);
    if (channels->by_key)
        cds_lfht_destroy(channels->by_key, NULL);
    *channels = (struct channels){0};
}

static struct channel *number_at(struct cds_lfht_iter *iterator)
{
    struct cds_lfht_node *node = cds_lfht_iter_get_node(iterator);

    rcu_acquire();
    return node ? caa_container_of(node, struct channel, by_number) : NULL;
}

struct channel *channels_find(const struct channels *channels, uint32_t number)
{
    struct cds_lfht_iter iterator;

    rcu_enter();
    cds_lfht_lookup(channels->by_number, hash_number(number), matches_number, &number, &iterator);
    rcu_leave();
    return number_at(&iterator);
}

struct channel *channels_find_key(const struct channels *channels, const struct channel_key *key)
{
    struct cds_lfht_iter iterator;

    rcu_enter();
    cds_lfht_lookup(channels->by_key, channel_key_hash(key), matches_key, key, &iterator);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iterator);
    rcu_leave();
    return node ? caa_container_of(node, struct channel, by_key) : NULL;
}

struct channel *channels_first(const struct channels *channels, struct cds_lfht_iter *iterator)
{
    cds_lfht_first(channels->by_number, iterator);
    return number_at(iterator);
}

struct channel *channels_next(const struct channels *channels, struct cds_lfht_iter *iterator)
{
    cds_lfht_next(channels->by_number, iterator);
    return number_at(iterator);
}

static void free_view(struct rcu_head *head)
{
    rcu_acquire();
    free(caa_container_of(head, struct channel_ring_view, rcu));
}

void channel_ring_publish(struct channel *channel, unsigned index)
{
    struct channel_ring *ring = &channel->ring[index];
    struct channel_ring_view *old = ring->view;
    struct channel_ring_view *view = malloc(sizeof(*view));

    if (!view)
        return; /* readers, who only look, go on with what they have until the next change */
    *view = (struct channel_ring_view){
        .generation = ring->geometry.generation,
        .current = ring->geometry.current,
        .old = ring->geometry.old,
        .min_bytes = ring->min_bytes,
        .max_bytes = ring->max_bytes,
        .weight = ring->weight,
        .pin = ring->pin,
        .resizes = ring->resizes,
    };
    rcu_publish(ring->view, view);
    if (old)
        call_rcu(&old->rcu, free_view);
}

const struct channel_ring_view *channel_ring_view(const struct channel *channel, unsigned ring)
{
    return rcu_get(channel->ring[ring].view);
}

/* *doorbell: what a guest stores to ring it. */
static int take_wake(struct channel *channel, struct guest *const guest[2], unsigned index,
                     uint32_t *doorbell)
{
    struct channel_end *end = &channel->end[index];
    struct guest *in = guest[index], *peer = guest[1 - index];

    *doorbell = LAYOUT_NO_DOORBELL;
    if (in || peer) {
        int r = guest_vector_take(in ? in : peer, !in, in ? peer : NULL, &end->vector, doorbell);
        if (r == 0)
            end->event_fd = end->vector.event_fd;
        return r;
    }
    end->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return end->event_fd < 0 ? -errno : 0;
}

static void give_wake(struct channel_end *end)
{
    if (end->vector.guest)
        guest_vector_give(&end->vector);
    else if (end->event_fd >= 0)
        close(end->event_fd);
    end->event_fd = -1;
}

static void fill_page(const struct channel *channel, bool fence_sleep, const uint32_t doorbell[2])
{
    struct layout_channel *line = &channel->page->channel;

    line->fence_sleep = fence_sleep;
    line->server_domain = channel->key.server_domain;
    line->client_domain = channel->key.client_domain;
    line->port = channel->key.port;
    line->incarnation = channel->incarnation;
    line->server_doorbell = doorbell[CHANNEL_SERVER];
    line->client_doorbell = doorbell[CHANNEL_CLIENT];
}

static int take_ring(struct channel *channel, const struct channel_wishes *wishes, unsigned index)
{
    struct channel_ring *ring = &channel->ring[index];
    struct ring_extent extent;

    ring->sender_domain = index == LAYOUT_SERVER_SENDS ? channel->key.server_domain
                                                       : channel->key.client_domain;
    ring->receiver_domain = index == LAYOUT_SERVER_SENDS ? channel->key.client_domain
                                                         : channel->key.server_domain;
    ring->floor_bytes = ring->min_bytes = wishes->min_bytes[index];
    ring->max_bytes = wishes->max_bytes[index];
    ring->weight = wishes->weight;
    int r = zone_extent_take(channel->zone, ring->sender_domain, ring->min_bytes,
                             zone_cookie(channel->number, index), &extent);
    if (r < 0)
        return r;
    ring_geometry_init(&ring->geometry, &channel->page->ring[index], extent);
    channel_ring_publish(channel, index);
    return ring->view ? 0 : -ENOMEM;
}

/* Everything but the record, which the page number depends on. */
static int take_all(struct channel *channel, const struct channel_wishes *wishes, unsigned *ring)
{
    uint32_t doorbell[2];
    int r;

    *ring = 2;
    r = zone_page_take(channel->zone, &channel->slot, &channel->incarnation);
    if (r < 0)
        return r;
    channel->number = channel->zone->first_number + channel->slot;
    channel->page = region_page(&channel->zone->region, channel->slot);
    for (unsigned end = 0; end < 2; end++) {
        r = take_wake(channel, wishes->guest, end, &doorbell[end]);
        if (r < 0)
            return r;
    }
    fill_page(channel, wishes->fence_sleep, doorbell);
    for (unsigned index = 0; index < 2; index++) {
        *ring = index;
        r = take_ring(channel, wishes, index);
        if (r < 0)
            return r;
    }
    return 0;
}

static void retire(struct rcu_head *head)
{
    rcu_acquire();
    struct channel *channel = caa_container_of(head, struct channel, rcu);

    mailbox_post(&channel->channels->retired, &channel->retired);
}

static void reap(struct channel *channel)
{
    if (channel->page && !channel->abandoned)
        zone_page_trim(channel->zone, channel->slot, channel->incarnation);
    free(channel->ring[0].view);
    free(channel->ring[1].view);
    free(channel);
}

void channels_reap(struct channels *channels)
{
    struct mailbox_letter *letter;

    mailbox_acknowledge(&channels->retired);
    while ((letter = mailbox_take(&channels->retired)))
        reap(caa_container_of(letter, struct channel, retired));
}

static void give_extents_and_page(struct channel *channel)
{
    for (unsigned index = 0; index < 2; index++) {
        struct ring_geometry *geometry = &channel->ring[index].geometry;
        if (geometry->old.size > 0)
            zone_extent_give(channel->zone, &geometry->old);
        if (geometry->current.size > 0)
            zone_extent_give(channel->zone, &geometry->current);
    }
    if (channel->page) {
        order_store_release(&channel->page->channel.state, LAYOUT_CHANNEL_FREE);
        zone_page_give(channel->zone, channel->slot);
    }
}

static void drop_record(struct channel *channel)
{
    for (unsigned end = 0; end < 2; end++)
        give_wake(&channel->end[end]);
    call_rcu(&channel->rcu, retire);
}

static void set_state(struct channel *channel, uint32_t state)
{
    order_store_plain(&channel->state, state);
    order_store_release(&channel->page->channel.state, state);
}

int channel_new(struct channels *channels, struct zone *zone, const struct channel_key *key,
                const struct channel_wishes *wishes, uint64_t now_ns, struct channel **out,
                unsigned *ring)
{
    struct channel *channel = calloc(1, sizeof(*channel));

    if (!channel)
        return -ENOMEM;
    channel->channels = channels;
    channel->zone = zone;
    channel->key = *key;
    channel->opened_ns = now_ns;
    channel->end[0].event_fd = channel->end[1].event_fd = -1;
    int r = take_all(channel, wishes, ring);
    if (r < 0) {
        give_extents_and_page(channel);
        drop_record(channel);
        return r;
    }
    set_state(channel, LAYOUT_CHANNEL_WAITING);
    channel->served = true;
    order_store_plain(&channels->count, channels->count + 1);
    rcu_enter();
    rcu_release();
    cds_lfht_add(channels->by_key, channel_key_hash(key), &channel->by_key);
    cds_lfht_add(channels->by_number, hash_number(channel->number), &channel->by_number);
    rcu_leave();
    *out = channel;
    return 0;
}

static void stop_serving(struct channel *channel)
{
    if (!channel->served)
        return;
    channel->served = false;
    rcu_enter();
    cds_lfht_del(channel->channels->by_key, &channel->by_key);
    rcu_leave();
}

static void leave_tables(struct channel *channel)
{
    stop_serving(channel);
    rcu_enter();
    cds_lfht_del(channel->channels->by_number, &channel->by_number);
    rcu_leave();
    order_store_plain(&channel->channels->count, channel->channels->count - 1);
}

void channel_free(struct channel *channel)
{
    leave_tables(channel);
    give_extents_and_page(channel);
    drop_record(channel);
}

void channel_abandon(struct channel *channel)
{
    leave_tables(channel);
    channel->abandoned = true;
    drop_record(channel);
}

void channel_attach(struct channel *channel, unsigned end, struct connection *connection,
                    uint32_t pid)
{
    struct layout_channel *line = &channel->page->channel;

    channel->end[end].connection = connection;
    order_store_plain(&channel->end[end].pid, pid);
    if (end == CHANNEL_SERVER) {
        order_store_plain(&line->server_pid, pid);
    } else {
        order_store_plain(&line->client_pid, pid);
        set_state(channel, LAYOUT_CHANNEL_CONNECTED);
        channel_wake(channel, CHANNEL_SERVER);
    }
}

/* The end will not run again, so its lines are the broker's: it sleeps no more, and its peer need
 * not ring. */
static void close_sleep_lines(struct channel *channel, unsigned end)
{
    order_store_release(&channel->page->ring[end].producer_sleep.closed, 1);
    order_store_release(&channel->page->ring[1 - end].consumer_sleep.closed, 1);
}

static void set_gone(struct channel *channel, uint32_t bits)
{
    order_store_plain(&channel->gone, channel->gone | bits);
    order_store_release(&channel->page->channel.gone, channel->gone);
}

bool channel_detach(struct channel *channel, unsigned end)
{
    unsigned other = 1 - end;

    channel->end[end].connection = NULL;
    if (end == CHANNEL_SERVER)
        stop_serving(channel);
    if (!channel->end[other].connection)
        return true;
    /* Of the guest's numbers, or the host's for that guest, there are few. */
    if (channel->end[end].vector.guest)
        give_wake(&channel->end[end]);
    close_sleep_lines(channel, end);
    set_gone(channel, end == CHANNEL_SERVER ? LAYOUT_GONE_SERVER : LAYOUT_GONE_CLIENT);
    channel_wake(channel, other);
    return false;
}

void channel_close(struct channel *channel, int reason, uint32_t gone)
{
    stop_serving(channel);
    if (channel->reason == 0) {
        order_store_plain(&channel->reason, reason);
        order_store_plain(&channel->page->channel.reason, reason);
    }
    set_gone(channel, gone);
    set_state(channel, LAYOUT_CHANNEL_CLOSED);
    channel_wake(channel, CHANNEL_SERVER);
    channel_wake(channel, CHANNEL_CLIENT);
}

void channel_wake(struct channel *channel, unsigned end)
{
    if (channel->end[end].deaf || channel->end[end].event_fd < 0 ||
        doorbell_ring(&channel->channels->doorbell, channel->end[end].event_fd))
        return;
    /* One of the two ends wants us to hang, and once was enough. */
    channel->end[end].deaf = true;
    channel_close(channel, EPROTO, 0);
}

unsigned channel_ring_dead(const struct channel *channel, unsigned ring)
{
    const uint32_t producer_gone = ring == LAYOUT_SERVER_SENDS ? LAYOUT_GONE_SERVER
                                                               : LAYOUT_GONE_CLIENT;
    const uint32_t consumer_gone = ring == LAYOUT_SERVER_SENDS ? LAYOUT_GONE_CLIENT
                                                               : LAYOUT_GONE_SERVER;

    return (channel->gone & producer_gone ? RING_PRODUCER_DEAD : 0) |
           (channel->gone & consumer_gone ? RING_CONSUMER_DEAD : 0);
}
