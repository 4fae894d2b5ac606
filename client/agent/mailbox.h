/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/mailbox.h - a device's mailbox: frames to and from the broker (proto/guest.h), and
 * how one is got (ring/layout.h: struct layout_peer).
 *
 *             mailbox_start           the broker has answered
 *   IDLE ------------------> ASKED ---------------------------> OPEN
 *                             ^ |  \ no answer: rung again every |
 *                             | +---+ ASK_AGAIN_MS, then asked   |
 *                             |       anew: somebody in the zone |
 *                             |       may have spoilt the entry  |
 *                             |                                  | the broker ended it, or it
 *                             +------ after a pause -------------+ is rubbish
 *
 * Frames are taken in turns of some, from the loop, whenever vector 0 is rung. Where nothing rings
 * (sysfs), mailbox_look is called by who polls.
 */
#ifndef VCHAN_AGENT_MAILBOX_H
#define VCHAN_AGENT_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "client/agent/device.h"
#include "client/agent/loop.h"
#include "proto/guest.h"
#include "ring/consumer.h"
#include "ring/producer.h"

struct mailbox_handlers {
    void (*opened)(void *context);
    /* A sound frame; data is the mailbox's until it returns. */
    void (*frame)(void *context, const struct proto_frame *frame, const uint8_t *data);
    /* Vector 0 has been rung, for this or that. */
    void (*rung)(void *context);
    /* mailbox_has_room holds again. */
    void (*room)(void *context);
    /* It was open. why: a sentence. */
    void (*closed)(void *context, const char *why);
};

enum mailbox_state { MAILBOX_IDLE, MAILBOX_ASKED, MAILBOX_OPEN };

struct mailbox {
    struct device *device;
    struct loop *loop;
    const struct mailbox_handlers *handlers;
    void *context;
    enum mailbox_state state;
    uint32_t request; /* the last that was stored */
    uint32_t rung_again; /* for that one */
    uint32_t pause_ms;
    int event_fd;     /* of vector 0; our own, so nobody can fill it */
    struct loop_source event, timer;
    /* OPEN: */
    struct ring_memory memory;
    struct layout_channel_page *page;
    struct ring_producer sending;
    struct ring_consumer receiving;
    size_t needed;   /* bytes of the next frame, as far as is known */
    bool wants_room; /* mailbox_has_room said no */
    const char *failed; /* mailbox_fail; NULL */
    const void *guarded[2]; /* what guard_add knows of the rings */
    uint8_t data[PROTO_MESSAGE_BYTES_MAX];
};

/* The device is open. Asks for a mailbox. */
int mailbox_start(struct mailbox *mailbox, struct device *device, struct loop *loop,
                  const struct mailbox_handlers *handlers, void *context);
/* Tells the broker that it ends, if it is open; nobody is called back. Before device_close. */
void mailbox_stop(struct mailbox *mailbox);

/* The owner cannot go on with this one: it ends, from the loop, and another one is asked for. */
void mailbox_fail(struct mailbox *mailbox, const char *why);

/* Vector 0 was rung, or it is time to look. */
void mailbox_look(struct mailbox *mailbox);

/* For any frame. False: `room` is called when there is. */
bool mailbox_has_room(struct mailbox *mailbox);

/*
 * Sends a frame: `size` bytes in one or two parts. Only when it has room. Nothing happens when it
 * is not open; when it cannot be sent, `closed` comes from the loop, not from here.
 */
void mailbox_send(struct mailbox *mailbox, uint16_t kind, uint32_t session, const void *head,
                  size_t head_bytes, const void *rest, size_t rest_bytes);

#endif
