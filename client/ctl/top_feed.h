/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/top_feed.h - a thread that takes top's samples, so that a broker that is slow, hangs
 * or has gone never holds up the keys.
 */
#ifndef VCHAN_CLIENT_CTL_TOP_FEED_H
#define VCHAN_CLIENT_CTL_TOP_FEED_H

#include "client/ctl/top_sample.h"

struct top_feed;

/* Takes the link of ctl over, which has none from then on. 0 or -errno. */
int top_feed_new(struct ctl *ctl, unsigned interval_ms, struct top_feed **out);

/* Ends it. A thread that waits for a broker that hangs is left to the end of the process, with all
 * that it has. */
void top_feed_free(struct top_feed *feed);

/* Readable when there is a new sample. */
int top_feed_descriptor(const struct top_feed *feed);

/* The newest sample, the caller's from then on; NULL: there is no new one, or (with *failed)
 * there will be no more, for want of memory. */
struct top_sample *top_feed_take(struct top_feed *feed, bool *failed);

#endif
