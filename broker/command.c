/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/connection.h"
#include "broker/figures.h"
#include "broker/guest.h"
#include "broker/hypervisor.h"
#include "broker/inspector.h"
#include "broker/mover.h"
#include "broker/opening.h"
#include "broker/policy_trace.h"
#include "broker/rebalancer.h"
#include "broker/shortage.h"
#include "proto/socket.h"
#include "ring/order.h"

/* 0: answered, or somebody will; else the error to answer. The body has passed proto_request_check.
 */
typedef int (*command_handler)(struct connection *connection, const struct proto_message *message);

static void reply(struct connection *connection, const struct proto_message *message,
                  const void *body, size_t bytes)
{
    connection_reply(connection, message->header.id, message->header.seq, 0, body, bytes, NULL, 0);
}

static int get_version(struct connection *connection, const struct proto_message *message)
{
    const struct proto_get_version *request = (const void *)message->body;
    const struct proto_get_version_reply answer = {
        .version = request->version < PROTO_VERSION ? request->version : PROTO_VERSION,
        .message_bytes_max = PROTO_MESSAGE_BYTES_MAX,
    };

    if (request->byte_order != PROTO_BYTE_ORDER || request->version < PROTO_VERSION_OLDEST)
        return connection_refuse(connection, -EPROTONOSUPPORT,
                                 "this broker speaks versions %u to %u of the protocol",
                                 PROTO_VERSION_OLDEST, PROTO_VERSION);
    if (connection->state == CONNECTION_NEW)
        connection->state = CONNECTION_VERSIONED;
    reply(connection, message, &answer, sizeof(answer));
    return 0;
}

static int check_command(struct connection *connection, const struct proto_message *message)
{
    int r = proto_allow_command(&connection->allow,
                                ((const struct proto_check *)(const void *)message->body)->id);

    if (r == 0)
        reply(connection, message, NULL, 0);
    return r;
}

static int check_event(struct connection *connection, const struct proto_message *message)
{
    int r = proto_allow_event(&connection->allow,
                              ((const struct proto_check *)(const void *)message->body)->id);

    if (r == 0)
        reply(connection, message, NULL, 0);
    return r;
}

/*
 * May this client be that domain? In a guest there is one only, whatever the program says: the
 * host's number is what one says that was told nothing.
 */
static int check_domain(struct connection *connection, uint32_t claimed)
{
    const struct broker *broker = connection->broker;

    if (connection->guest && claimed != PROTO_DOMAIN_HOST && claimed != connection->domain)
        return connection_refuse(connection, -EPERM,
                                 "this is domain %u, and no program in it can be domain %u",
                                 connection->domain, claimed);
    if (connection->guest)
        return 0;
    if (domains_has_guest(&broker->domains, claimed))
        return connection_refuse(connection, -EPERM,
                                 "domain %u is a VM, and no process on the host can be that",
                                 claimed);
    int r = domains_check(&broker->domains, claimed);
    if (r < 0)
        connection_refuse(connection, r,
                          r == -ENOENT ? "there is no domain %u"
                                       : "domain %u does not run on this host itself",
                          claimed);
    return r;
}

static unsigned may(const struct connection *connection)
{
    if (connection->guest)
        return PROTO_MAY_ANY | (connection->agent ? PROTO_MAY_AGENT : 0);
    return PROTO_MAY_ANY | (connection->domain == PROTO_DOMAIN_HOST ? PROTO_MAY_ADMIN : 0) |
           (hypervisor_may_serve(connection) ? PROTO_MAY_HYPERVISOR : 0);
}

static int hello(struct connection *connection, const struct proto_message *message)
{
    const struct proto_hello *request = (const void *)message->body;
    struct proto_hello_reply answer = {0};
    struct broker *broker = connection->broker;
    struct domain *domain;

    int r = check_domain(connection, request->domain);
    if (r < 0)
        return r;
    if (!connection->guest)
        connection->domain = request->domain;
    r = domains_need(&broker->domains, connection->domain, &domain);
    if (r < 0)
        return r;
    order_store_plain(&domain->connections, domain->connections + 1);
    answer.domain = connection->domain;
    memcpy(answer.name, domain->name, sizeof(answer.name));
    connection->barrier = request->flags & PROTO_HELLO_BARRIER;
    /* 0: the kernel does not know, the client lives in a process-id namespace that is not ours. */
    if (connection->pid == 0)
        connection->pid = request->pid;
    connection->allow = proto_allow_default(may(connection));
    crowd_greeted(connection);
    connection->state = CONNECTION_READY;
    reply(connection, message, &answer, sizeof(answer));
    return 0;
}

/* It goes into logs and onto terminals. Byte by byte: listings read it meanwhile. */
static void take_version(struct guest *guest, const char version[32])
{
    for (size_t i = 0; i < sizeof(guest->version); i++)
        order_store_plain(&guest->version[i],
                          version[i] == 0 || (version[i] >= ' ' && version[i] <= '~') ? version[i]
                                                                                      : '?');
}

/* The agent's mailbox works: from now on channels are opened into that guest. */
static int agent_hello(struct connection *connection, const struct proto_message *message)
{
    const struct proto_agent_hello *request = (const void *)message->body;
    struct guest *guest = connection->guest;

    guest_use_vectors(guest, request->vectors > 0 ? request->vectors : 1);
    order_store_plain(&guest->flags, request->flags);
    take_version(guest, request->version);
    order_store_plain(&guest->state, PROTO_GUEST_ATTACHED);
    struct proto_agent_hello_reply answer = {
        .domain = guest->domain, .peer = guest->id, .vectors = guest->device_vectors};
    memcpy(answer.zone, guest->zone->name, sizeof(answer.zone));
    connection_log(connection, LOG_INFO,
                   "the agent (version %s) has attached to zone %s as peer %u, %u vectors%s",
                   guest->version, guest->zone->name, guest->id, guest->device_vectors,
                   guest->flags & PROTO_AGENT_POLLS ? ", it polls" : "");
    reply(connection, message, &answer, sizeof(answer));
    return 0;
}

static int channel_open(struct connection *connection, const struct proto_message *message)
{
    if (connection->state != CONNECTION_READY)
        return connection_refuse(connection, -EBUSY, "a connection opens one channel at a time");
    return opening_request(connection, message->header.seq, (const void *)message->body);
}

static int channel_close_command(struct connection *connection, const struct proto_message *message)
{
    if (connection->state == CONNECTION_READY)
        return connection_refuse(connection, -ENOTCONN, "this connection has no channel open");
    if (connection->state == CONNECTION_WAITING) {
        connection_refuse(connection, -ECANCELED, "the client closed while it waited for a server");
        connection_reply(connection, PROTO_CHANNEL_OPEN, connection->waiter_seq, -ECANCELED, NULL,
                         0, NULL, 0);
        if (connection->state == CONNECTION_DOOMED)
            return 0;
    }
    connection_leave(connection);
    reply(connection, message, NULL, 0);
    return 0;
}

static int explain(struct connection *connection, const struct proto_message *message)
{
    struct proto_text answer = {0};

    if (connection->explanation) {
        snprintf(answer.text, sizeof(answer.text), "%s", connection->explanation);
        answer.length = (uint32_t)strlen(answer.text);
    }
    reply(connection, message, &answer, sizeof(answer));
    return 0;
}

static int list(struct connection *connection, const struct proto_message *message)
{
    return inspector_ask(connection->broker->inspector, connection, message);
}

static int list_extents(struct connection *connection, const struct proto_message *message)
{
    figures_list_extents(connection, message->header.seq, (const void *)message->body);
    return 0;
}

static int broker_info(struct connection *connection, const struct proto_message *message)
{
    struct proto_broker_info answer;

    figures_info(connection->broker, &answer);
    reply(connection, message, &answer, sizeof(answer));
    return 0;
}

/* Rounds that one client may have under way: who sends more without waiting for answers floods. */
#define ROUNDS_A_CLIENT 16u

/* Who asked for a round: the connection may go before the answer comes. */
struct asker {
    struct wire *wire;
    uint32_t seq;
};

#define DECISIONS_A_REPLY \
    ((PROTO_MESSAGE_BYTES_MAX - sizeof(struct proto_header) - sizeof(struct proto_error) - \
      sizeof(struct proto_list_reply)) / \
     sizeof(struct proto_decision))

/* More than fit are in the history; of a dry run, the first are the most urgent. */
static void on_rebalanced(void *data, int error, const struct proto_decision *decisions,
                          size_t count)
{
    const struct asker *asker = data;
    const struct proto_list_reply answer = {
        .count = (uint32_t)(count < DECISIONS_A_REPLY ? count : DECISIONS_A_REPLY),
        .item_bytes = sizeof(*decisions),
    };

    wire_reply(asker->wire, PROTO_REBALANCE, asker->seq, error, &answer, sizeof(answer), decisions,
               answer.count * sizeof(*decisions));
    asker->wire->rounds--;
    wire_drop(asker->wire);
    free(data);
}

static int rebalance(struct connection *connection, const struct proto_message *message)
{
    const struct proto_rebalance *request = (const void *)message->body;

    if (connection->wire->rounds >= ROUNDS_A_CLIENT) {
        connection_doom(connection, "it asks for more rounds than it takes");
        return 0;
    }
    struct asker *asker = malloc(sizeof(*asker));
    if (!asker)
        return -ENOMEM;
    *asker = (struct asker){.wire = wire_hold(connection->wire), .seq = message->header.seq};
    int r = mover_rebalance(connection->broker->mover, request->flags & PROTO_REBALANCE_DRY_RUN,
                            on_rebalanced, asker);
    if (r < 0) {
        wire_drop(asker->wire);
        free(asker);
        return r;
    }
    connection->wire->rounds++;
    return 0;
}

static int ring_set(struct connection *connection, const struct proto_message *message)
{
    const struct proto_ring_set *request = (const void *)message->body;
    struct broker *broker = connection->broker;
    struct channel *channel = channels_find(&broker->channels, request->channel);

    if (!channel || (request->incarnation && request->incarnation != channel->incarnation))
        return connection_refuse(connection, -ENOENT, "there is no channel %u", request->channel);
    uint64_t size_bytes;
    int r = mover_ring_set(broker->mover, channel, request->ring, request, &size_bytes);
    if (r == -EINVAL)
        return connection_refuse(
            connection, r,
            "a ring's size lies between its minimum and its maximum, and its minimum is not below "
            "the %" PRIu64 " bytes that its server asked for",
            channel->ring[request->ring].floor_bytes);
    if (r < 0)
        return shortage_refuse_resize(connection, r, channel, request->ring, size_bytes);
    connection_log(connection, LOG_NOTICE, "channel %u ring %u: set by command", channel->number,
                   request->ring);
    reply(connection, message, NULL, 0);
    return 0;
}

static int domain_set(struct connection *connection, const struct proto_message *message)
{
    const struct proto_domain_set *request = (const void *)message->body;

    int r = broker_quota_set(connection->broker, request->domain, request->quota_bytes);
    if (r == -ENOENT)
        return connection_refuse(connection, r, "there is no domain %u", request->domain);
    if (r == -EINVAL)
        return connection_refuse(connection, r,
                                 "a quota is in whole blocks of %u bytes, and %" PRIu64
                                 " bytes are not; 0 is for no limit",
                                 LAYOUT_BLOCK_BYTES, request->quota_bytes);
    if (r < 0)
        return r;
    connection_log(connection, LOG_NOTICE, "set the quota of domain %u to %" PRIu64 " bytes",
                   request->domain, request->quota_bytes);
    reply(connection, message, NULL, 0);
    return 0;
}

/* Rounds kept for a reader that is a little slow; the rest the recorder keeps. */
#define RECORD_BUFFER_BYTES (1 << 20)

static int record(struct connection *connection, const struct proto_message *message)
{
    const struct proto_record_reply answer = {.format = POLICY_TRACE_VERSION};
    const int buffer_bytes = RECORD_BUFFER_BYTES;
    int sockets[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return -errno;
    setsockopt(sockets[0], SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes));
    int r = rebalancer_record(connection->broker->rebalancer, sockets[0]);
    if (r == 0)
        connection_reply_descriptors(connection, message->header.id, message->header.seq, &answer,
                                     sizeof(answer), &sockets[1], 1);
    close(sockets[1]);
    if (r == -EBUSY)
        return connection_refuse(connection, r, "%u recordings run already",
                                 REBALANCER_RECORDERS_MAX);
    return r;
}

#define FROM(state) (1u << CONNECTION_##state)
#define FROM_READY (FROM(READY) | FROM(WAITING) | FROM(OPEN))
#define FROM_ANY (FROM(NEW) | FROM(VERSIONED) | FROM_READY)

static const struct {
    command_handler handle;
    unsigned states; /* in which it is answered; in others EPROTO */
} commands[PROTO_COMMAND_MAX + 1] = {
    [PROTO_GET_VERSION] = {get_version, FROM(NEW) | FROM(VERSIONED)},
    [PROTO_CHECK_COMMAND] = {check_command, FROM_ANY},
    [PROTO_CHECK_EVENT] = {check_event, FROM_ANY},
    [PROTO_HELLO] = {hello, FROM(VERSIONED)},
    [PROTO_CHANNEL_OPEN] = {channel_open, FROM_READY},
    [PROTO_CHANNEL_CLOSE] = {channel_close_command, FROM_READY},
    [PROTO_EXPLAIN] = {explain, FROM_ANY},
    [PROTO_LIST_DOMAINS] = {list, FROM_READY},
    [PROTO_LIST_CHANNELS] = {list, FROM_READY},
    [PROTO_LIST_RINGS] = {list, FROM_READY},
    [PROTO_LIST_EXTENTS] = {list_extents, FROM_READY},
    [PROTO_LIST_HISTORY] = {list, FROM_READY},
    [PROTO_REBALANCE] = {rebalance, FROM_READY},
    [PROTO_RING_SET] = {ring_set, FROM_READY},
    [PROTO_BROKER_INFO] = {broker_info, FROM_READY},
    [PROTO_DOMAIN_SET] = {domain_set, FROM_READY},
    [PROTO_RECORD] = {record, FROM_READY},
    [PROTO_AGENT_HELLO] = {agent_hello, FROM_READY},
    [PROTO_LIST_GUESTS] = {list, FROM_READY},
    [PROTO_DOMAIN_DEVICE] = {hypervisor_device, FROM_READY},
    [PROTO_DOMAIN_ATTACH] = {hypervisor_ask, FROM_READY},
    [PROTO_DOMAIN_DETACH] = {hypervisor_ask, FROM_READY},
    [PROTO_DOMAIN_SHOW] = {hypervisor_ask, FROM_READY},
    [PROTO_HYPERVISOR_SERVE] = {hypervisor_serve, FROM_READY},
    [PROTO_HYPERVISOR_DOMAIN] = {hypervisor_domain, FROM_READY},
    [PROTO_HYPERVISOR_DONE] = {hypervisor_done, FROM_READY},
};

/* The rules of proto/proto.h, in the order in which they are told. */
static int check_and_handle(struct connection *connection, const struct proto_message *message,
                            bool attached)
{
    const unsigned id = message->header.id;

    if (!proto_command_find(id))
        return -ENOSYS;
    if (!(commands[id].states & 1u << connection->state))
        return connection_refuse(connection, -EPROTO, "%s is out of its place in the handshake",
                                 proto_command_find(id)->name);
    int r = proto_allow_command(&connection->allow, id);
    if (r < 0)
        return connection_refuse(connection, r, "domain %u may not use %s", connection->domain,
                                 proto_command_find(id)->name);
    r = attached ? -EINVAL : proto_request_check(id, message->body, message->header.size);
    if (r < 0)
        return connection_refuse(connection, r, "a malformed %s", proto_command_find(id)->name);
    return commands[id].handle(connection, message);
}

/* The other end of its channel wrote rubbish: the channel ends, nobody else notices. */
static void on_broken(struct connection *connection, const struct proto_event_broken *event)
{
    struct channel *channel = connection->channel;

    connection_log(connection, LOG_WARNING,
                   "channel %u (server domain %u pid %u, client domain %u pid %u, port %u): ring "
                   "%u is broken: %s; "
                   "closing the channel",
                   channel->number, channel->key.server_domain, channel->end[CHANNEL_SERVER].pid,
                   channel->key.client_domain, channel->end[CHANNEL_CLIENT].pid, channel->key.port,
                   event->ring, event->text);
    channel_close(channel, EPROTO, 0);
}

static void handle_event(struct connection *connection, const struct proto_message *message,
                         bool attached)
{
    const unsigned id = message->header.id;

    if (!proto_event_find(id) || proto_allow_event(&connection->allow, id) < 0) {
        connection_log(connection, LOG_INFO, "event %#x is unknown or not allowed: ignored", id);
        return;
    }
    if (message->header.seq != 0 || attached ||
        proto_event_check(id, message->body, message->header.size) < 0) {
        connection_doom(connection, "it sent a malformed event");
        return;
    }
    if (connection->state != CONNECTION_OPEN)
        return; /* its channel was closed meanwhile, or it never had one */
    switch (id) {
    case PROTO_EVENT_PRESSURE:
        rebalancer_pressure(connection->broker->rebalancer, connection->channel->number,
                            ((const struct proto_event_ring *)(const void *)message->body)->ring);
        break;
    case PROTO_EVENT_DOORBELLS:
        rebalancer_doorbells(connection->broker->rebalancer, connection->channel->number,
                             ((const struct proto_event_ring *)(const void *)message->body)->ring);
        break;
    default:
        on_broken(connection, (const void *)message->body);
    }
}

void command_dispatch(struct connection *connection, struct proto_message *message)
{
    const uint16_t id = message->header.id;
    const bool attached = message->descriptor_count > 0;

    proto_message_close(message); /* nothing that is sent to the broker has any */
    if (id & PROTO_EVENT) {
        handle_event(connection, message, attached);
        return;
    }
    if (message->header.seq != connection->last_seq + 1) {
        connection_doom(connection, "its message is out of sequence");
        return;
    }
    connection->last_seq = message->header.seq;
    int r = check_and_handle(connection, message, attached);
    if (r < 0)
        connection_reply(connection, id, message->header.seq, r, NULL, 0, NULL, 0);
}
