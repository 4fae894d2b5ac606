/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/guest_bell.h - hears a guest that rings the broker: the host's vectors for the mailbox and
 * for all who share the last one.
 *
 * The eventfds are watched for edges and never read: they are shared descriptions, and a read of
 * one could be made to wait. What a ring means is in shared memory, so it does not matter how often
 * it rang: a guest that floods is not listened to for the rest of BELL_WINDOW_MS, and looked at
 * again then.
 */
#ifndef VCHAN_BROKER_GUEST_BELL_H
#define VCHAN_BROKER_GUEST_BELL_H

#define GUEST_BELL_WINDOW_MS 10u
#define GUEST_BELL_RINGS 20u /* that are heard in a window */

struct guest;

/* From now on; or anew, because another vector is the last. 0 or -errno of sd-event. */
int guest_bells_watch(struct guest *guest);
void guest_bells_stop(struct guest *guest);

#endif
