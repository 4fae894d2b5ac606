/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/decisions.h - what the rebalancer decided, as history, rebalance and top show it.
 */
#ifndef VCHAN_CLIENT_CTL_DECISIONS_H
#define VCHAN_CLIENT_CTL_DECISIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/ctl/broker_link.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"

/* proto_decision, those after cursor, by number, with clean texts. As broker_link_list. */
int decisions_load(struct broker_link *link, uint64_t cursor, struct broker_items *decisions);

/* Makes the texts of decisions clean that came by another way. */
void decisions_clean(struct broker_items *decisions);

/* "planned", "published", "done", "refused", "unknown". */
const char *decision_outcome_text(uint32_t outcome);

/* PROTO_OUTCOME_* of such a text. -EINVAL: it is none. */
int decision_outcome_parse(const char *text, uint32_t *outcome);

/* "64 KiB at 0x1000", "-" for none. */
struct decision_extent_text {
    char text[64];
};
struct decision_extent_text decision_extent_text(uint64_t offset, uint64_t bytes);
/* Where it goes to: a place too, unless it was refused. */
struct decision_extent_text decision_to_text(const struct proto_decision *decision);

/* The object that history writes; its help documents it. */
struct json *decision_json(const struct proto_decision *decision, const struct names *names);

/* Is it about a channel that passes? */
bool decision_passes(const struct proto_decision *decision, const struct channel_filter *filter);

#endif
