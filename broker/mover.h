/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/mover.h - carries plans out: gives rings their next extent and takes the old one back.
 *
 * A live ring cannot grow where it is (it is mapped twice in a row, and positions count modulo its
 * size), so every change is a new extent. A move goes through
 *
 *     WAITING ----> FILLING ----> PUBLISHED <----> RECLAIMING ----> EMPTYING ----> done
 *        |             |              |                                 ^
 *        v             v              +---------------------------------+
 *     refused       given up             the consumer has followed
 *
 *   WAITING     for memory that shrinking rings of the same plan give back, a second at most; then
 *               for rings to be moved together, if that is what is in the way
 *               (broker/compaction.h), five seconds at most; else it is refused.
 *   FILLING     the extent is allocated and made present, MOVER_STEP_BYTES an iteration of the
 *               event loop.
 *   PUBLISHED   the generation is out. ring_geometry_followed is tried after 1 ms, then at doubling
 *               distances. Not followed after 5 ms: it is idle, or slow, and joins the next grace
 *               period.
 *   RECLAIMING  that is running, in the rebalancer's thread. One serves all rings that wait for
 *               one.
 *   EMPTYING    the old extent is punched out, then goes back to the allocator.
 *
 * Threads: the event loop's, but for mover_counts. It never waits.
 */
#ifndef VCHAN_BROKER_MOVER_H
#define VCHAN_BROKER_MOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "broker/channel.h"
#include "broker/compaction.h"
#include "broker/history.h"
#include "broker/log.h"
#include "broker/mailbox.h"
#include "broker/rebalancer.h"
#include "proto/proto.h"

#define MOVER_STEP_BYTES (4u << 20)

struct mover;

/* All of it must outlive the mover. */
struct mover_setup {
    sd_event *event;
    struct channels *channels;
    struct history *history;
    struct rebalancer *rebalancer;
    const struct log *log;
};

int mover_new(const struct mover_setup *setup, struct mover **out); /* 0 or -errno */

/*
 * After rebalancer_stop. Moves under way end here: what channel_free does not know of is given
 * back. Commands not yet answered are answered with -ECANCELED. NULL is ignored.
 */
void mover_free(struct mover *mover);

/* For rebalancer_start. */
struct mailbox *mover_mailbox(struct mover *mover);

/* Before channel_free, always: what the mover holds for its rings is given back. */
void mover_forget(struct mover *mover, struct channel *channel);

/*
 * RING_SET, checked by proto_request_check: 0. -EINVAL: minimum above maximum, below what the
 * server asked for, or a size outside of them. -EDQUOT, -ENOSPC: no room for the size or the new
 * minimum; nothing has changed. A ring that moves at the moment gets its size when that is done.
 * *size_bytes: the size that the ring is to have then; not after -EINVAL.
 */
int mover_ring_set(struct mover *mover, struct channel *channel, unsigned ring,
                   const struct proto_ring_set *set, uint64_t *size_bytes);

/*
 * For somebody else than a ring: channels that are to be opened. zone, bytes, done, data and reason
 * are set; it gives up after five seconds. As compaction_ask; compaction_cancel for who goes.
 */
int mover_await_room(struct mover *mover, struct compaction_demand *demand);

/* error: 0, -ENOMEM, -ECANCELED. */
typedef void mover_done(void *data, int error, const struct proto_decision *decisions,
                        size_t count);

/*
 * REBALANCE: a round now. done is called once, from the event loop and never before this returns,
 * with what was decided: outcome PLANNED or REFUSED, number 0. With dry_run nothing comes of it;
 * else history tells what did. 0 or -ENOMEM.
 */
int mover_rebalance(struct mover *mover, bool dry_run, mover_done *done, void *data);

struct mover_counts {
    uint64_t moves;  /* generations published */
    uint64_t pinned; /* rings whose old extent an end pins now */
};
/* Any thread. */
struct mover_counts mover_counts(const struct mover *mover);

#endif
