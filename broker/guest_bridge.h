/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/guest_bridge.h - carries frames between a guest's mailbox and its sessions.
 *
 * A session is one end of a socket pair; the other is an ordinary connection (broker/connection.h)
 * that knows its guest. Frames are those of proto/guest.h.
 *
 *        mailbox ring 1                                       socket pair
 *   guest -------------> take_frames: OPEN makes a session, --------------> connection
 *                        DATA goes to it, CLOSE ends it
 *         <------------- send_frames: a message is a DATA,  <--------------
 *        mailbox ring 0  the end of a session a CLOSE
 *
 * All of it happens in turns, so many frames in each direction, then others have theirs. Between
 * two turns it sleeps for one of these, and never looks before it comes:
 *
 *   nothing to take       armed in the ring: the guest rings
 *   a session's socket is full: nothing more is taken; its connection reads (source `room`)
 *   no room in the ring: no socket is read; armed in the ring, the guest rings
 *   a session was refused and there is no room to say so: likewise, and nothing more is taken
 *
 * So a slow session holds up its own guest at most, and a guest that takes no replies has its
 * connections ended, one by one, as any client that does not read.
 *
 * Everything in the rings and around them is the guest's to write. The broker's ends
 * (ring/consumer.h, ring/producer.h) are told that the data section is the mailbox's own two
 * extents, so nothing that the guest writes makes them map, read or write anything else. What
 * breaks the rules ends the mailbox.
 *
 * Threads: the event loop's.
 */
#ifndef VCHAN_BROKER_GUEST_BRIDGE_H
#define VCHAN_BROKER_GUEST_BRIDGE_H

#include <stdint.h>

#include "broker/guest.h"
#include "ring/geometry.h"

struct guest_bridge;

/* Sessions of one guest: an eighth of all connections, and so many at least. */
#define GUEST_BRIDGE_SESSIONS_MIN 16u

/* It is over: err says why (-EPIPE: the agent has closed it), and the owner frees the bridge. */
typedef void guest_bridge_ended(struct guest *guest, int err);

/*
 * The page is ready, its extents are those; both rings are at their beginning. 0, -EMFILE, -ENFILE,
 * -ENOMEM.
 */
int guest_bridge_new(struct guest *guest, struct layout_channel_page *page,
                     const struct ring_extent extent[2], guest_bridge_ended *ended,
                     struct guest_bridge **out);

/* Ends all sessions; their connections are doomed. NULL: nothing. */
void guest_bridge_free(struct guest_bridge *bridge);

/* The guest rang. The bridge may have ended afterwards. */
void guest_bridge_turn(struct guest_bridge *bridge);

#endif
