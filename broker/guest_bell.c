/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/guest_bell.h"

#include <sys/epoll.h>

#include "broker/broker.h"
#include "broker/guest_mailbox.h"

static int on_mailbox(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    struct guest *guest = context;

    (void)source;
    (void)descriptor;
    (void)events;
    /* A device with a single vector. */
    if (guest_vector_shared(guest) == GUEST_VECTOR_MAILBOX)
        guest_ring_shared(guest);
    guest_mailbox_look(guest);
    return 0;
}

static int on_shared(sd_event_source *source, int descriptor, uint32_t events, void *context)
{
    (void)source;
    (void)descriptor;
    (void)events;
    guest_ring_shared(context);
    return 0;
}

static int watch(struct guest *guest, uint32_t vector, sd_event_io_handler_t handler,
                 sd_event_source **source)
{
    int r = sd_event_add_io(guest->broker->event, source, guest->host_event[vector],
                            EPOLLIN | EPOLLET, handler, guest);

    /* When the window is over the eventfd is put back into the poll set, which is an edge. */
    if (r >= 0)
        r = sd_event_source_set_ratelimit(*source, GUEST_BELL_WINDOW_MS * 1000u, GUEST_BELL_RINGS);
    return r < 0 ? r : 0;
}

int guest_bells_watch(struct guest *guest)
{
    guest_bells_stop(guest);
    int r = watch(guest, GUEST_VECTOR_MAILBOX, on_mailbox, &guest->mailbox_bell);
    if (r == 0 && guest_vector_shared(guest) != GUEST_VECTOR_MAILBOX)
        r = watch(guest, guest_vector_shared(guest), on_shared, &guest->shared_bell);
    if (r < 0)
        guest_bells_stop(guest);
    return r;
}

void guest_bells_stop(struct guest *guest)
{
    guest->mailbox_bell = sd_event_source_disable_unref(guest->mailbox_bell);
    guest->shared_bell = sd_event_source_disable_unref(guest->shared_bell);
}
