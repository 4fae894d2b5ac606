/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/vchan.h"
#include "ring/order.h"

static _Thread_local char explanation[PROTO_TEXT_BYTES];

static pthread_once_t barrier_once = PTHREAD_ONCE_INIT;
static bool barrier_registered;

void explain(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(explanation, sizeof(explanation), format, arguments);
    va_end(arguments);
}

const char *vchan_explain(void)
{
    return explanation;
}

int connection_open(struct connection *connection, const char *path)
{
    char default_path[256] = "";
    int r = 0;

    *connection = (struct connection){.socket = -1};
    if (!path) {
        r = proto_socket_path(default_path, sizeof(default_path));
        path = default_path;
    }
    if (r == 0)
        r = proto_socket_connect(path);
    if (r < 0) {
        explain("no broker at %s: %s (is vchand running?)", path, strerror(-r));
        return r;
    }
    connection->socket = r;
    r = fcntl(connection->socket, F_SETFL, O_RDWR | O_NONBLOCK);
    if (r < 0) {
        r = -errno;
        connection_close(connection);
    }
    return r;
}

void connection_close(struct connection *connection)
{
    if (connection->socket >= 0)
        close(connection->socket);
    connection->socket = -1;
}

int connection_request(struct connection *connection, uint16_t id, const void *body,
                       size_t body_bytes, uint32_t *seq)
{
    struct pollfd room = {.fd = connection->socket, .events = POLLOUT};
    int r;

    /* A queue full of events: the broker empties it at once, or is hopelessly behind. */
    while ((r = proto_send(connection->socket, id, connection->seq + 1, body, body_bytes, NULL, 0,
                           NULL, 0)) == -EAGAIN)
        if (poll(&room, 1, 1000) == 0)
            return -ETIMEDOUT;
    if (r == -EPIPE || r == -ECONNRESET) {
        explain("the broker has closed the connection");
        return -ECONNREFUSED;
    }
    if (r < 0)
        return r;
    connection->seq++;
    if (seq)
        *seq = connection->seq;
    return 0;
}

static void register_barrier(void)
{
    barrier_registered = order_register();
}

int connection_greet(struct connection *connection, uint32_t domain)
{
    struct proto_get_version version = {.version = PROTO_VERSION, .byte_order = PROTO_BYTE_ORDER};
    struct proto_hello hello = {.domain = domain, .pid = (uint32_t)getpid()};
    int r;

    pthread_once(&barrier_once, register_barrier);
    if (barrier_registered)
        hello.flags = PROTO_HELLO_BARRIER;
    r = connection_request(connection, PROTO_GET_VERSION, &version, sizeof(version), NULL);
    if (r == 0)
        r = connection_request(connection, PROTO_HELLO, &hello, sizeof(hello), NULL);
    return r;
}

int connection_receive(struct connection *connection, struct proto_message *message,
                       struct patience *patience)
{
    struct pollfd there = {.fd = connection->socket, .events = POLLIN};
    int r;

    for (;;) {
        /*
         * Looked at before waiting, and waited for in poll: proto_receive would go on after a
         * signal.
         */
        r = proto_receive(connection->socket, message, MSG_DONTWAIT);
        if (r == 1)
            return 0;
        if (r == 0) {
            explain("the broker has closed the connection");
            return -ECONNREFUSED;
        }
        if (r != -EAGAIN)
            return r == -EBADMSG || r == -EMSGSIZE ? -EPROTO : r;
        r = poll(&there, 1, patience_left_ms(patience));
        if (r < 0)
            return -errno;
        if (r == 0)
            return patience->timeout_ms == 0 ? -EAGAIN : -ETIMEDOUT;
    }
}

int connection_verdict(const struct proto_message *message, uint16_t id)
{
    const struct proto_command *command = proto_command_find(id);
    struct proto_error error;

    if (!command || message->header.id != id || message->header.size < sizeof(error))
        return -EPROTO;
    memcpy(&error, message->body, sizeof(error));
    if (error.err > 0)
        return -EPROTO;
    if (error.err < 0)
        return error.err;
    /* An open in a guest has no eventfd of the other end: client/channel.c looks. */
    unsigned fewest = id == PROTO_CHANNEL_OPEN ? command->descriptors - 1 : command->descriptors;
    if (message->header.size < sizeof(error) + command->reply_bytes ||
        message->descriptor_count < fewest || message->descriptor_count > command->descriptors)
        return -EPROTO;
    return 0;
}

/*
 * Waits for the reply to request seq. Older ones are passed over; with `strict`, not those that are
 * errors.
 */
static int await_reply(struct connection *connection, uint16_t id, uint32_t seq, bool strict,
                       struct proto_message *message, struct patience *patience)
{
    for (;;) {
        int r = connection_receive(connection, message, patience);
        if (r < 0)
            return r;
        bool ours = message->header.seq == seq;
        r = connection_verdict(message, ours ? id : message->header.id);
        if (ours && r == 0)
            return 0;
        proto_message_close(message);
        if (r < 0 && (ours || strict))
            return r;
    }
}

int connection_call(struct connection *connection, uint16_t id, const void *body, size_t body_bytes,
                    struct proto_message *message, struct patience *patience)
{
    uint32_t seq;
    int r = connection_request(connection, id, body, body_bytes, &seq);

    return r < 0 ? r : await_reply(connection, id, seq, true, message, patience);
}

void connection_event(const struct connection *connection, uint16_t id, const void *body,
                      size_t body_bytes)
{
    (void)proto_send(connection->socket, id, 0, body, body_bytes, NULL, 0, NULL, 0);
}

void connection_explain(struct connection *connection)
{
    struct patience patience = {.timeout_ms = 1000};
    struct proto_message message;
    struct proto_text text;
    uint32_t seq;

    if (connection_request(connection, PROTO_EXPLAIN, NULL, 0, &seq) < 0 ||
        await_reply(connection, PROTO_EXPLAIN, seq, false, &message, &patience) < 0)
        return;
    memcpy(&text, connection_body(&message), sizeof(text));
    proto_message_close(&message);
    explain("%.*s", (int)(text.length < sizeof(text.text) ? text.length : sizeof(text.text)),
            text.text);
}

void connection_explain_greeting(const char *path, uint32_t domain)
{
    struct connection connection;

    if (connection_open(&connection, path) == 0 && connection_greet(&connection, domain) == 0)
        connection_explain(&connection);
    connection_close(&connection);
}
