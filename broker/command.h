/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/command.h - what happens to a message: the rules of proto/proto.h, then a handler by
 * table.
 *
 * Event loop. A connection may be doomed afterwards. Descriptors that came with the message are
 * closed.
 */
#ifndef VCHAN_BROKER_COMMAND_H
#define VCHAN_BROKER_COMMAND_H

struct connection;
struct proto_message;

void command_dispatch(struct connection *connection, struct proto_message *message);

#endif
