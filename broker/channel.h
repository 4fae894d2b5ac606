/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/channel.h - a channel: page, two rings, two ends.
 *
 *                    client comes              an end goes             the other goes
 *     WAITING -----------------> CONNECTED --------------> CONNECTED, gone -----------> freed
 *        |  \                        |                          |
 *        |   \ the server goes       | BROKEN, shutdown         |
 *        |    +--> freed             v                          |
 *        +----------------------> CLOSED -----------------------+
 *
 * An end is the connection that opened it. When that goes (CHANNEL_CLOSE, death) its gone bit is
 * set, the other end woken, and its sleep lines are marked closed on its behalf. Page, extents and
 * record live until both ends are gone. The index by key has a channel only while its server end is
 * alive, so that the port can be served anew while the old client still drains; the index by number
 * has it until the end.
 *
 * What wakes an end: an eventfd of its own between two ends on this host, else a vector
 * (broker/guest.h). Both ends have theirs from the start, as each is told what wakes the other; an
 * end that goes gives its vector back.
 *
 * Threads: the event loop alone changes channels. Others find them in the tables under rcu_enter
 * and read: constants (the key, zone, number, incarnation, page), the words marked "plain"
 * (order_load_plain), and what channel_ring_view gives.
 */
#ifndef VCHAN_BROKER_CHANNEL_H
#define VCHAN_BROKER_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/doorbell.h"
#include "broker/guest.h"
#include "broker/mailbox.h"
#include "broker/rcu.h"
#include "broker/zone.h"
#include "ring/geometry.h"
#include "ring/layout.h"

struct connection;
struct mover_move;

struct channel_key {
    uint32_t server_domain;
    uint32_t client_domain;
    uint32_t port;
};

unsigned long channel_key_hash(const struct channel_key *key);
bool channel_key_equal(const struct channel_key *a, const struct channel_key *b);

/* Index in channel.end; the ring with the same index is what this end sends in. */
#define CHANNEL_SERVER LAYOUT_SERVER_SENDS
#define CHANNEL_CLIENT LAYOUT_CLIENT_SENDS

struct channel_end {
    struct connection *connection; /* event loop; NULL: not yet there, or gone */
    struct guest_vector vector;    /* event loop; of an end in a guest, or whose peer is in one */
    int event_fd;                  /* wakes it; event loop; the vector's, or own; -1: none now */
    bool deaf;                     /* event loop: waking it had to be interrupted */
    uint32_t pid;                  /* plain; 0: not yet there */
};

/* What other threads see of a ring's geometry: replaced whole, never changed. */
struct channel_ring_view {
    struct rcu_head rcu;
    uint64_t generation;
    struct ring_extent current;
    struct ring_extent old; /* size 0: not moving */
    uint64_t min_bytes;
    uint64_t max_bytes;
    uint32_t weight;
    enum ring_pin pin; /* why old is not free yet, as last seen */
    uint64_t resizes;  /* generations published after the first */
};

struct channel_ring {
    /* Event loop; call channel_ring_publish after a change. */
    struct ring_geometry geometry;
    uint64_t min_bytes; /* never smaller: what the server asked for; whole blocks, like all sizes */
    uint64_t max_bytes;
    uint32_t weight;
    enum ring_pin pin;
    uint64_t resizes;
    struct mover_move *move; /* owner: the mover; NULL: it does not move */
    uint64_t pause_ns;       /* the mover's: no plan for it is heard before, CLOCK_MONOTONIC */
    /* Constant. */
    uint64_t floor_bytes; /* what the server asked for: min_bytes is never set below it */
    uint32_t sender_domain;
    uint32_t receiver_domain;
    /* Published by the event loop: channel_ring_view. */
    struct channel_ring_view *view;
    /* Plain; writer: the rebalancer. When it last saw a byte sent or received, CLOCK_MONOTONIC; 0:
     * never. */
    uint64_t active_ns;
};

struct channel {
    struct cds_lfht_node by_number; /* owner: channels.by_number */
    struct cds_lfht_node by_key;    /* owner: channels.by_key, while `served` */
    struct rcu_head rcu;
    struct mailbox_letter retired; /* to channels.retired, after the grace period */
    struct channels *channels;
    struct channel_key key;
    struct zone *zone;
    uint32_t number; /* of its page, unique in the broker */
    uint32_t slot;   /* of its page in the zone */
    uint64_t incarnation;
    uint64_t opened_ns;               /* CLOCK_MONOTONIC */
    struct layout_channel_page *page; /* mapped for ever */
    uint32_t state;                   /* plain; LAYOUT_CHANNEL_* */
    uint32_t gone;                    /* plain; LAYOUT_GONE_* */
    int32_t reason;                   /* plain */
    bool served;                      /* event loop: it is in by_key */
    bool abandoned;                   /* event loop: its page stays as it is */
    struct channel_end end[2];
    struct channel_ring ring[2];
};

struct channels {
    struct cds_lfht *by_number;
    struct cds_lfht *by_key;
    uint32_t count;         /* plain */
    struct doorbell doorbell;
    struct mailbox retired; /* freed channels that no reader sees any more */
};

int channels_init(struct channels *channels, uint32_t channels_max);
/* No channel is left, and rcu_finish has been called. */
void channels_deinit(struct channels *channels);

/* The last of channel_free: call it when channels.retired rings. */
void channels_reap(struct channels *channels);

/* NULL: none. Under rcu_enter, or in the event loop. */
struct channel *channels_find(const struct channels *channels, uint32_t number);
/* The one whose server end is alive. */
struct channel *channels_find_key(const struct channels *channels, const struct channel_key *key);

/* Under rcu_enter, in no order. NULL: the end. */
struct channel *channels_first(const struct channels *channels, struct cds_lfht_iter *iterator);
struct channel *channels_next(const struct channels *channels, struct cds_lfht_iter *iterator);

struct channel_wishes {
    uint64_t min_bytes[2]; /* of each ring; powers of two, at least a block */
    uint64_t max_bytes[2]; /* whole blocks, not below the minimum */
    uint32_t weight;
    bool fence_sleep;
    struct guest *guest[2]; /* that each end is in; NULL: on this host */
};

/* Is that end in a guest? Until it has gone. */
static inline bool channel_end_in_guest(const struct channel *channel, unsigned end)
{
    return channel->end[end].vector.guest && !channel->end[end].vector.host;
}

/*
 * Makes a channel in state WAITING, with its server end's connection not yet set, and puts it into
 * both tables. -ENOSPC, -EDQUOT (*ring: whose extent there is no room for; 2: no page), -EMFILE,
 * -ENFILE, -ENOMEM, -ENOSR (guest_vector_take).
 */
int channel_new(struct channels *channels, struct zone *zone, const struct channel_key *key,
                const struct channel_wishes *wishes, uint64_t now_ns, struct channel **out,
                unsigned *ring);

/* Gives everything back: extents and page number now, the page's memory and the record after a
 * grace period. */
void channel_free(struct channel *channel);

/* The same, but leaves page and extents as they are, for ends that outlive the broker and read its
 * last word there. */
void channel_abandon(struct channel *channel);

/* An end comes: the client's makes it CONNECTED and wakes the server. */
void channel_attach(struct channel *channel, unsigned end, struct connection *connection,
                    uint32_t pid);

/* An end has gone. True: nobody is left, channel_free it. */
bool channel_detach(struct channel *channel, unsigned end);

/* The broker ends it: state CLOSED, both ends woken; they detach later. reason: errno, 0. gone:
 * more bits to set. */
void channel_close(struct channel *channel, int reason, uint32_t gone);

/* Rings the eventfd that an end sleeps on. */
void channel_wake(struct channel *channel, unsigned end);

/* RING_PRODUCER_DEAD, RING_CONSUMER_DEAD for ring/geometry.h: the ends that are gone. Event loop.
 */
unsigned channel_ring_dead(const struct channel *channel, unsigned ring);

/* Shows other threads what the ring's geometry is now. */
void channel_ring_publish(struct channel *channel, unsigned ring);
/* Under rcu_enter; never NULL. */
const struct channel_ring_view *channel_ring_view(const struct channel *channel, unsigned ring);

#endif
