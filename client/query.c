/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/query.c - what the broker knows: channels and domains, page by page.
 */
#include <stdlib.h>
#include <string.h>

#include "client/channel.h"

#define QUERY_TIMEOUT_MS 10000

/* The two replies to the greeting; *domain becomes what the broker says. */
static int take_greeting(struct connection *connection, uint32_t *domain)
{
    struct patience patience = {.timeout_ms = QUERY_TIMEOUT_MS};
    struct proto_hello_reply reply;
    struct proto_message message;
    int r = 0;

    for (uint32_t seq = 1; seq <= connection->seq && r == 0; seq++) {
        r = connection_receive(connection, &message, &patience);
        if (r < 0)
            return r;
        r = connection_verdict(&message, message.header.id);
        if (r < 0)
            connection_explain(connection);
        memcpy(&reply, connection_body(&message), sizeof(reply));
        if (r == 0 && message.header.id == PROTO_HELLO)
            *domain = reply.domain;
        proto_message_close(&message);
    }
    return r;
}

static int query_open(struct connection *connection, const struct vchan_options *options,
                      uint32_t *domain)
{
    const char *path = options ? options->socket_path : NULL;
    int r;

    explain("%s", "");
    r = channel_local_domain(options);
    if (r < 0)
        return r;
    *domain = (uint32_t)r;
    r = connection_open(connection, path);
    if (r < 0)
        return r;
    r = connection_greet(connection, *domain);
    if (r == 0)
        r = take_greeting(connection, domain);
    if (r < 0)
        connection_close(connection);
    return r;
}

int vchan_local_domain(const struct vchan_options *options)
{
    struct connection connection;
    uint32_t domain;
    int r = query_open(&connection, options, &domain);

    if (r < 0)
        return r;
    connection_close(&connection);
    return domain <= PROTO_DOMAIN_MAX ? (int)domain : -EPROTO;
}

/*
 * Walks a list: `take` is called for each item of item_bytes, a copy that is aligned. Its value
 * other than 0 ends the walk and is returned.
 */
static int walk(struct connection *connection, uint16_t id, size_t item_bytes,
                int (*take)(const void *item, void *context), void *context)
{
    struct patience patience = {.timeout_ms = QUERY_TIMEOUT_MS};
    struct proto_list list = {.channel = PROTO_ANY};
    struct proto_list_reply reply;
    struct proto_message message;
    int r;

    do {
        r = connection_call(connection, id, &list, sizeof(list), &message, &patience);
        if (r < 0) {
            connection_explain(connection);
            return r;
        }
        memcpy(&reply, connection_body(&message), sizeof(reply));
        if (reply.item_bytes != item_bytes ||
            sizeof(struct proto_error) + sizeof(reply) + reply.count * (uint64_t)item_bytes !=
                message.header.size)
            return -EPROTO;
        const uint8_t *items = message.body + sizeof(struct proto_error) + sizeof(reply);
        for (uint32_t i = 0; i < reply.count && r == 0; i++)
            r = take(items + i * item_bytes, context);
        list.cursor = reply.next;
    } while (r == 0 && reply.next != 0);
    return r;
}

/*
 * Items lie in messages behind headers that are multiples of 8 bytes, in a body that is aligned to
 * 8.
 */
static_assert(sizeof(struct proto_error) % 8 == 0 && sizeof(struct proto_list_reply) % 8 == 0 &&
                  sizeof(struct proto_channel_info) % 8 == 0 &&
                  sizeof(struct proto_ring_info) % 8 == 0 &&
                  sizeof(struct proto_domain_info) % 8 == 0,
              "items are aligned");

struct rings {
    struct proto_ring_info *all;
    size_t count, room;
};

static int take_ring(const void *item, void *context)
{
    struct rings *rings = context;

    if (rings->count == rings->room) {
        size_t room = rings->room ? 2 * rings->room : 64;
        struct proto_ring_info *all = realloc(rings->all, room * sizeof(*all));
        if (!all)
            return -ENOMEM;
        rings->all = all;
        rings->room = room;
    }
    memcpy(&rings->all[rings->count++], item, sizeof(rings->all[0]));
    return 0;
}

static int compare_rings(const void *a, const void *b)
{
    const struct proto_ring_info *left = a, *right = b;

    if (left->channel != right->channel)
        return left->channel < right->channel ? -1 : 1;
    if (left->ring != right->ring)
        return left->ring < right->ring ? -1 : 1;
    if (left->incarnation != right->incarnation)
        return left->incarnation < right->incarnation ? -1 : 1;
    return 0;
}

static struct vchan_direction_statistics
direction(const struct rings *rings, const struct proto_channel_info *channel, uint32_t ring)
{
    const struct proto_ring_info key = {
        .channel = channel->channel, .ring = ring, .incarnation = channel->incarnation};
    const struct proto_ring_info *info =
        rings->count ? bsearch(&key, rings->all, rings->count, sizeof(key), compare_rings) : NULL;

    if (!info) /* opened between the two lists */
        return (struct vchan_direction_statistics){0};
    return (struct vchan_direction_statistics){
        .generation = info->generation,
        .size_bytes = info->size_bytes,
        .held_bytes = info->bytes_held,
        .bytes_written = info->bytes_sent,
        .bytes_read = info->bytes_received,
        .writes = info->operations_sent,
        .reads = info->operations_received,
        .stalls = info->stalls,
        .stall_ns = info->stall_ns,
        .writer_sleeps = info->sender_sleeps,
        .reader_sleeps = info->receiver_sleeps,
        .writer_doorbells = info->sender_doorbells,
        .reader_doorbells = info->receiver_doorbells,
    };
}

struct channel_walk {
    struct rings rings;
    uint32_t domain;
    int all;
    int (*each)(const struct vchan_channel_item *item, void *context);
    void *context;
};

static int take_channel(const void *item, void *context)
{
    const struct proto_channel_info *info = item;
    struct channel_walk *walk = context;

    if (!walk->all && info->server_domain != walk->domain && info->client_domain != walk->domain)
        return 0;
    const struct vchan_channel_item out = {
        .server_domain = (int)info->server_domain,
        .client_domain = (int)info->client_domain,
        .port = (int)info->port,
        .connected = info->state == LAYOUT_CHANNEL_CONNECTED && info->gone == 0,
        .number = info->channel,
        .ring = {direction(&walk->rings, info, LAYOUT_SERVER_SENDS),
                 direction(&walk->rings, info, LAYOUT_CLIENT_SENDS)},
    };
    return walk->each(&out, walk->context);
}

int vchan_each_channel(const struct vchan_options *options, int all,
                       int (*each)(const struct vchan_channel_item *item, void *context),
                       void *context)
{
    struct channel_walk state = {.all = all, .each = each, .context = context};
    struct connection connection;
    int r = query_open(&connection, options, &state.domain);

    if (r < 0)
        return r;
    r = walk(&connection, PROTO_LIST_RINGS, sizeof(struct proto_ring_info), take_ring,
             &state.rings);
    if (r == 0) {
        if (state.rings.count)
            qsort(state.rings.all, state.rings.count, sizeof(state.rings.all[0]), compare_rings);
        r = walk(&connection, PROTO_LIST_CHANNELS, sizeof(struct proto_channel_info), take_channel,
                 &state);
    }
    free(state.rings.all);
    connection_close(&connection);
    return r;
}

struct domain_walk {
    int (*each)(const struct vchan_domain_item *item, void *context);
    void *context;
};

static int take_domain(const void *item, void *context)
{
    const struct proto_domain_info *info = item;
    const struct domain_walk *walk = context;
    char name[PROTO_NAME_BYTES + 1] = "";

    memcpy(name, info->name, PROTO_NAME_BYTES);
    const struct vchan_domain_item out = {
        .domain = (int)info->domain, .name = name, .running = info->state == PROTO_DOMAIN_RUNNING};
    return walk->each(&out, walk->context);
}

int vchan_each_domain(const struct vchan_options *options,
                      int (*each)(const struct vchan_domain_item *item, void *context),
                      void *context)
{
    struct domain_walk state = {.each = each, .context = context};
    struct connection connection;
    uint32_t domain;
    int r = query_open(&connection, options, &domain);

    if (r < 0)
        return r;
    r = walk(&connection, PROTO_LIST_DOMAINS, sizeof(struct proto_domain_info), take_domain,
             &state);
    connection_close(&connection);
    return r;
}
