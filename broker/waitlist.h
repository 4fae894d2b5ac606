/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/waitlist.h - clients that wait for a server, first come first served for each channel
 * name.
 *
 * Event loop only. A waiter lives in its connection.
 */
#ifndef VCHAN_BROKER_WAITLIST_H
#define VCHAN_BROKER_WAITLIST_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "broker/channel.h"

#define WAITLIST_BUCKETS 1024u

struct waiter {
    struct cds_list_head link; /* owner: waitlist.buckets, while waiting */
    bool waiting;
    struct channel_key key;
};

struct waitlist {
    struct cds_list_head buckets[WAITLIST_BUCKETS];
};

void waitlist_init(struct waitlist *list);
void waitlist_add(struct waitlist *list, struct waiter *waiter, const struct channel_key *key);
void waitlist_remove(struct waiter *waiter); /* nothing if it does not wait */
/* The one that waits longest for a server of that name; it stays. NULL: nobody does. */
struct waiter *waitlist_first(struct waitlist *list, const struct channel_key *key);
/* Each one, whatever its name. In it, that waiter may be removed, and no other. */
void waitlist_each(struct waitlist *list, void (*each)(struct waiter *waiter, void *data),
                   void *data);

#endif
