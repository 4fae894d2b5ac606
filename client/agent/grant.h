/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/grant.h - what a program gets with a channel: its device's descriptors and a vector.
 */
#ifndef VCHAN_AGENT_GRANT_H
#define VCHAN_AGENT_GRANT_H

#include <stdbool.h>

#include "proto/socket.h"

struct session;

/*
 * Sends a reply to CHANNEL_OPEN on: completed, or, when the device is not there, as an error of our
 * own. -errno of sending.
 */
int grant_deliver(struct session *session, struct proto_message *reply);

/* The channel is no longer the program's, as far as we are concerned. */
void grant_take_back(struct session *session);

/* Is it a reply that says so? */
bool grant_succeeded(const struct proto_message *reply);

#endif
