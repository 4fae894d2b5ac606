/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/inspector.h - the thread that answers listings.
 *
 * LIST_DOMAINS, LIST_CHANNELS, LIST_RINGS, LIST_GUESTS and LIST_HISTORY walk tables of thousands of
 * records. The event loop checks the request and posts it; this thread reads the tables under RCU
 * and sends the reply on the client's socket itself, so the event loop spends a microsecond on it.
 * It sleeps while nothing is asked.
 */
#ifndef VCHAN_BROKER_INSPECTOR_H
#define VCHAN_BROKER_INSPECTOR_H

struct broker;
struct connection;
struct inspector;
struct proto_message;

/* Starts the thread. It reads broker->domains, channels and history. 0 or -errno. */
int inspector_new(struct broker *broker, struct inspector **out);
/* Stops it; what it has not answered stays unanswered. NULL: nothing. */
void inspector_free(struct inspector *inspector);

/* Hands a checked listing request over. 0, or the error to answer. Dooms a client that asks for
 * more and more without waiting. */
int inspector_ask(struct inspector *inspector, struct connection *connection,
                  const struct proto_message *message);

#endif
