/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/follower.h - the thread that keeps a connection to libvirt and follows what its
 * domains do.
 *
 *   connect --> list all --> wait: a domain changed: look at it
 *      ^           |          |
 *      |           v          v
 *      +--- lost: libvirtd ended, does not answer, or cannot be reached; again after a pause that
 *           doubles, up to FOLLOWER_PAUSE_MAX_MS
 *
 * What it sees it notes down for the thread that speaks with the broker, which never waits for
 * libvirt. The thread lives as long as the process: nobody can end a call into libvirt.
 */
#ifndef VCHAN_BROKER_LIBVIRT_FOLLOWER_H
#define VCHAN_BROKER_LIBVIRT_FOLLOWER_H

#include "broker/libvirt/driver.h"

#define FOLLOWER_PAUSE_MIN_MS 250u
#define FOLLOWER_PAUSE_MAX_MS 15000u

enum follower_kind {
    FOLLOWER_DOMAIN,    /* domain: its state now, PROTO_HYPERVISOR_GONE included */
    FOLLOWER_CONNECTED, /* all that are there come next */
    FOLLOWER_COMPLETE,  /* they have come */
    FOLLOWER_LOST,      /* why; nothing is known of any domain */
};

struct follower_note {
    struct follower_note *next;
    enum follower_kind kind;
    struct driver_domain domain;
    char why[DRIVER_ERROR_BYTES];
};

struct follower;

/* Starts the thread. wake_fd: an eventfd that is rung when there are notes. -ENOMEM, -EAGAIN. */
int follower_new(const char *uri, int wake_fd, struct follower **out);

/* The notes, the oldest first: the caller's to free. NULL: none. */
struct follower_note *follower_take(struct follower *follower);

/* The connection, held, for driver_drop; NULL: there is none, why says so (DRIVER_ERROR_BYTES). */
struct driver *follower_driver(struct follower *follower, char *why);

#endif
