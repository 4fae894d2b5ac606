/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/history.h - the last decisions about memory, those not taken too.
 *
 * A ring of HISTORY_ENTRIES records, numbered 1, 2, 3, ...; the oldest goes for the newest. The
 * event loop writes. Any other thread reads under RCU: records are replaced whole, never changed.
 */
#ifndef VCHAN_BROKER_HISTORY_H
#define VCHAN_BROKER_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"

#define HISTORY_ENTRIES 4096u

struct history;

int history_new(struct history **out); /* 0, -ENOMEM */
/* No reader is left. NULL is ignored. */
void history_free(struct history *history);

/*
 * Event loop. Gives the decision its number, which is returned; time_ns is set if it is 0. Without
 * memory the record is lost, the number is not used again.
 */
uint64_t history_add(struct history *history, const struct proto_decision *decision);

/* Event loop. The move is done (or was given up): nothing if the record has gone meanwhile. */
void history_finish(struct history *history, uint64_t number, uint32_t outcome, uint64_t took_ns);

/* Event loop. Says something else about it, e.g. what pins the old extent. */
void history_explain(struct history *history, uint64_t number, const char *reason);

/*
 * Any thread registered with liburcu; enters RCU itself. Copies records with numbers after cursor,
 * oldest first, at most max. *next: the cursor for what follows, 0: nothing does. Records that have
 * gone are passed over.
 */
size_t history_read(const struct history *history, uint64_t cursor,
                    struct proto_decision *decisions, size_t max, uint64_t *next);

/* The clock of proto_decision.time_ns. */
uint64_t history_time_ns(void);

/* Number of the newest, 0: none. Any thread. */
uint64_t history_newest(const struct history *history);

#endif
