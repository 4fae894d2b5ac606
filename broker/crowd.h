/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/crowd.h - all clients of the broker as one: who is let in, who is served next, who must
 * go.
 *
 * Serving. sd-event handles one source in an iteration and polls all of them for it, so with a
 * source for each client the cost would grow with the square of the clients that are ready. All are
 * in one epoll instance instead, which is one source: a turn takes a few of the ready ones, and
 * the kernel puts those that are still ready behind the others. One of a turn can doom another of
 * it: nobody is freed before the turn ends, and the doomed are passed over.
 *
 * Letting in. A client must say who it is (HELLO) within CROWD_HANDSHAKE_MS. When a newcomer finds
 * no place, neither under connections= nor a descriptor, whoever has kept silent longest goes:
 * without anybody else, that is the newcomer, who then sees its connection closed. Root and the
 * broker's own user have a few places that others do not get, and no other pushes them out. Those
 * in guests are others, whoever they are there. A spare descriptor is kept, as without one a
 * client can be neither accepted nor sent away.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_CROWD_H
#define VCHAN_BROKER_CROWD_H

#include <stdint.h>
#include <systemd/sd-event.h>
#include <urcu/list.h>

#include "broker/log.h"

struct broker;
struct connection;

/* From the connect to the HELLO. */
#define CROWD_HANDSHAKE_MS 5000u

enum crowd_rank {
    CROWD_ORDINARY,
    CROWD_PRIVILEGED, /* root, and the broker's own user */
    CROWD_RANKS
};

struct crowd {
    int epoll;
    int spare; /* -1: none could be had */
    uint32_t uid;
    sd_event_source *ready_source;
    sd_event_source *accept_source;
    sd_event_source *accept_again;
    sd_event_source *handshake_timer;
    struct cds_list_head silent[CROWD_RANKS]; /* of connection.silent, in order of arrival */
    struct log_limit lines;
};

/* Before anything else: so that crowd_deinit may be called. */
void crowd_init(struct crowd *crowd);

/* Clients are accepted from now on. 0 or -errno. */
int crowd_open(struct broker *broker);

/* The connections are gone. */
void crowd_deinit(struct crowd *crowd);

/* A connection is served from now on, and has to say who it is. 0 or -errno. */
int crowd_join(struct connection *connection);

/* It has joined otherwise than by being accepted: who has kept silent longest goes if that makes
 * too many, and may be freed in this call. So not from where a connection is being served. */
void crowd_admit(struct connection *newcomer);

/* It has said who it is; it is not READY yet. */
void crowd_greeted(struct connection *connection);

/* It is not served any more. */
void crowd_leave(struct connection *connection);

#endif
