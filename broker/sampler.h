/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/sampler.h - one round of the rebalancer: look at the rings, zone by zone, and ask the
 * policy. Which rings are looked at in which round is said in broker/policy_book.h.
 *
 * The rebalancer's thread, registered with liburcu, but for sampler_attend. Everything is read
 * under RCU; what it remembers of a ring it keeps by the channel's number and incarnation, so that
 * no channel need tell it that it has gone.
 */
#ifndef VCHAN_BROKER_SAMPLER_H
#define VCHAN_BROKER_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/channel.h"
#include "broker/domain.h"
#include "broker/policy.h"
#include "broker/zone.h"

struct rebalancer_decision;
struct recorder;
struct sampler;

/* -ENOMEM. The tables and zones must outlive it. */
int sampler_new(const struct channels *channels, const struct domains *domains,
                struct zone *const *zones, uint32_t zone_count, uint32_t channels_max,
                struct sampler **out);
void sampler_free(struct sampler *sampler);

uint32_t sampler_channels(const struct sampler *sampler);

/* Any thread: the next round looks at this ring, whatever it was like. */
void sampler_attend(struct sampler *sampler, uint32_t channel, unsigned ring);

struct sampler_round {
    /* In. */
    uint64_t now_ns;
    bool regular;  /* the interval ends with this round */
    bool pressure; /* see policy_input */
    bool pressing; /* look at, and ask about, those of sampler_attend only */
    bool thorough; /* look at all rings */
    bool dry_run;  /* all refusals, and none is remembered */
    const struct policy *policy;
    const struct policy_config *config;
    struct recorder **recorders; /* each is told of it */
    size_t recorder_count;
    /* Out. */
    struct rebalancer_decision *decisions; /* the caller's, to free(); NULL: none */
    size_t count;
    bool active; /* bytes have gone through some ring in this interval */
};

/* 0, or -ENOMEM: some decisions are left out. */
int sampler_round(struct sampler *sampler, struct sampler_round *round);

#endif
