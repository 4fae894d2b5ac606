/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/connection.h - one client of the broker: at most one end of one channel at a time.
 *
 *          GET_VERSION           HELLO           CHANNEL_OPEN, served at once
 *      NEW ------------> VERSIONED -----> READY ----------------------------> OPEN
 *                                         ^  |                                |
 *                                         |  | CHANNEL_OPEN,        a server  |
 *                                         |  | no server yet        comes     |
 *                                         |  +-------------> WAITING ---------+
 *                                         |                     |             |
 *                                         +---------------------+-------------+
 *                                                CHANNEL_CLOSE
 *      any state ---> DOOMED ---> freed
 *          the client goes, breaks the rules of the transport, does not read, or takes too long
 *          to get to READY
 *
 * Allowed: the CHECKs always; GET_VERSION before READY; HELLO in VERSIONED; CHANNEL_OPEN in READY;
 * CHANNEL_CLOSE in WAITING and OPEN; all others from READY on. What comes in another state gets
 * EPROTO (a command of the handshake too late or too early), EBUSY (an open in WAITING or OPEN),
 * ENOTCONN (a close in READY).
 *
 * A connection is never freed while a handler may hold it: connection_doom only marks it, and the
 * event loop frees the marked ones between two events. What it held (its end, its place in the
 * queue) goes with it.
 *
 * A client in a guest comes through the guest's mailbox (broker/guest_bridge.h), which holds the
 * other end of its socket. It is of the guest's domain, administers nothing, and is doomed when the
 * mailbox ends.
 *
 * Threads: the event loop's. The inspector holds on to `wire` only, which outlives the connection
 * while it does.
 */
#ifndef VCHAN_BROKER_CONNECTION_H
#define VCHAN_BROKER_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "broker/channel.h"
#include "broker/compaction.h"
#include "broker/log.h"
#include "broker/waitlist.h"
#include "proto/proto.h"

struct broker;
struct guest;

/* The socket, shared with the inspector. Any thread may send: a message is one packet. */
struct wire {
    int descriptor;
    uint32_t users;       /* atomic: the last one closes it */
    uint32_t inspections; /* atomic: that the inspector has not answered yet */
    uint32_t rounds;      /* event loop: REBALANCEs that are not answered yet */
    uint32_t failed;      /* plain: wire_reply could not send, and has shut the socket down */
};

enum connection_state {
    CONNECTION_NEW,
    CONNECTION_VERSIONED,
    CONNECTION_READY,
    CONNECTION_WAITING,
    CONNECTION_OPEN,
    CONNECTION_DOOMED,
};

struct connection {
    struct cds_list_head link; /* owner: broker.connections, or broker.doomed in state DOOMED */
    struct cds_list_head silent; /* owner: crowd.silent, before READY */
    uint64_t arrived_ns;
    struct broker *broker;
    struct wire *wire;
    enum connection_state state;
    uint32_t last_seq;
    uint32_t domain; /* from READY on; in a guest from the start */
    uint32_t pid;
    uint32_t uid;
    struct guest *guest;           /* that it is in; NULL: on this host. Not when DOOMED */
    struct cds_list_head of_guest; /* owner: guest_bridge.connections, unless guest is NULL */
    bool agent;                    /* session 0 of the guest's mailbox */
    bool barrier; /* PROTO_HELLO_BARRIER */
    struct proto_allow allow;
    struct channel *channel; /* OPEN */
    unsigned end;
    struct waiter waiter; /* WAITING: and what it asked for: */
    uint32_t waiter_seq;
    struct proto_channel_open waiter_open;
    struct compaction_demand room; /* WAITING: for memory, not for a server */
    uint32_t room_asked;           /* how often, for this opening */
    struct log_limit limit;
    char *explanation; /* of the last command that failed; NULL: none has */
};

/* A client has come: descriptor is taken over. 0 or -errno (it is closed then). */
int connection_new(struct broker *broker, int descriptor, struct connection **out);

/*
 * A session of a guest's mailbox: the same. pid: in the guest, for messages. agent: session 0. It
 * is in `sessions` until it is doomed.
 */
int connection_new_session(struct guest *guest, struct cds_list_head *sessions, int descriptor,
                           uint32_t pid, bool agent, struct connection **out);

/* Takes what it has sent, some messages at most. It may be doomed: then nothing happens. */
void connection_serve(struct connection *connection);

/* Frees all that are doomed: between two events, and at the end. */
void connection_free_doomed(struct broker *broker);

/* This client has had it. why: for the log; NULL: it went by itself. Nothing more is sent to it or
 * read from it. */
void connection_doom(struct connection *connection, const char *why);

/* Has the other side not closed yet, as the kernel knows now? */
bool connection_is_alive(const struct connection *connection);

/* Answers a command; one that cannot be sent dooms the connection. items: of a list, may be NULL.
 */
void connection_reply(struct connection *connection, uint16_t id, uint32_t seq, int err,
                      const void *body, size_t body_bytes, const void *items, size_t items_bytes);
void connection_reply_descriptors(struct connection *connection, uint16_t id, uint32_t seq,
                                  const void *body, size_t body_bytes, const int *descriptors,
                                  unsigned count);

/* Tells the client something; one that cannot be told is doomed. */
void connection_event(struct connection *connection, uint16_t id, const void *body,
                      size_t body_bytes);

/* Keeps a sentence for EXPLAIN; returns err, so that a handler can say: return
 * connection_refuse(...). */
int connection_refuse(struct connection *connection, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Keeps a text for EXPLAIN that somebody else said; it may have lines, and is not logged. */
void connection_quote(struct connection *connection, const char *text);

/* "domain 3 (pid 812)" goes before the text; so many lines a client, no more. */
void connection_log(struct connection *connection, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Leaves its channel or the queue; state READY. */
void connection_leave(struct connection *connection);

struct wire *wire_hold(struct wire *wire);
void wire_drop(struct wire *wire);

/*
 * Answers a command on a wire alone, for those to whom the connection does not belong. Where it
 * cannot be sent the socket is shut down, and the event loop dooms the connection when it sees
 * that. Any thread.
 */
void wire_reply(struct wire *wire, uint16_t id, uint32_t seq, int err, const void *body,
                size_t body_bytes, const void *items, size_t items_bytes);

#endif
