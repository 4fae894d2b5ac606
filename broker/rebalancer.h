/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/rebalancer.h - the thread that looks at the rings, asks the policy, and waits out grace
 * periods.
 *
 *          pressure, doorbells, REBALANCE                   plan
 *   event loop ------------------------> rebalancer ----------------------> event loop
 *   (broker/mover.h)
 *              <-----------------------  grace period asked for, done
 *
 * It changes nothing but its own notes and the words that channel.h and layout.h say it writes. A
 * round comes every period_ms while bytes flow; when none do, the distance doubles up to
 * REBALANCER_PULSE_MS, and without channels there is none. Pressure is answered at once, in a
 * round about the rings alone that have it, and then in a few rounds about all. Rounds keep a
 * distance to one another of at least a millisecond and 20 times what one takes.
 *
 * Threads: the functions are for the event loop, but for rebalancer_counts.
 */
#ifndef VCHAN_BROKER_REBALANCER_H
#define VCHAN_BROKER_REBALANCER_H

#include <stdbool.h>
#include <stdint.h>
#include <urcu/list.h>

#include "broker/channel.h"
#include "broker/domain.h"
#include "broker/mailbox.h"
#include "broker/policy.h"
#include "broker/zone.h"

/*
 * The longest distance between two rounds. Ends that never sleep nor stall ring nobody, so we look
 * now and then.
 */
#define REBALANCER_PULSE_MS 5000u

struct rebalancer;

/* The tables and zones must outlive the rebalancer; the configuration is copied. */
struct rebalancer_setup {
    const struct channels *channels;
    const struct domains *domains;
    struct zone *const *zones;
    uint32_t zone_count;
    uint32_t channels_max; /* numbers are below it */
    const struct policy *policy;
    const struct policy_config *config;
};

/* What goes to and fro between it and the mover. Who has it owns it. */
enum rebalancer_message_kind {
    REBALANCER_PLAN,  /* to the mover: carry this out */
    REBALANCER_ASKED, /* for a plan, by command; and its answer */
    REBALANCER_GRACE, /* for a grace period; and its end */
    REBALANCER_CONFIGURE,
    REBALANCER_RECORD,
};

/* One decision of a plan, with what the mover needs to find its ring again. */
struct rebalancer_decision {
    struct policy_decision policy;
    uint64_t incarnation;
    uint32_t channel;
    uint32_t ring;
};

struct rebalancer_message {
    struct mailbox_letter letter;
    struct cds_list_head link; /* owner: the rebalancer, while a grace period runs */
    enum rebalancer_message_kind kind;
    const char *trigger;                   /* as proto_decision.trigger */
    struct rebalancer_decision *decisions; /* heap, goes with the message */
    size_t count;
    bool dry_run; /* of ASKED: every refusal is told, and none remembered as told */
    int error;    /* of ASKED: 0, -ENOMEM, -ECANCELED */
};

/* Makes it; no thread yet. 0, -ENOMEM, or the errno of eventfd. */
int rebalancer_new(const struct rebalancer_setup *setup, struct rebalancer **out);

/* Starts the thread; plans and answers are posted to outbox. */
int rebalancer_start(struct rebalancer *rebalancer, struct mailbox *outbox);

/*
 * Stops and joins the thread, if there is one; messages it had are posted to outbox, ASKED with
 * -ECANCELED.
 */
void rebalancer_stop(struct rebalancer *rebalancer);

/* Stopped before. NULL is ignored. */
void rebalancer_free(struct rebalancer *rebalancer);

/* This ring's producer lacks space (event PRESSURE). */
void rebalancer_pressure(struct rebalancer *rebalancer, uint32_t channel, unsigned ring);

/*
 * An end has rung as often as it was to report for this ring (event DOORBELLS); also: the channel
 * has been connected.
 */
void rebalancer_doorbells(struct rebalancer *rebalancer, uint32_t channel, unsigned ring);

/* Another policy, other numbers: from the next round on. 0 or -ENOMEM. */
int rebalancer_configure(struct rebalancer *rebalancer, const struct policy *policy,
                         const struct policy_config *config);

/*
 * Records all rounds from now on into this socket, which is taken over, until the other side closes
 * it. 0, -ENOMEM, -EBUSY: REBALANCER_RECORDERS_MAX recordings run.
 */
#define REBALANCER_RECORDERS_MAX 4u
int rebalancer_record(struct rebalancer *rebalancer, int socket);

/* For the mover: kind ASKED or GRACE. It comes back through outbox. */
void rebalancer_post(struct rebalancer *rebalancer, struct rebalancer_message *message);

struct rebalancer_counts {
    uint64_t rounds;
    uint64_t grace_periods;
};
/* Any thread. */
struct rebalancer_counts rebalancer_counts(const struct rebalancer *rebalancer);

#endif
