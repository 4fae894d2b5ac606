/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/listing.h - one page of a listing, from the tables that other threads may read.
 *
 * Pages go by number (of domain, channel, or domain in a zone) upwards: cursor is one above the
 * last number that was listed. Tables have no order, so numbers are tried one by one, which costs
 * a look-up each (some tens of nanoseconds) and no memory.
 */
#ifndef VCHAN_BROKER_LISTING_H
#define VCHAN_BROKER_LISTING_H

#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"

struct broker;
struct channel;
struct domain;

#define LISTING_BYTES \
    (PROTO_MESSAGE_BYTES_MAX - sizeof(struct proto_header) - sizeof(struct proto_error) - \
     sizeof(struct proto_list_reply))

struct listing {
    struct proto_list_reply reply;
    uint8_t items[LISTING_BYTES] __attribute__((aligned(8)));
};

/* id: PROTO_LIST_DOMAINS, _CHANNELS, _RINGS, _GUESTS or _HISTORY (whose cursor is a decision's
 * number).
 * asker: the domain that asks; all but the host see their own. Any thread registered with RCU. */
void listing_fill(const struct broker *broker, unsigned id, const struct proto_list *request,
                  uint32_t asker, uint64_t now_ns, struct listing *listing);

/* Single items, for others that tell the same. Under rcu_enter. */
void listing_fill_ring(const struct channel *channel, unsigned index, uint64_t now_ns,
                       struct proto_ring_info *item);
void listing_fill_domain(const struct broker *broker, const struct domain *domain,
                         struct proto_domain_info *item);

#endif
