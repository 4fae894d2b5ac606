/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/libvirt/uplink.h - the helper's connection to the broker.
 *
 * The broker answers at once or is lost: calls wait for it, UPLINK_WAIT_S at most. Its events come
 * at any time and queue up.
 */
#ifndef VCHAN_BROKER_LIBVIRT_UPLINK_H
#define VCHAN_BROKER_LIBVIRT_UPLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/guest.h"
#include "proto/socket.h"

#define UPLINK_WAIT_S 5
#define UPLINK_EVENTS 256u /* as many requests as the broker has under way */

struct uplink {
    int socket; /* -1: none */
    uint32_t seq;
    struct proto_event_hypervisor events[UPLINK_EVENTS];
    unsigned first_event, event_count;
    char why[PROTO_TEXT_BYTES]; /* the last call failed */
    struct proto_message message;
};

/* Connects (path: NULL for the default) and says for which hypervisor it serves. 0, or -errno with
 * why; then it is closed. */
int uplink_open(struct uplink *uplink, const char *path, const char *name);
void uplink_close(struct uplink *uplink);

/*
 * A command and its reply (reply_bytes, may be NULL with 0). 0; the broker's -errno, with why; or
 * the connection is lost, and closed.
 */
int uplink_call(struct uplink *uplink, uint16_t id, const void *body, size_t bytes, void *reply,
                size_t reply_bytes);

/* The socket is readable: takes what came. 0, or the connection is lost, and closed. */
int uplink_receive(struct uplink *uplink);

/* The oldest event. False: there is none. */
bool uplink_event(struct uplink *uplink, struct proto_event_hypervisor *event);

#endif
