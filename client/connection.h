/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/connection.h - talking to the broker: one SEQPACKET connection, requests numbered 1, 2, 3,
 * ...
 *
 * Requests may be sent back to back; replies are matched by number. A connection is used by one
 * thread at a time, except for connection_event, which any thread may call at any time.
 */
#ifndef VCHAN_CLIENT_CONNECTION_H
#define VCHAN_CLIENT_CONNECTION_H

#include <stddef.h>
#include <stdint.h>

#include "client/patience.h"
#include "proto/proto.h"
#include "proto/socket.h"

struct connection {
    int socket; /* non-blocking; -1: none */
    uint32_t seq; /* of the last request */
};

/* Connects. path NULL: the default. -errno as connect; leaves a sentence for explain. */
int connection_open(struct connection *connection, const char *path);
void connection_close(struct connection *connection);

/* Sends a request and does not wait for its reply. *seq (may be NULL): its number. 0, -errno. */
int connection_request(struct connection *connection, uint16_t id, const void *body,
                       size_t body_bytes, uint32_t *seq);

/* GET_VERSION and HELLO, two requests. */
int connection_greet(struct connection *connection, uint32_t domain);

/*
 * Waits for the next reply. 0: *message is one (the caller closes its descriptors); -EAGAIN,
 * -ETIMEDOUT, -EINTR;
 * -ECONNREFUSED the broker has closed; -EPROTO it talks rubbish.
 */
int connection_receive(struct connection *connection, struct proto_message *message,
                       struct patience *patience);

/*
 * What a reply says: 0 or its negative errno; -EPROTO when it is not a well-formed reply to `id`.
 */
int connection_verdict(const struct proto_message *message, uint16_t id);

/* The reply's body, past its verdict. */
static inline const void *connection_body(const struct proto_message *message)
{
    return message->body + sizeof(struct proto_error);
}

/*
 * A request and its reply. Replies to older requests are passed over, unless they are errors: then
 * that is the result. The caller closes the message's descriptors on 0.
 */
int connection_call(struct connection *connection, uint16_t id, const void *body, size_t body_bytes,
                    struct proto_message *message, struct patience *patience);

/* Sends an event; dropped when the socket's buffer is full or the broker is gone. Any thread. */
void connection_event(const struct connection *connection, uint16_t id, const void *body,
                      size_t body_bytes);

/*
 * Asks the broker why the last command failed, and keeps the sentence for this thread's
 * vchan_explain().
 */
void connection_explain(struct connection *connection);
/*
 * The same for a greeting that was refused: on a connection of its own, since requests sent right
 * after the greeting have failed too and their sentence is the last.
 */
void connection_explain_greeting(const char *path, uint32_t domain);

/* Sets this thread's sentence. */
void explain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
