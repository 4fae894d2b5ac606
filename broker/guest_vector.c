/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The vectors of broker/guest.h: who has which, and who shares the last one. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/guest.h"
#include "broker/guest_bell.h"
#include "ring/order.h"

/* The numbers that ringer's doorbell reaches are those below this. Where an agent polls, nobody
 * rings, or it is not known what its device has. */
static uint32_t reach_of(const struct guest *ringer, const struct guest *guest)
{
    if (!ringer || ((ringer->flags | guest->flags) & PROTO_AGENT_POLLS))
        return GUEST_VECTORS_MAX;
    return ringer->device_vectors;
}

/* The lowest number that nobody has, else the shared one; if that is beyond reach, it is that. */
static uint32_t pick(const struct guest *guest, uint64_t used, uint32_t reach)
{
    const uint32_t shared = guest_vector_shared(guest);

    for (uint32_t number = GUEST_VECTOR_MAILBOX + 1; number < shared && number < reach; number++)
        if (!(used >> number & 1))
            return number;
    return shared;
}

static int take_for_host(struct guest *guest, struct guest_vector *vector)
{
    vector->event_fd = guest->host_event[vector->number];
    if (vector->number == guest_vector_shared(guest)) {
        vector->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (vector->event_fd < 0)
            return -errno;
        cds_list_add_tail(&vector->link, &guest->shared_ends);
        return 0;
    }
    /* Who had it last may have filled its count, and no ring would wake anybody any more. */
    doorbell_drain(&guest->broker->channels.doorbell, vector->event_fd);
    guest->host_vectors_used |= (uint64_t)1 << vector->number;
    return 0;
}

static void take_in_guest(struct guest *guest, struct guest_vector *vector)
{
    vector->event_fd = guest->event[vector->number];
    if (vector->number != guest_vector_shared(guest))
        guest->vectors_used |= (uint64_t)1 << vector->number;
}

int guest_vector_take(struct guest *guest, bool host, const struct guest *ringer,
                      struct guest_vector *vector, uint32_t *doorbell)
{
    const uint32_t reach = reach_of(ringer, guest);

    *vector = (struct guest_vector){
        .host = host,
        .number = pick(guest, host ? guest->host_vectors_used : guest->vectors_used, reach),
    };
    CDS_INIT_LIST_HEAD(&vector->link);
    if (vector->number >= reach)
        return -ENOSR;
    if (host) {
        int r = take_for_host(guest, vector);
        if (r < 0)
            return r;
    } else {
        take_in_guest(guest, vector);
    }
    vector->guest = guest;
    guest->users++;
    *doorbell = (host ? LAYOUT_PEER_HOST : guest->id) << 16 | vector->number;
    return 0;
}

void guest_vector_give(struct guest_vector *vector)
{
    struct guest *guest = vector->guest;
    const uint64_t bit = (uint64_t)1 << vector->number;

    if (!guest)
        return;
    if (!vector->host) {
        guest->vectors_used &= ~bit;
    } else if (!cds_list_empty(&vector->link)) {
        cds_list_del(&vector->link);
        close(vector->event_fd);
    } else {
        guest->host_vectors_used &= ~bit;
    }
    *vector = (struct guest_vector){.event_fd = -1};
    guest_unuse(guest);
}

void guest_use_vectors(struct guest *guest, uint32_t device_vectors)
{
    uint32_t count = device_vectors < guest->vectors ? device_vectors : guest->vectors;

    order_store_plain(&guest->device_vectors, count);
    int r = guest->mailbox_bell ? guest_bells_watch(guest) : 0;
    if (r < 0)
        log_error(&guest->broker->log, "domain %u in zone %s: its doorbells are not heard: %s",
                  guest->domain, guest->zone->name, strerror(-r));
}

void guest_ring_shared(struct guest *guest)
{
    struct guest_vector *vector;

    cds_list_for_each_entry(vector, &guest->shared_ends, link)
        doorbell_ring(&guest->broker->channels.doorbell, vector->event_fd);
}
