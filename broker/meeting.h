/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/meeting.h - where two domains can have a channel.
 *
 * That is the first zone that both are in, and in which each of them that is a VM has a device and
 * an agent that has said AGENT_HELLO: without that nobody there could map the channel or be woken.
 *
 * A domain is a VM while it has an ivshmem device in any zone, else it is played by processes on
 * this host.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_MEETING_H
#define VCHAN_BROKER_MEETING_H

#include "broker/channel.h"

struct connection;

struct meeting {
    struct zone *zone;
    struct guest *guest[2]; /* of the server's, the client's end; NULL: it is on this host */
};

/*
 * For an open by this connection. -EPERM: they have no zone in common, or the connection is on this
 * host and its domain has become a VM; -ENOENT, -EHOSTDOWN: one of them cannot be reached now.
 * Explained.
 */
int meeting_find(struct connection *connection, const struct channel_key *key,
                 struct meeting *meeting);

#endif
