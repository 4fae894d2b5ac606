/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/figures.h - what only the event loop may read, answered by the event loop.
 *
 * The allocator's books have one owner and no lock. To copy them for the inspector would cost the
 * event loop more, at each change, than to answer these two commands itself, which administrators
 * send now and then: BROKER_INFO is a handful of counters, and a LIST_EXTENTS page is bounded by
 * the message size (511 spans, each found in O(log n): tens of microseconds).
 */
#ifndef VCHAN_BROKER_FIGURES_H
#define VCHAN_BROKER_FIGURES_H

#include <stdint.h>

#include "proto/proto.h"

struct broker;
struct connection;

void figures_info(const struct broker *broker, struct proto_broker_info *info);

/* Answers one page. The cursor is a zone and a block of it. */
void figures_list_extents(struct connection *connection, uint32_t seq,
                          const struct proto_list *request);

#endif
