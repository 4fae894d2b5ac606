/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/channel.h - struct vchan, one end of a channel. Internal to client/.
 *
 * Each side (receiving, sending) belongs to one thread at a time and lies in cache lines of its
 * own. The rest is constant while the channel is open, or atomic (order_load_plain and the like)
 * where the comment says so.
 */
#ifndef VCHAN_CLIENT_CHANNEL_H
#define VCHAN_CLIENT_CHANNEL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/connection.h"
#include "client/vchan.h"
#include "ring/consumer.h"
#include "ring/layout.h"
#include "ring/memory.h"
#include "ring/order.h"
#include "ring/producer.h"

#define channel_likely(condition) __builtin_expect(!!(condition), 1)
#define channel_unlikely(condition) __builtin_expect(!!(condition), 0)

struct side {
    uint32_t ring;      /* LAYOUT_SERVER_SENDS or LAYOUT_CLIENT_SENDS */
    /* atomic: 0; -EPROTO broken, -EPIPE shut down here: no call does anything any more */
    int refused;
    int epoll;          /* atomic: what it sleeps on; -1 until it first does */
    uint32_t window_ns; /* how long it spins before it sleeps */
    uint32_t rings;     /* doorbells since the last report */
    uint64_t told_ns;   /* when the broker was last told that it lacks space */
};

struct vchan {
    struct connection connection;
    uint32_t open_seq; /* of CHANNEL_OPEN; 0: opened already */
    int peer_domain, local_domain, port;
    char *socket_path; /* while opening; NULL: the default */

    struct ring_memory memory;
    struct layout_channel_page *page; /* NULL: not open */
    uint64_t incarnation;             /* of the page, while it is this channel's */
    int own_event;                    /* never read, see client/wait.h */
    int peer_event;                   /* -1 in a guest */
    uint8_t *device;                  /* in a guest: BAR0; else NULL */
    uint32_t role; /* PROTO_OPEN_SERVER or PROTO_OPEN_CLIENT */
    uint64_t receive_min, send_min;

    int watch;      /* atomic: the public descriptor, -1 until somebody asks */
    int peer_pidfd; /* atomic: -1; see client/wait.h */
    bool orphaned;  /* atomic: the broker is gone; in a guest, its agent */
    bool peer_dead; /* atomic: we found out ourselves, there being no broker to say so */
    bool broken;    /* atomic */
    bool device_left; /* atomic: see client/bar.h */

    struct {
        struct ring_consumer ring;
        struct side side;
        bool left; /* the device; see client/bar.h */
    } receiving __attribute__((aligned(128)));
    struct {
        struct ring_producer ring;
        struct side side;
    } sending __attribute__((aligned(128)));
};

static inline struct layout_ring *channel_receiving_ring(const struct vchan *v)
{
    return &v->page->ring[v->receiving.side.ring];
}

static inline struct layout_ring *channel_sending_ring(const struct vchan *v)
{
    return &v->page->ring[v->sending.side.ring];
}

/* The domain that options, or the environment, name. -EINVAL, explained. */
int channel_local_domain(const struct vchan_options *options);

/*
 * The broker ended this end and its peer's, and may have given the page and the extents to another
 * channel: nothing of ours is to be written there any more. An end on the host is told by its
 * socket in time; in a guest it is the agent that may have gone, and this end may not have looked
 * since. Any thread.
 */
static inline bool channel_has_lost_page(const struct vchan *v)
{
    return order_load_plain(&v->page->channel.incarnation) != v->incarnation;
}

/* The other end has closed or died. Any thread. */
bool channel_is_gone(const struct vchan *v);

/* Both ends are there. Any thread. */
bool channel_is_connected(const struct vchan *v);

/*
 * Nothing comes from the other end any more but what is there, though the ring may not say so:
 * there is nobody to write it. Any thread.
 */
bool channel_is_deserted(const struct vchan *v);

/* Rings the other end, once, and reports to the broker every so often. In the side's thread. */
void channel_ring_peer(struct vchan *v, struct side *side);

/* Wakes whoever sleeps here, for nothing. Any thread. */
void channel_wake_self(const struct vchan *v);

/*
 * A ring function said -EPROTO: tells the broker, once; both sides are refused from now on. Returns
 * -EPROTO.
 */
int channel_break(struct vchan *v, const struct side *side);

#endif
