/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/history.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "broker/rcu.h"
#include "ring/order.h"

struct record {
    struct rcu_head rcu;
    struct proto_decision decision;
};

struct history {
    uint64_t newest;                         /* release by the event loop, acquire by readers */
    struct record *records[HISTORY_ENTRIES]; /* number n in n % HISTORY_ENTRIES; published */
};

int history_new(struct history **out)
{
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : -ENOMEM;
}

void history_free(struct history *history)
{
    if (!history)
        return;
    for (size_t i = 0; i < HISTORY_ENTRIES; i++)
        free(history->records[i]);
    free(history);
}

static void free_record(struct rcu_head *head)
{
    rcu_acquire();
    free(caa_container_of(head, struct record, rcu));
}

static void publish(struct history *history, struct record *record)
{
    struct record **slot = &history->records[record->decision.number % HISTORY_ENTRIES];
    struct record *old = *slot;

    rcu_publish(*slot, record);
    if (old)
        call_rcu(&old->rcu, free_record);
}

uint64_t history_time_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t history_add(struct history *history, const struct proto_decision *decision)
{
    uint64_t number = history->newest + 1;
    struct record *record = malloc(sizeof(*record));

    if (record) {
        record->decision = *decision;
        record->decision.number = number;
        if (record->decision.time_ns == 0)
            record->decision.time_ns = history_time_ns();
        publish(history, record);
    }
    order_store_release(&history->newest, number);
    return number;
}

/* A copy of the record, to be changed and published; NULL: it has gone, or there is no memory. */
static struct record *copy(const struct history *history, uint64_t number)
{
    const struct record *old = history->records[number % HISTORY_ENTRIES];

    if (!old || old->decision.number != number)
        return NULL;
    struct record *record = malloc(sizeof(*record));
    if (record)
        record->decision = old->decision;
    return record;
}

void history_finish(struct history *history, uint64_t number, uint32_t outcome, uint64_t took_ns)
{
    struct record *record = copy(history, number);

    if (!record)
        return;
    record->decision.outcome = outcome;
    record->decision.took_ns = took_ns;
    publish(history, record);
}

void history_explain(struct history *history, uint64_t number, const char *reason)
{
    struct record *record = copy(history, number);

    if (!record)
        return;
    snprintf(record->decision.reason, sizeof(record->decision.reason), "%s", reason);
    publish(history, record);
}

size_t history_read(const struct history *history, uint64_t cursor,
                    struct proto_decision *decisions, size_t max, uint64_t *next)
{
    uint64_t newest = order_load_acquire(&history->newest);
    size_t count = 0;

    if (newest > HISTORY_ENTRIES && cursor < newest - HISTORY_ENTRIES)
        cursor = newest - HISTORY_ENTRIES;
    rcu_enter();
    while (cursor < newest && count < max) {
        const struct record *record = rcu_get(history->records[++cursor % HISTORY_ENTRIES]);
        /* A newer one has taken its place meanwhile, or it was lost for want of memory. */
        if (record && record->decision.number == cursor)
            decisions[count++] = record->decision;
    }
    rcu_leave();
    *next = cursor < newest ? cursor : 0;
    return count;
}

uint64_t history_newest(const struct history *history)
{
    return order_load_acquire(&history->newest);
}
