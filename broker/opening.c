/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/opening.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/meeting.h"
#include "broker/mover.h"
#include "broker/shortage.h"

/* Runs that an opening waits for, one after the other, before it is refused. */
#define ROOM_ASKED_MAX 2u

/* Where the opener's wishes go: what the server receives is what the client sends. */
static unsigned sends_in(unsigned end)
{
    return end;
}

static unsigned receives_in(unsigned end)
{
    return 1 - end;
}

static void reply_open(struct connection *connection, uint32_t seq)
{
    const struct channel *channel = connection->channel;
    const struct region *region = &channel->zone->region;
    const unsigned end = connection->end;
    struct proto_channel_open_reply reply = {
        .channel = channel->number,
        .role = end == CHANNEL_SERVER ? PROTO_OPEN_SERVER : PROTO_OPEN_CLIENT,
        .incarnation = channel->incarnation,
        .region_bytes = region->size_bytes,
        .page_offset = region_page_offset(region, channel->slot),
        .data_offset = region->data_offset,
        .features = region->features,
        .receive_min = channel->ring[receives_in(end)].min_bytes,
        .send_min = channel->ring[sends_in(end)].min_bytes,
        .doorbell_offset = PROTO_NO_OFFSET,
        .vector = connection->guest ? channel->end[end].vector.number : 0,
    };
    const int descriptors[] = {region->descriptor, channel->end[end].event_fd,
                               channel->end[1 - end].event_fd};

    memcpy(reply.zone_uuid, region->uuid, sizeof(reply.zone_uuid));
    connection_reply_descriptors(connection, PROTO_CHANNEL_OPEN, seq, &reply, sizeof(reply),
                                 descriptors, connection->guest ? 0 : 3);
}

static void join(struct connection *connection, struct channel *channel, unsigned end)
{
    waitlist_remove(&connection->waiter);
    connection->channel = channel;
    connection->end = end;
    connection->state = CONNECTION_OPEN;
    channel_attach(channel, end, connection, connection->pid);
    broker_channel_joined(connection->broker, channel, end);
}

/* A maximum is whole blocks, and not below the minimum. */
static uint64_t round_max(uint64_t bytes, uint64_t min_bytes)
{
    const uint64_t rounded = zone_round_down(bytes);

    return rounded > min_bytes ? rounded : min_bytes;
}

/* The client's wishes for what is open already: the smaller maximum counts, and its weight for what
 * it sends. */
static void take_client_wishes(struct channel *channel, const struct proto_channel_open *open)
{
    const uint64_t max_bytes[2] = {
        [LAYOUT_SERVER_SENDS] = open->receive_max, [LAYOUT_CLIENT_SENDS] = open->send_max};

    for (unsigned i = 0; i < 2; i++) {
        struct channel_ring *ring = &channel->ring[i];
        if (max_bytes[i] > 0 && max_bytes[i] < ring->max_bytes)
            ring->max_bytes = round_max(max_bytes[i], ring->min_bytes);
        if (i == LAYOUT_CLIENT_SENDS && open->weight > 0)
            ring->weight = open->weight;
        channel_ring_publish(channel, i);
    }
}

/* Is the client where its doorbell rings? */
static bool suits(const struct connection *client, const struct channel *channel)
{
    return channel_end_in_guest(channel, CHANNEL_CLIENT) == (client->guest != NULL);
}

static int connect_client(struct connection *connection, uint32_t seq,
                          const struct proto_channel_open *open, struct channel *channel)
{
    const struct layout_channel *line = &channel->page->channel;

    if (!suits(connection, channel))
        return connection_refuse(
            connection, -EPERM, "domain %u has become a VM, and no process on the host can be that",
            connection->domain);
    if (!line->fence_sleep && !connection->barrier)
        return connection_refuse(
            connection, -EPERM,
            "the channel's ends rely on membarrier, and this client has not registered for it");
    take_client_wishes(channel, open);
    join(connection, channel, CHANNEL_CLIENT);
    reply_open(connection, seq);
    return 0;
}

/* The channel of that name that waits for this client, with a server that lives. */
static struct channel *find_waiting(const struct connection *client, const struct channel_key *key)
{
    struct channel *channel = channels_find_key(&client->broker->channels, key);

    if (!channel || channel->state != LAYOUT_CHANNEL_WAITING)
        return NULL;
    if (!connection_is_alive(channel->end[CHANNEL_SERVER].connection))
        connection_doom(channel->end[CHANNEL_SERVER].connection, NULL);
    else if (!suits(client, channel))
        channel_close(channel, 0, LAYOUT_GONE_CLIENT);
    else
        return channel;
    return NULL;
}

/* A server has come: whoever waits longest for one of its name gets it. */
static void serve_waiter(struct broker *broker, struct channel *channel)
{
    struct waiter *waiter;

    while (channel->state == LAYOUT_CHANNEL_WAITING &&
           (waiter = waitlist_first(&broker->waitlist, &channel->key))) {
        struct connection *client = caa_container_of(waiter, struct connection, waiter);
        if (!connection_is_alive(client)) {
            connection_doom(client, NULL);
            continue;
        }
        const uint32_t seq = client->waiter_seq;
        int r = connect_client(client, seq, &client->waiter_open, channel);
        if (r < 0) {
            connection_leave(client);
            connection_reply(client, PROTO_CHANNEL_OPEN, seq, r, NULL, 0, NULL, 0);
        }
    }
}

/* 0 is the default. Zero when there is no such size. */
static uint64_t round_min(uint64_t bytes)
{
    uint64_t rounded = LAYOUT_BLOCK_BYTES;

    while (rounded < bytes && rounded)
        rounded *= 2;
    return rounded;
}

static int make_wishes(struct connection *connection, const struct proto_channel_open *open,
                       const struct meeting *meeting, struct channel_wishes *wishes)
{
    const struct broker *broker = connection->broker;
    const struct zone *zone = meeting->zone;

    wishes->min_bytes[LAYOUT_SERVER_SENDS] = round_min(open->send_min);
    wishes->min_bytes[LAYOUT_CLIENT_SENDS] = round_min(open->receive_min);
    wishes->max_bytes[LAYOUT_SERVER_SENDS] = open->send_max;
    wishes->max_bytes[LAYOUT_CLIENT_SENDS] = open->receive_max;
    wishes->weight = open->weight ? open->weight : 100;
    wishes->guest[CHANNEL_SERVER] = meeting->guest[CHANNEL_SERVER];
    wishes->guest[CHANNEL_CLIENT] = meeting->guest[CHANNEL_CLIENT];
    wishes->fence_sleep = meeting->guest[CHANNEL_SERVER] || meeting->guest[CHANNEL_CLIENT] ||
                          !(broker->barrier_works && connection->barrier);
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t min_bytes = wishes->min_bytes[i];
        if (min_bytes == 0 || min_bytes > zone->region.data_bytes)
            return connection_refuse(connection, -ENOSPC,
                                     "a ring of that size can never be: the region holds %" PRIu64
                                     " bytes for all",
                                     zone->region.data_bytes);
        if (wishes->max_bytes[i] == 0)
            wishes->max_bytes[i] = broker->config.ring_max_bytes;
        wishes->max_bytes[i] = round_max(wishes->max_bytes[i], min_bytes);
    }
    return 0;
}

/* Is the name free? A server that died just now does not count. */
static int check_unserved(struct connection *connection, const struct channel_key *key)
{
    const struct channel *channel = channels_find_key(&connection->broker->channels, key);

    if (!channel)
        return 0;
    struct connection *server = channel->end[CHANNEL_SERVER].connection;
    if (!connection_is_alive(server)) {
        connection_doom(server, NULL);
        return 0;
    }
    return connection_refuse(connection, -EADDRINUSE,
                             "port %u for domain %u is served by pid %u already", key->port,
                             key->client_domain, server->pid);
}

static int open_now(struct connection *connection, uint32_t seq,
                    const struct proto_channel_open *open);

/* Rings have been moved for this opening: it is tried anew, as the world is now. */
static void on_room(struct compaction_demand *demand, int error)
{
    struct connection *connection = demand->data;
    const uint32_t seq = connection->waiter_seq;

    connection_leave(connection);
    if (error < 0)
        connection->room_asked = ROOM_ASKED_MAX; /* and then says what is missing */
    int r = open_now(connection, seq, &connection->waiter_open);
    if (r < 0)
        connection_reply(connection, PROTO_CHANNEL_OPEN, seq, r, NULL, 0, NULL, 0);
}

/*
 * There is no run for this ring. If only fragmentation is in the way the opening waits until rings
 * have been moved: true. First for the one that found no place; if then the other one finds none,
 * for both in one run.
 */
static bool wait_for_room(struct connection *connection, uint32_t seq,
                          const struct proto_channel_open *open, struct zone *zone,
                          const struct channel_wishes *wishes, unsigned ring)
{
    const uint64_t both_bytes = wishes->min_bytes[0] + wishes->min_bytes[1];
    struct compaction_demand *room = &connection->room;

    if (connection->room_asked >= ROOM_ASKED_MAX ||
        allocator_room(zone->allocator, both_bytes / LAYOUT_BLOCK_BYTES) == ALLOCATOR_FULL)
        return false;
    *room = (struct compaction_demand){
        .zone = zone,
        .bytes = connection->room_asked == 0 ? wishes->min_bytes[ring] : both_bytes,
        .done = on_room,
        .data = connection,
    };
    snprintf(room->reason, sizeof(room->reason), "makes room for domain %u, which opens port %u",
             connection->domain, open->port);
    if (mover_await_room(connection->broker->mover, room) < 0)
        return false;
    connection->room_asked++;
    connection->waiter_seq = seq;
    connection->waiter_open = *open;
    connection->state = CONNECTION_WAITING;
    return true;
}

static int serve(struct connection *connection, uint32_t seq, const struct proto_channel_open *open,
                 const struct channel_key *key, const struct meeting *meeting)
{
    struct broker *broker = connection->broker;
    struct zone *zone = meeting->zone;
    struct channel_wishes wishes;
    struct channel *channel;
    unsigned ring;

    int r = check_unserved(connection, key);
    if (r < 0)
        return r;
    r = make_wishes(connection, open, meeting, &wishes);
    if (r < 0)
        return r;
    r = channel_new(&broker->channels, zone, key, &wishes, broker_now_ns(), &channel, &ring);
    if (r == -ENOSPC && ring < 2 && wait_for_room(connection, seq, open, zone, &wishes, ring))
        return 0;
    if (r < 0)
        return shortage_refuse(connection, r, zone, key, &wishes, ring);
    join(connection, channel, CHANNEL_SERVER);
    reply_open(connection, seq);
    if (connection->state == CONNECTION_OPEN)
        serve_waiter(broker, channel);
    return 0;
}

static int connect_or_wait(struct connection *connection, uint32_t seq,
                           const struct proto_channel_open *open, const struct channel_key *key)
{
    struct broker *broker = connection->broker;
    struct channel *channel = find_waiting(connection, key);

    if (channel)
        return connect_client(connection, seq, open, channel);
    if (open->flags & PROTO_OPEN_NONBLOCK)
        return connection_refuse(connection, -ENXIO,
                                 "no server of domain %u waits on port %u for domain %u",
                                 key->server_domain, key->port, key->client_domain);
    connection->waiter_seq = seq;
    connection->waiter_open = *open;
    connection->state = CONNECTION_WAITING;
    waitlist_add(&broker->waitlist, &connection->waiter, key);
    return 0;
}

static int open_now(struct connection *connection, uint32_t seq,
                    const struct proto_channel_open *open)
{
    const uint32_t me = connection->domain, peer = open->peer_domain;
    const struct channel_key i_serve = {
        .server_domain = me, .client_domain = peer, .port = open->port};
    const struct channel_key peer_serves = {
        .server_domain = peer, .client_domain = me, .port = open->port};
    struct meeting meeting;

    int r = meeting_find(connection, &i_serve, &meeting);
    if (r < 0)
        return r;
    switch (open->mode) {
    case PROTO_OPEN_SERVER:
        return serve(connection, seq, open, &i_serve, &meeting);
    case PROTO_OPEN_CLIENT:
        return connect_or_wait(connection, seq, open, &peer_serves);
    default: {
        struct channel *channel = find_waiting(connection, &peer_serves);
        return channel ? connect_client(connection, seq, open, channel)
                       : serve(connection, seq, open, &i_serve, &meeting);
    }
    }
}

/* A client that waits for a server there: as if it asked now. */
static void ask_again(struct waiter *waiter, void *data)
{
    struct connection *client = caa_container_of(waiter, struct connection, waiter);
    const struct guest *guest = data;
    const uint32_t seq = client->waiter_seq;
    struct meeting meeting;

    if (waiter->key.server_domain != guest->domain)
        return;
    int r = meeting_find(client, &waiter->key, &meeting);
    if (r == 0)
        return;
    connection_leave(client);
    connection_reply(client, PROTO_CHANNEL_OPEN, seq, r, NULL, 0, NULL, 0);
}

static uint32_t ends_in(const struct channel *channel, const struct guest *guest)
{
    uint32_t gone = 0;

    for (unsigned end = 0; end < 2; end++)
        if (channel_end_in_guest(channel, end) && channel->end[end].vector.guest == guest)
            gone |= end == CHANNEL_SERVER ? LAYOUT_GONE_SERVER : LAYOUT_GONE_CLIENT;
    return gone;
}

void opening_guest_gone(const struct guest *guest)
{
    struct broker *broker = guest->broker;
    struct cds_lfht_iter iterator;
    struct channel *channel;

    rcu_enter();
    for (channel = channels_first(&broker->channels, &iterator); channel;
         channel = channels_next(&broker->channels, &iterator)) {
        const uint32_t gone = ends_in(channel, guest);
        if (gone && channel->state != LAYOUT_CHANNEL_CLOSED)
            channel_close(channel, 0, gone);
    }
    rcu_leave();
    waitlist_each(&broker->waitlist, ask_again, (void *)(uintptr_t)guest);
}

int opening_request(struct connection *connection, uint32_t seq,
                    const struct proto_channel_open *open)
{
    connection->room_asked = 0;
    return open_now(connection, seq, open);
}
