/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/shortage.h - says why there is no room, and who has it.
 */
#ifndef VCHAN_BROKER_SHORTAGE_H
#define VCHAN_BROKER_SHORTAGE_H

#include "broker/channel.h"

struct connection;

/* channel_new has failed with err for this ring (2: the page), and given all back: what the first
 * ring had is not among what the sentence says is held. Explains it to the connection; returns the
 * errno for the program: a quota, a region and a host that is full are all -ENOSPC to it. */
int shortage_refuse(struct connection *connection, int err, const struct zone *zone,
                    const struct channel_key *key, const struct channel_wishes *wishes,
                    unsigned ring);

/* The same when mover_ring_set has failed, not with -EINVAL, and the ring was to have this size. */
int shortage_refuse_resize(struct connection *connection, int err, const struct channel *channel,
                           unsigned ring, uint64_t size_bytes);

/* "12K", "3.5M": for people. */
#define SHORTAGE_SIZE_BYTES 16
const char *shortage_size(uint64_t bytes, char text[SHORTAGE_SIZE_BYTES]);

#endif
