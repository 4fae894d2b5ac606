/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/guest.h - a VM's ivshmem device in one zone: a peer with a number, vectors and a mailbox.
 *
 *          QEMU connects                  its agent asks for a mailbox
 *   (none) -------------> CONNECTED -------------------------------------> ATTACHED
 *                            |  ^        the mailbox breaks, or its agent       |  |
 *                            |  +------------------ asks anew -----------------+  |
 *                            +------> freed <--------------------------------------+
 *                              QEMU's socket closes: the VM is dead, rebooting into another
 *                              device, or the device was unplugged
 *
 * Vectors. A guest and the host have `vectors` each for one another. The host's are per guest too
 * (QEMU is told of peer 0 with eventfds that no other guest has), so one guest's flood is its own.
 * Number 0 is the mailbox's, the last one is shared, each between wakes one end of one channel,
 * while they last. An end whose number is shared sleeps on an eventfd of its own: the agent (in the
 * guest) and guest_ring_shared (on the host) pass a ring on to all of them.
 *
 *                     what wakes it                      who holds it to ring
 *   end in a guest    event[vector]   (QEMU reads it)    broker, host programs, other guests' QEMUs
 *   end on the host   host_event[vector] or its own      broker, this guest's QEMU
 *
 * A guest that is gone is in no table, but its record and eventfds stay until the last vector has
 * been given back: the ends that its channels leave behind are still to be woken.
 *
 * All of it is the event loop's; other threads find guests in the table under rcu_enter and read
 * constants and words marked "plain".
 */
#ifndef VCHAN_BROKER_GUEST_H
#define VCHAN_BROKER_GUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>
#include <urcu/list.h>

#include "broker/rcu.h"
#include "broker/zone.h"
#include "proto/guest.h"
#include "ring/layout.h"

struct broker;
struct guest_mailbox;
struct ivshmem_connection;

#define GUEST_VECTORS_MAX 64u
#define GUEST_VECTOR_MAILBOX 0u

struct guest {
    struct cds_lfht_node node; /* owner: guests.table, by zone and domain */
    struct rcu_head rcu;
    /* Constant. */
    struct broker *broker;
    struct zone *zone;
    uint32_t domain;
    uint32_t id; /* IVPosition, 1 to REGION_PEERS - 1 */
    uint32_t qemu_pid;
    uint32_t vectors; /* that the broker offers, at least 2 */
    uint64_t arrival; /* counts the guests that there have been, from 1 */
    uint64_t connected_ns;
    int event[GUEST_VECTORS_MAX];      /* rung to interrupt the guest */
    int host_event[GUEST_VECTORS_MAX]; /* rung by the guest */
    /* Plain. */
    uint32_t device_vectors; /* that are in use: at most `vectors`; guest_use_vectors */
    uint32_t flags;          /* PROTO_AGENT_* */
    uint32_t sessions;
    uint32_t mailboxes; /* that there have been */
    uint32_t state;     /* PROTO_GUEST_* */
    char version[32];   /* of the agent */
    /* Event loop. */
    uint32_t users;             /* the vectors that are held, and one while it is in the table */
    uint64_t vectors_used;      /* bits: those of its ends, 0 and the last never */
    uint64_t host_vectors_used; /* likewise */
    struct cds_list_head
        shared_ends; /* of guest_vector.link: ends on the host that share the last */
    struct ivshmem_connection *connection;
    sd_event_source *mailbox_bell, *shared_bell; /* owner: guest_bell.c */
    struct guest_mailbox *mailbox;               /* NULL: none */
};

/* Who has which number in one zone. */
struct guest_numbers {
    struct guest *guest[REGION_PEERS]; /* NULL: free */
    uint64_t left[REGION_PEERS]; /* when it became free, counted in departures; 0: never used */
};

struct guests {
    struct cds_lfht *table;
    uint32_t count;                /* plain */
    struct guest_numbers *numbers; /* event loop; of each zone */
    uint64_t arrivals, departures; /* event loop */
};

int guests_init(struct guests *guests, uint32_t zone_count);
void guests_deinit(struct guests *guests); /* none is left, and rcu_finish has been called */

/*
 * QEMU has connected on the socket of that domain and zone: makes the record, its number and
 * eventfds, and writes its entry of the table of peers. -EBUSY: the domain has a device in this
 * zone already; -ENOSPC: all numbers are in use; -EMFILE, -ENFILE, -ENOMEM.
 */
int guest_new(struct broker *broker, struct zone *zone, uint32_t domain, uint32_t qemu_pid,
              struct guest **out);

/*
 * QEMU is gone: ends the mailbox and with it all sessions (their channel ends go, peers see the
 * disconnection after the last byte), closes channels that wait for this guest, takes it out of
 * the table.
 */
void guest_free(struct guest *guest);

/* NULL: nobody has that number there. Event loop. */
struct guest *guests_by_id(const struct guests *guests, const struct zone *zone, uint32_t id);

/* NULL: none. Under rcu_enter, or in the event loop. */
struct guest *guests_find(const struct guests *guests, const struct zone *zone, uint32_t domain);
/* Any zone. */
struct guest *guests_find_domain(const struct guests *guests, uint32_t domain);
/* Under rcu_enter, in no order. NULL: the end. */
struct guest *guests_first(const struct guests *guests, struct cds_lfht_iter *iterator);
struct guest *guests_next(const struct guests *guests, struct cds_lfht_iter *iterator);

/*
 * Its device has so many vectors (1 at least), as the agent said: no more than that will be used.
 * Until then it is taken to have as many as the broker offers.
 */
void guest_use_vectors(struct guest *guest, uint32_t device_vectors);

/* The number that the ends share which have none of their own. */
static inline uint32_t guest_vector_shared(const struct guest *guest)
{
    return guest->device_vectors - 1;
}

/* What wakes one end of a channel between a guest and somebody else. It stays where it is while it
 * is held. */
struct guest_vector {
    struct cds_list_head link; /* owner: guest.shared_ends, of a host's end that shares */
    struct guest *guest;       /* whose vector it is; NULL: none is held */
    bool host;                 /* one of the host's for that guest */
    uint32_t number;
    int event_fd; /* to ring the end: borrowed, but own if a host's end shares */
};

/*
 * For an end in the guest; for an end on the host whose peer is that guest. ringer: the guest that
 * the other end is in, NULL when it is on the host, or the end is; a QEMU knows no more vectors of
 * a peer than its own device has. *doorbell is what the other end's guest stores to ring it:
 * (peer << 16) | vector. 0, -EMFILE, -ENFILE; -ENOSR: there is none left that ringer can ring.
 */
int guest_vector_take(struct guest *guest, bool host, const struct guest *ringer,
                      struct guest_vector *vector, uint32_t *doorbell);
void guest_vector_give(struct guest_vector *vector);

/* One who used it does so no longer: the last one's ends the record. */
void guest_unuse(struct guest *guest);

/* The guest rang the host's last vector: wakes all that share it. */
void guest_ring_shared(struct guest *guest);

#endif
