/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/rings.h - lists of rings and channels as several commands need them.
 */
#ifndef VCHAN_CLIENT_CTL_RINGS_H
#define VCHAN_CLIENT_CTL_RINGS_H

#include "client/ctl/broker_link.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"

/* proto_ring_info, sorted by channel and ring. channel: PROTO_ANY for all. As broker_link_list. */
int rings_load(struct broker_link *link, uint32_t channel, struct broker_items *rings);

/* NULL: it is not in the list, or belongs to another incarnation of the channel. */
const struct proto_ring_info *rings_find(const struct broker_items *rings, uint32_t channel,
                                         uint32_t ring, uint64_t incarnation);

/* The ring's domain at the server end of its channel. */
uint32_t ring_server_domain(const struct proto_ring_info *ring);

/* "stalled moving pinned": the flags that are set. */
struct ring_flags_text {
    char text[32];
};
struct ring_flags_text ring_flags_text(uint32_t flags);

/* "waiting", "connected", "server gone", "client gone", "closed", "closed: Protocol error". */
struct channel_state_text {
    char text[64];
};
struct channel_state_text channel_state_text(uint32_t state, uint32_t gone, int32_t reason);

/* The object that stats and set write for a ring; the man page documents it. */
struct json *ring_json(const struct proto_ring_info *ring, const struct names *names);

#endif
