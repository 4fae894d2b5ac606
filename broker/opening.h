/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/opening.h - CHANNEL_OPEN: who serves, who connects, who waits.
 *
 * M asks for peer P and a port. (S, C) is the channel with server domain S and client domain C on
 * that port.
 *
 *   SERVER      makes (M, P). EADDRINUSE while the server end of another (M, P) is alive,
 *               connected or not.
 *   CLIENT      connects to (P, M) if that waits for its client; else queues, or gets ENXIO with
 *               NONBLOCK.
 *   RENDEZVOUS  connects to (P, M) if that waits for its client; else serves (M, P).
 *
 * Whoever makes a channel gets the longest waiting client of its name at once. A connected channel
 * serves nobody else: who comes next waits for the next server.
 *
 * Whoever makes a channel for which enough is free, but not in one run, waits until rings have been
 * moved (broker/compaction.h), some 20 ms; then it is as if it had asked only now. After five
 * seconds, or when no move helps, it gets ENOSPC.
 *
 * Guests. A channel lies in a zone where both ends can be (broker/meeting.h); an end in a guest
 * gets no descriptors, its agent has them. When a guest's device goes, all that hung on it ends as
 * if its programs had died: channels with an end in it are closed, also those that wait for a
 * client in it, so that their servers see the end and come again when the guest does. A client
 * that waits for a server there gets what it would get if it asked now, EHOSTDOWN for one, and
 * goes on waiting if that is nothing (the domain has another device, or can be played on this
 * host). A channel that waits for a client on this host, whose domain has become a VM since, is
 * closed when the first client comes from the VM: its server holds a doorbell that reaches nobody
 * there.
 *
 * An end whose socket the kernel knows to be closed, but whose closing the event loop has not come
 * to yet, is passed over.
 */
#ifndef VCHAN_BROKER_OPENING_H
#define VCHAN_BROKER_OPENING_H

#include <stdint.h>

#include "proto/proto.h"

struct connection;
struct guest;

/* 0: answered, or will be; or the error to answer, explained. Event loop, state READY. */
int opening_request(struct connection *connection, uint32_t seq,
                    const struct proto_channel_open *open);

/* The device has gone: it is not in the table of guests any more, and its mailbox has ended. Event
 * loop. */
void opening_guest_gone(const struct guest *guest);

#endif
