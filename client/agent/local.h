/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/local.h - answers to programs while there is nobody to pass their requests on to.
 */
#ifndef VCHAN_AGENT_LOCAL_H
#define VCHAN_AGENT_LOCAL_H

#include "proto/socket.h"

/*
 * Answers a request: GET_VERSION as it should be, EXPLAIN with `why`, all else with -ENODEV. -errno
 * of sending.
 */
int local_answer(int socket, const struct proto_message *request, const char *why);

/* The text of EXPLAIN's reply. */
void local_text(struct proto_text *text, const char *why);

#endif
