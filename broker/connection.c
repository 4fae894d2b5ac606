/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/command.h"
#include "broker/guest.h"
#include "broker/hypervisor.h"
#include "proto/socket.h"
#include "ring/order.h"

/* Messages of one client in a row: then others have their turn. */
#define MESSAGES_A_TURN 16
/* In 10 s. A client may come again and again, so there is a limit for all of them too. */
#define LINES_A_CLIENT 5
#define LINES_ALL_CLIENTS 100

static struct wire *wire_new(int descriptor)
{
    struct wire *wire = calloc(1, sizeof(*wire));

    if (!wire)
        return NULL;
    wire->descriptor = descriptor;
    wire->users = 1;
    return wire;
}

struct wire *wire_hold(struct wire *wire)
{
    __atomic_fetch_add(&wire->users, 1, __ATOMIC_RELAXED);
    return wire;
}

void wire_drop(struct wire *wire)
{
    /* Release: what this user did with it is done before the last one closes it; acquire: it sees
     * that. */
    if (!wire || __atomic_sub_fetch(&wire->users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    close(wire->descriptor);
    free(wire);
}

void wire_reply(struct wire *wire, uint16_t id, uint32_t seq, int err, const void *body,
                size_t body_bytes, const void *items, size_t items_bytes)
{
    int r = proto_reply(wire->descriptor, id, seq, err, body, body_bytes, items, items_bytes, NULL,
                        0);

    if (r == -EAGAIN)
        order_store_plain(&wire->failed, 1);
    if (r < 0)
        shutdown(wire->descriptor, SHUT_RDWR);
}

static void connection_free(struct connection *connection)
{
    struct broker *broker = connection->broker;

    cds_list_del(&connection->link);
    wire_drop(connection->wire);
    free(connection->explanation);
    free(connection);
    order_store_plain(&broker->connection_count, broker->connection_count - 1);
}

void connection_free_doomed(struct broker *broker)
{
    while (!cds_list_empty(&broker->doomed))
        connection_free(cds_list_entry(broker->doomed.next, struct connection, link));
}

/* Counts the connection in or out of its domain. */
static void count_in_domain(struct connection *connection, int change)
{
    struct domain *domain;

    if (domains_need(&connection->broker->domains, connection->domain, &domain) < 0)
        return;
    order_store_plain(&domain->connections, domain->connections + (uint32_t)change);
    domains_settle(&connection->broker->domains, domain);
}

void connection_doom(struct connection *connection, const char *why)
{
    if (connection->state == CONNECTION_DOOMED)
        return;
    if (why)
        connection_log(connection, LOG_WARNING, "connection closed: %s", why);
    else
        connection_log(connection, LOG_DEBUG, "connection closed by the client");
    crowd_leave(connection);
    hypervisor_left(connection);
    if (connection->state >= CONNECTION_READY) {
        connection_leave(connection);
        count_in_domain(connection, -1);
    }
    if (connection->guest)
        cds_list_del(&connection->of_guest);
    connection->guest = NULL;
    connection->state = CONNECTION_DOOMED;
    /* Now, and not when the inspector drops the wire: the client is to see it. */
    shutdown(connection->wire->descriptor, SHUT_RDWR);
    cds_list_del(&connection->link);
    cds_list_add(&connection->link, &connection->broker->doomed);
}

void connection_leave(struct connection *connection)
{
    struct broker *broker = connection->broker;

    if (connection->state == CONNECTION_WAITING) {
        waitlist_remove(&connection->waiter);
        compaction_cancel(&connection->room);
    }
    if (connection->state == CONNECTION_OPEN) {
        struct channel *channel = connection->channel;
        connection->channel = NULL;
        broker_channel_left(broker, channel, connection->end);
    }
    connection->state = CONNECTION_READY;
}

bool connection_is_alive(const struct connection *connection)
{
    struct pollfd peer = {.fd = connection->wire->descriptor, .events = POLLRDHUP};

    return connection->state != CONNECTION_DOOMED &&
           (poll(&peer, 1, 0) <= 0 || !(peer.revents & (POLLRDHUP | POLLHUP | POLLERR)));
}

static void check_sent(struct connection *connection, int r)
{
    if (r == -EAGAIN)
        connection_doom(connection, "it does not read its replies");
    else if (r == -EPIPE || r == -ECONNRESET)
        connection_doom(connection, NULL);
    else if (r < 0)
        connection_doom(connection, strerror(-r));
}

void connection_reply(struct connection *connection, uint16_t id, uint32_t seq, int err,
                      const void *body, size_t body_bytes, const void *items, size_t items_bytes)
{
    if (connection->state != CONNECTION_DOOMED)
        check_sent(connection, proto_reply(connection->wire->descriptor, id, seq, err, body,
                                           body_bytes, items, items_bytes, NULL, 0));
}

void connection_reply_descriptors(struct connection *connection, uint16_t id, uint32_t seq,
                                  const void *body, size_t body_bytes, const int *descriptors,
                                  unsigned count)
{
    if (connection->state != CONNECTION_DOOMED)
        check_sent(connection, proto_reply(connection->wire->descriptor, id, seq, 0, body,
                                           body_bytes, NULL, 0, descriptors, count));
}

void connection_event(struct connection *connection, uint16_t id, const void *body,
                      size_t body_bytes)
{
    if (connection->state != CONNECTION_DOOMED)
        check_sent(connection, proto_send(connection->wire->descriptor, id, 0, body, body_bytes,
                                          NULL, 0, NULL, 0));
}

int connection_refuse(struct connection *connection, int err, const char *format, ...)
{
    va_list arguments;
    char *text;

    va_start(arguments, format);
    int n = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (n < 0)
        return err;
    free(connection->explanation);
    connection->explanation = text;
    /* Refusals are the asker's business; only a full region is the operator's, too. */
    connection_log(connection, err == -ENOSPC ? LOG_NOTICE : LOG_DEBUG, "refused: %s (%s)", text,
                   strerror(-err));
    return err;
}

void connection_quote(struct connection *connection, const char *text)
{
    char *copy = strdup(text);

    if (!copy)
        return;
    free(connection->explanation);
    connection->explanation = copy;
}

void connection_log(struct connection *connection, int level, const char *format, ...)
{
    const struct log *log = &connection->broker->log;
    uint32_t left_out, others_left_out;
    char text[512], who[64];
    va_list arguments;

    uint64_t now_ns = broker_now_ns();

    if (level > log->level ||
        !log_limit_admits(&connection->limit, LINES_A_CLIENT, now_ns, &left_out) ||
        !log_limit_admits(&connection->broker->peer_lines, LINES_ALL_CLIENTS, now_ns,
                          &others_left_out))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (connection->state >= CONNECTION_READY || connection->guest)
        snprintf(who, sizeof(who), "domain %u, pid %u", connection->domain, connection->pid);
    else
        snprintf(who, sizeof(who), "pid %u, uid %u", connection->pid, connection->uid);
    if (left_out > 0)
        log_write(log, level, "%s: %s (%u lines about it left out)", who, text, left_out);
    else
        log_write(log, level, "%s: %s", who, text);
    if (others_left_out > 0)
        log_write(log, level, "%u lines about clients left out", others_left_out);
}

static void receive_one(struct connection *connection)
{
    struct proto_message message;
    int r = proto_receive(connection->wire->descriptor, &message, MSG_DONTWAIT);

    if (r == 1) {
        command_dispatch(connection, &message);
        return;
    }
    if (r == -EAGAIN)
        return;
    if (r == 0)
        connection_doom(connection, order_load_plain(&connection->wire->failed)
                                        ? "it does not read its replies"
                                        : NULL);
    else if (r == -EMSGSIZE)
        connection_doom(connection, "it sent a message over the size limit");
    else if (r == -EBADMSG)
        connection_doom(connection, "it sent a message that is not what its header says");
    else
        connection_doom(connection, strerror(-r));
}

void connection_serve(struct connection *connection)
{
    struct pollfd more = {.fd = connection->wire->descriptor, .events = POLLIN};

    for (int i = 0; i < MESSAGES_A_TURN && connection->state != CONNECTION_DOOMED; i++) {
        receive_one(connection);
        if (connection->state == CONNECTION_DOOMED || poll(&more, 1, 0) <= 0)
            break;
    }
}

static struct connection *make(struct broker *broker, int descriptor)
{
    struct connection *connection = calloc(1, sizeof(*connection));

    if (connection)
        connection->wire = wire_new(descriptor);
    if (!connection || !connection->wire) {
        free(connection);
        close(descriptor);
        return NULL;
    }
    connection->broker = broker;
    CDS_INIT_LIST_HEAD(&connection->link);
    order_store_plain(&broker->connection_count, broker->connection_count + 1);
    return connection;
}

static int join(struct connection *connection)
{
    connection->allow = proto_allow_default(PROTO_MAY_ANY);
    int r = crowd_join(connection);
    if (r < 0) {
        connection_free(connection);
        return r;
    }
    cds_list_add_tail(&connection->link, &connection->broker->connections);
    return 0;
}

int connection_new(struct broker *broker, int descriptor, struct connection **out)
{
    struct connection *connection = make(broker, descriptor);
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    if (!connection)
        return -ENOMEM;
    if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0) {
        connection->pid = (uint32_t)peer.pid;
        connection->uid = peer.uid;
    }
    int r = join(connection);
    if (r == 0)
        *out = connection;
    return r;
}

int connection_new_session(struct guest *guest, struct cds_list_head *sessions, int descriptor,
                           uint32_t pid, bool agent, struct connection **out)
{
    struct connection *connection = make(guest->broker, descriptor);

    if (!connection)
        return -ENOMEM;
    connection->guest = guest;
    connection->domain = guest->domain;
    connection->pid = pid;
    connection->uid = UINT32_MAX; /* nobody whom this host knows */
    connection->agent = agent;
    int r = join(connection);
    if (r < 0)
        return r;
    cds_list_add(&connection->of_guest, sessions);
    *out = connection;
    return 0;
}
