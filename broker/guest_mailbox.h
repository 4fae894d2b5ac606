/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/guest_mailbox.h - the life of a guest's mailbox, as struct layout_peer tells it.
 *
 *               a new request                a new request, or it breaks
 *   (none) ------------------------> open ------------------------------> ended
 *              ^     at once, or when    |                                  |
 *              |     it is due           | guest_mailbox_free               |
 *              |                         v                                  |
 *              |                       freed                                |
 *              +------------------------------------------------------------+
 *                                    a new request
 *
 * An agent that restarts is served at once, one that asks again and again GUEST_MAILBOX_PAUSE_MS
 * after its last: so many mailboxes a second and no more. When the region has no room, it is tried
 * again after a while for as long as the request stands.
 *
 * A mailbox is a channel page and two extents, charged to the host; they carry the guest's number
 * in the allocator's books (guest_mailbox_cookie), so that listings can say whose they are, and
 * compaction, which finds no channel of that number, leaves them where they are. The guest may
 * write into them for as long as it likes, as it may into all of its zone.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_GUEST_MAILBOX_H
#define VCHAN_BROKER_GUEST_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/guest.h"

#define GUEST_MAILBOX_PAUSE_MS 100u
#define GUEST_MAILBOX_RETRY_MS 1000u

/*
 * The guest rang the mailbox's vector: looks whether it asks for a mailbox, and at what came in the
 * one it has. Not from where a connection is being served: it may free those that are doomed.
 */
void guest_mailbox_look(struct guest *guest);

/* Ends the mailbox; the guest is on its way out, or the broker is. */
void guest_mailbox_free(struct guest *guest);

/* For the allocator's books; ring as in zone_cookie. */
uint64_t guest_mailbox_cookie(uint32_t page_number, unsigned ring, uint32_t domain);
/* Is it a mailbox's? Then *domain is whose. zone_cookie_channel and zone_cookie_ring work as
 * ever. */
bool guest_mailbox_owns(uint64_t cookie, uint32_t *domain);

#endif
