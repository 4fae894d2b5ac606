/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/channel.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/bar.h"
#include "client/wait.h"

#define CLOSE_TIMEOUT_MS 1000
#define WINDOW_INITIAL_NS 50000u

/* The number in VCHAN_DOMAIN; unset or empty: 0. */
static int domain_from_environment(void)
{
    const char *text = getenv("VCHAN_DOMAIN");
    char *end;

    if (!text || !*text)
        return 0;
    errno = 0;
    long domain = strtol(text, &end, 10);
    if (errno || *end || domain < 0 || domain > (long)PROTO_DOMAIN_MAX) {
        explain("VCHAN_DOMAIN is \"%s\", not a domain number", text);
        return -EINVAL;
    }
    return (int)domain;
}

int channel_local_domain(const struct vchan_options *options)
{
    if (!options || options->local_domain == VCHAN_DOMAIN_FROM_ENVIRONMENT)
        return domain_from_environment();
    if (options->local_domain < 0 || options->local_domain > (int)PROTO_DOMAIN_MAX) {
        explain("domain %d is out of range (0 to %u)", options->local_domain, PROTO_DOMAIN_MAX);
        return -EINVAL;
    }
    return options->local_domain;
}

static int check_arguments(int peer_domain, int port, unsigned flags)
{
    unsigned mode = flags & VCHAN_OPEN_MODE;

    if (peer_domain < 0 || peer_domain > (int)PROTO_DOMAIN_MAX)
        explain("domain %d is out of range (0 to %u)", peer_domain, PROTO_DOMAIN_MAX);
    else if (port < 0)
        explain("port %d is negative", port);
    else if (mode == 0 || (flags & ~(VCHAN_OPEN_MODE | VCHAN_OPEN_NONBLOCK)))
        explain("flags 0x%x mean nothing", flags);
    else
        return 0;
    return -EINVAL;
}

static struct vchan *channel_new(int peer_domain, int port)
{
    struct vchan *v = aligned_alloc(_Alignof(struct vchan), sizeof(*v));

    if (!v)
        return NULL;
    memset(v, 0, sizeof(*v));
    v->connection.socket = v->memory.descriptor = v->own_event = v->peer_event = -1;
    v->watch = v->peer_pidfd = v->receiving.side.epoll = v->sending.side.epoll = -1;
    v->receiving.side.window_ns = v->sending.side.window_ns = WINDOW_INITIAL_NS;
    v->peer_domain = peer_domain;
    v->port = port;
    return v;
}

static int send_open(struct vchan *v, unsigned flags, const struct vchan_options *options)
{
    struct proto_channel_open open = {
        .peer_domain = (uint32_t)v->peer_domain,
        .port = (uint32_t)v->port,
        .mode = flags & VCHAN_OPEN_MODE,
        .flags = flags & VCHAN_OPEN_NONBLOCK ? PROTO_OPEN_NONBLOCK : 0,
    };

    static_assert(VCHAN_OPEN_SERVER == PROTO_OPEN_SERVER &&
                      VCHAN_OPEN_CLIENT == PROTO_OPEN_CLIENT &&
                      VCHAN_OPEN_RENDEZVOUS == PROTO_OPEN_RENDEZVOUS,
                  "the modes are the protocol's");
    if (options) {
        open.receive_min = options->receive_min;
        open.send_min = options->send_min;
        open.receive_max = options->receive_max;
        open.send_max = options->send_max;
        open.weight = options->weight;
    }
    return connection_request(&v->connection, PROTO_CHANNEL_OPEN, &open, sizeof(open),
                              &v->open_seq);
}

int vchan_open_start(int peer_domain, int port, unsigned flags, const struct vchan_options *options,
                     struct vchan **out)
{
    struct vchan *v;
    int r;

    explain("%s", "");
    r = check_arguments(peer_domain, port, flags);
    if (r < 0)
        return r;
    r = channel_local_domain(options);
    if (r < 0)
        return r;
    v = channel_new(peer_domain, port);
    if (!v)
        return -ENOMEM;
    v->local_domain = r;
    r = 0;
    if (options && options->socket_path) {
        v->socket_path = strdup(options->socket_path);
        r = v->socket_path ? 0 : -ENOMEM;
    }
    if (r == 0)
        r = connection_open(&v->connection, v->socket_path);
    /* All three requests in a row: one round trip. */
    if (r == 0)
        r = connection_greet(&v->connection, (uint32_t)v->local_domain);
    if (r == 0)
        r = send_open(v, flags, options);
    if (r < 0) {
        vchan_close(v);
        return r;
    }
    *out = v;
    return 0;
}

/* What rings the other end: the third descriptor; in a guest a page of BAR0. */
static int attach_doorbell(struct vchan *v, const struct proto_channel_open_reply *reply,
                           int third)
{
    int r;

    if (reply->doorbell_offset == PROTO_NO_OFFSET) {
        v->peer_event = third;
        return 0;
    }
    r = bar_map(v, third >= 0 ? third : v->memory.descriptor, reply->doorbell_offset);
    if (third >= 0)
        close(third);
    return r;
}

/* Takes the reply over: descriptors, page, rings. What is half done vchan_close undoes. */
static int attach(struct vchan *v, struct proto_message *message)
{
    struct proto_channel_open_reply reply;
    int r;

    memcpy(&reply, connection_body(message), sizeof(reply));
    if (reply.role != PROTO_OPEN_SERVER && reply.role != PROTO_OPEN_CLIENT)
        return -EPROTO;
    if (reply.doorbell_offset == PROTO_NO_OFFSET && message->descriptor_count < 3)
        return -EPROTO;
    v->memory = (struct ring_memory){
        .descriptor = message->descriptors[0],
        .descriptor_offset = reply.memory_offset,
        .size_bytes = reply.region_bytes,
        .data_offset = reply.data_offset,
    };
    v->own_event = message->descriptors[1];
    v->role = reply.role;
    v->incarnation = reply.incarnation;
    v->receive_min = reply.receive_min;
    v->send_min = reply.send_min;
    r = attach_doorbell(v, &reply, message->descriptor_count > 2 ? message->descriptors[2] : -1);
    message->descriptor_count = 0;
    if (r < 0)
        return r;
    r = ring_memory_map_page(&v->memory, reply.page_offset, &v->page);
    if (r < 0)
        return r;
    bool server = reply.role == PROTO_OPEN_SERVER;
    v->sending.side.ring = server ? LAYOUT_SERVER_SENDS : LAYOUT_CLIENT_SENDS;
    v->receiving.side.ring = server ? LAYOUT_CLIENT_SENDS : LAYOUT_SERVER_SENDS;
    ring_producer_init(&v->sending.ring, v->page, v->sending.side.ring, &v->memory, reply.features,
                       reply.send_min);
    ring_consumer_init(&v->receiving.ring, v->page, v->receiving.side.ring, &v->memory,
                       reply.features);
    v->open_seq = 0;
    return 0;
}

/* In a guest the agent knows better than the environment who we are. */
static void take_greeting(struct vchan *v, const struct proto_message *message)
{
    struct proto_hello_reply reply;

    if (message->header.id != PROTO_HELLO)
        return;
    memcpy(&reply, connection_body(message), sizeof(reply));
    if (reply.domain <= PROTO_DOMAIN_MAX)
        v->local_domain = (int)reply.domain;
}

/* One of the opening's replies. 1: it was the last. */
static int take_reply(struct vchan *v, struct proto_message *message)
{
    bool greeting = message->header.seq < v->open_seq;
    int r;

    if (message->header.seq > v->open_seq)
        return -EPROTO;
    r = connection_verdict(message, greeting ? message->header.id : PROTO_CHANNEL_OPEN);
    if (r < 0 && greeting)
        connection_explain_greeting(v->socket_path, (uint32_t)v->local_domain);
    else if (r < 0)
        connection_explain(&v->connection);
    if (r == 0 && greeting)
        take_greeting(v, message);
    if (r < 0 || greeting)
        return r;
    r = attach(v, message);
    return r < 0 ? r : 1;
}

int vchan_open_finish(struct vchan *v, int timeout_ms)
{
    struct patience patience = {.timeout_ms = timeout_ms};
    struct proto_message message;
    int r = 0;

    if (v->page)
        return 0;
    while (r == 0) {
        r = connection_receive(&v->connection, &message, &patience);
        if (r < 0)
            return r;
        r = take_reply(v, &message);
        proto_message_close(&message);
    }
    return r < 0 ? r : 0;
}

int vchan_open(int peer_domain, int port, unsigned flags, const struct vchan_options *options,
               struct vchan **out)
{
    struct vchan *v;
    int r = vchan_open_start(peer_domain, port, flags, options, &v);

    if (r < 0)
        return r;
    r = vchan_open_finish(v, VCHAN_FOREVER);
    if (r < 0) {
        vchan_close(v);
        return r;
    }
    *out = v;
    return 0;
}

bool channel_is_gone(const struct vchan *v)
{
    const struct layout_channel *channel = &v->page->channel;
    uint32_t state = order_load_acquire(&channel->state);
    uint32_t peer_bit = v->role == PROTO_OPEN_SERVER ? LAYOUT_GONE_CLIENT : LAYOUT_GONE_SERVER;

    if ((order_load_acquire(&channel->gone) & peer_bit) || state == LAYOUT_CHANNEL_CLOSED ||
        order_load_acquire(&v->peer_dead) || order_load_plain(&v->broken) ||
        (v->device && bar_is_revoked(v)))
        return true;
    if (state == LAYOUT_CHANNEL_WAITING)
        return order_load_acquire(&v->orphaned);
    return order_load_acquire(&channel_receiving_ring(v)->producer_sleep.closed) &&
           order_load_acquire(&channel_sending_ring(v)->consumer_sleep.closed);
}

bool channel_is_deserted(const struct vchan *v)
{
    if (order_load_acquire(&v->peer_dead) || (v->device && bar_is_revoked(v)))
        return true;
    return order_load_acquire(&v->orphaned) && channel_is_gone(v);
}

bool channel_is_connected(const struct vchan *v)
{
    return order_load_acquire(&v->page->channel.state) == LAYOUT_CHANNEL_CONNECTED &&
           !channel_is_gone(v);
}

static void ring_event(int event)
{
    const uint64_t one = 1;

    /* EAGAIN: the count is full, so whoever looks at it is awake. Nothing else can go wrong. */
    if (write(event, &one, sizeof(one)) < 0)
        return;
}

static void ring_other_end(const struct vchan *v)
{
    if (v->device)
        bar_ring(v);
    else
        ring_event(v->peer_event);
}

void channel_ring_peer(struct vchan *v, struct side *side)
{
    uint32_t report_every = order_load_plain(&v->page->ring[side->ring].geometry.report_every);

    ring_other_end(v);
    if (report_every == 0 || ++side->rings < report_every)
        return;
    side->rings = 0;
    const struct proto_event_ring event = {.ring = side->ring};
    connection_event(&v->connection, PROTO_EVENT_DOORBELLS, &event, sizeof(event));
}

void channel_wake_self(const struct vchan *v)
{
    ring_event(v->own_event);
}

int channel_break(struct vchan *v, const struct side *side)
{
    struct proto_event_broken event = {.ring = side->ring, .reason = -EPROTO};
    const char *text = side == &v->sending.side ? "rubbish from the receiving end"
                                                : "rubbish from the sending end";

    if (__atomic_exchange_n(&v->broken, true, __ATOMIC_SEQ_CST))
        return -EPROTO;
    order_store_plain(&v->receiving.side.refused, -EPROTO);
    order_store_plain(&v->sending.side.refused, -EPROTO);
    strcpy(event.text, text);
    connection_event(&v->connection, PROTO_EVENT_BROKEN, &event, sizeof(event));
    channel_wake_self(v); /* whoever sleeps on the other side */
    return -EPROTO;
}

int vchan_shutdown(struct vchan *v, unsigned directions)
{
    bool wake = false;

    if (directions & ~(VCHAN_RECEIVING | VCHAN_SENDING))
        return -EINVAL;
    if (v->device && channel_has_lost_page(v))
        return 0;
    if ((directions & VCHAN_RECEIVING) && !order_load_plain(&v->receiving.side.refused)) {
        order_store_plain(&v->receiving.side.refused, -EPIPE);
        wake |= ring_consumer_close(&v->receiving.ring);
    }
    if ((directions & VCHAN_SENDING) && !order_load_plain(&v->sending.side.refused)) {
        order_store_plain(&v->sending.side.refused, -EPIPE);
        ring_producer_stall_end(&v->sending.ring);
        wake |= ring_producer_close(&v->sending.ring);
    }
    if (wake)
        ring_other_end(v);
    return 0;
}

static void close_rings(struct vchan *v)
{
    bool wake = ring_consumer_close(&v->receiving.ring);

    ring_producer_stall_end(&v->sending.ring);
    wake |= ring_producer_close(&v->sending.ring);
    if (wake)
        ring_other_end(v);
}

/*
 * Leaves the channel, so that its port is free when this returns (unless the broker is slow or
 * gone).
 */
static void detach(struct vchan *v)
{
    struct patience patience = {.timeout_ms = CLOSE_TIMEOUT_MS};
    struct proto_message message;

    if (!channel_has_lost_page(v))
        close_rings(v);
    if (!order_load_acquire(&v->orphaned) &&
        connection_call(&v->connection, PROTO_CHANNEL_CLOSE, NULL, 0, &message, &patience) == 0)
        proto_message_close(&message);
    ring_consumer_deinit(&v->receiving.ring);
    ring_producer_deinit(&v->sending.ring);
    ring_memory_unmap_page(v->page);
}

void vchan_close(struct vchan *v)
{
    if (!v)
        return;
    if (v->page)
        detach(v);
    bar_unmap(v);
    connection_close(&v->connection);
    const int descriptors[] = {
        v->memory.descriptor,    v->own_event,          v->peer_event, v->watch,
        v->receiving.side.epoll, v->sending.side.epoll, v->peer_pidfd};
    for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    free(v->socket_path);
    free(v);
}
