/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/hypervisor.h - the broker's side of the hypervisor's helper (proto/guest.h), and the
 * commands about VMs that it carries out.
 *
 *   vchanctl            broker                                  vchan-libvirt
 *                         <- HYPERVISOR_SERVE, ..._DOMAIN (each)    it has come
 *     DOMAIN_ATTACH ->  request 7, is kept
 *                         event HYPERVISOR {7, ATTACH, device} ->   works as long as it takes
 *                         <- HYPERVISOR_DONE {7, err, text}
 *           <- reply    request 7 is forgotten
 *
 * Many requests are under way at once, and whoever asked may go before. A request ends when the
 * helper answers, when it goes (ECONNABORTED), or after HYPERVISOR_WAIT_S (ETIMEDOUT): the helper
 * answers sooner by itself, unless it is stopped. The broker waits for none of this.
 *
 * DOMAIN_DEVICE needs no helper.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_HYPERVISOR_H
#define VCHAN_BROKER_HYPERVISOR_H

struct broker;
struct connection;
struct hypervisor;
struct proto_message;

#define HYPERVISOR_WAIT_S 60u
#define HYPERVISOR_REQUESTS_MAX 256u
#define HYPERVISOR_REQUESTS_A_CLIENT 16u

/* -ENOMEM, and what sd-event gives. */
int hypervisor_new(struct broker *broker, struct hypervisor **out);
/* The connections are gone. */
void hypervisor_free(struct hypervisor *hypervisor);

/* Handlers for broker/command.c: 0 when it is answered or will be, else the error to answer. */
int hypervisor_serve(struct connection *connection, const struct proto_message *message);
int hypervisor_domain(struct connection *connection, const struct proto_message *message);
int hypervisor_done(struct connection *connection, const struct proto_message *message);
int hypervisor_ask(struct connection *connection, const struct proto_message *message);
int hypervisor_device(struct connection *connection, const struct proto_message *message);

/* May this connection be the helper? Root, and the user that the broker runs as. */
int hypervisor_may_serve(const struct connection *connection);

/* This connection ends: it may be the helper, or have asked. */
void hypervisor_left(struct connection *connection);

/* The configuration has been read again. */
void hypervisor_reloaded(struct broker *broker);

#endif
