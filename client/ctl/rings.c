/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/rings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/layout.h"

static int compare_rings(const void *a, const void *b)
{
    const struct proto_ring_info *x = a, *y = b;

    if (x->channel != y->channel)
        return x->channel < y->channel ? -1 : 1;
    return (x->ring > y->ring) - (x->ring < y->ring);
}

int rings_load(struct broker_link *link, uint32_t channel, struct broker_items *rings)
{
    int r =
        broker_link_list(link, PROTO_LIST_RINGS, 0, channel, sizeof(struct proto_ring_info), rings);

    if (r == 0)
        broker_items_order(rings, sizeof(struct proto_ring_info), compare_rings);
    return r;
}

const struct proto_ring_info *rings_find(const struct broker_items *rings, uint32_t channel,
                                         uint32_t ring, uint64_t incarnation)
{
    struct proto_ring_info key = {.channel = channel, .ring = ring};
    const struct proto_ring_info *found = NULL;

    if (rings->count > 0)
        found = bsearch(&key, rings->items, rings->count, sizeof(key), compare_rings);
    return found && found->incarnation == incarnation ? found : NULL;
}

uint32_t ring_server_domain(const struct proto_ring_info *ring)
{
    return ring->ring == LAYOUT_SERVER_SENDS ? ring->sender_domain : ring->receiver_domain;
}

struct ring_flags_text ring_flags_text(uint32_t flags)
{
    struct ring_flags_text text;

    snprintf(text.text, sizeof(text.text), "%s%s%s", flags & PROTO_RING_STALLED ? " stalled" : "",
             flags & PROTO_RING_MOVING ? " moving" : "",
             flags & PROTO_RING_PINNED ? " pinned" : "");
    if (text.text[0])
        memmove(text.text, text.text + 1, strlen(text.text));
    return text;
}

struct channel_state_text channel_state_text(uint32_t state, uint32_t gone, int32_t reason)
{
    struct channel_state_text text;

    if (state == LAYOUT_CHANNEL_CLOSED && reason != 0)
        snprintf(text.text, sizeof(text.text), "closed: %s",
                 strerror(reason < 0 ? -reason : reason));
    else if (state == LAYOUT_CHANNEL_CLOSED)
        snprintf(text.text, sizeof(text.text), "closed");
    else if (gone)
        snprintf(text.text, sizeof(text.text), "%s gone",
                 gone & LAYOUT_GONE_SERVER ? "server" : "client");
    else
        snprintf(text.text, sizeof(text.text), "%s",
                 state == LAYOUT_CHANNEL_WAITING     ? "waiting"
                 : state == LAYOUT_CHANNEL_CONNECTED ? "connected"
                                                     : "free");
    return text;
}

static void set_counters(struct json *object, const struct proto_ring_info *ring)
{
    json_set_number(object, "bytes_sent", ring->bytes_sent);
    json_set_number(object, "bytes_received", ring->bytes_received);
    json_set_number(object, "operations_sent", ring->operations_sent);
    json_set_number(object, "operations_received", ring->operations_received);
    json_set_number(object, "stalls", ring->stalls);
    json_set_number(object, "stall_ns", ring->stall_ns);
    json_set_number(object, "sender_sleeps", ring->sender_sleeps);
    json_set_number(object, "receiver_sleeps", ring->receiver_sleeps);
    json_set_number(object, "sender_doorbells", ring->sender_doorbells);
    json_set_number(object, "receiver_doorbells", ring->receiver_doorbells);
    json_set_number(object, "resizes", ring->resizes);
    if (ring->idle_ns == UINT64_MAX)
        json_set_null(object, "idle_ns");
    else
        json_set_number(object, "idle_ns", ring->idle_ns);
}

struct json *ring_json(const struct proto_ring_info *ring, const struct names *names)
{
    struct json *object = json_new_object();

    json_set_number(object, "channel", ring->channel);
    json_set_number(object, "ring", ring->ring);
    json_set_number(object, "incarnation", ring->incarnation);
    json_set_number(object, "port", ring->port);
    json_set_text(object, "state", channel_state_text(ring->channel_state, 0, 0).text);
    names_set_json(names, object, "sender_domain", ring->sender_domain);
    json_set_number(object, "sender_pid", ring->sender_pid);
    names_set_json(names, object, "receiver_domain", ring->receiver_domain);
    json_set_number(object, "receiver_pid", ring->receiver_pid);
    json_set_number(object, "generation", ring->generation);
    json_set_number(object, "offset_bytes", ring->offset_bytes);
    json_set_number(object, "size_bytes", ring->size_bytes);
    json_set_number(object, "old_size_bytes", ring->old_size_bytes);
    json_set_number(object, "min_bytes", ring->min_bytes);
    json_set_number(object, "max_bytes", ring->max_bytes);
    json_set_number(object, "weight", ring->weight);
    json_set_number(object, "bytes_held", ring->bytes_held);
    json_set_number(object, "high_water_bytes", ring->high_water_bytes);
    set_counters(object, ring);
    json_set_boolean(object, "stalled", ring->flags & PROTO_RING_STALLED);
    json_set_boolean(object, "moving", ring->flags & PROTO_RING_MOVING);
    json_set_boolean(object, "pinned", ring->flags & PROTO_RING_PINNED);
    return object;
}
