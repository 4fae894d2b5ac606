/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/shortage.h - says why there is no room, and who has it.
 */
#ifndef VCHAN_BROKER_SHORTAGE_H
#define VCHAN_BROKER_SHORTAGE_H

#include "broker/channel.h"

struct connection;

/* channel_new has failed with err for this ring (2: the page). Explains it to the connection;
 * returns the errno for the program: a quota and a region that is full are both -ENOSPC to it. */
int shortage_refuse(struct connection *connection, int err, const struct zone *zone,
                    const struct channel_key *key, const struct channel_wishes *wishes,
                    unsigned ring);

/* "12K", "3.5M": for people. */
#define SHORTAGE_SIZE_BYTES 16
const char *shortage_size(uint64_t bytes, char text[SHORTAGE_SIZE_BYTES]);

#endif
