/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/top_sample.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl/decisions.h"
#include "client/ctl/rings.h"
#include "client/ctl/text.h"

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int copy_items(struct broker_items *to, const struct broker_items *from, size_t item_bytes)
{
    *to = (struct broker_items){0};
    if (from->count == 0)
        return 0;
    to->items = malloc(from->count * item_bytes);
    if (!to->items)
        return -ENOMEM;
    memcpy(to->items, from->items, from->count * item_bytes);
    to->count = to->capacity = from->count;
    return 0;
}

/* A new broker counts anew, and its decisions begin at 1 again. */
static void forget(struct top_asker *asker)
{
    broker_items_deinit(&asker->rings);
    broker_items_deinit(&asker->decisions);
    asker->monotonic_ns = 0;
}

void top_asker_deinit(struct top_asker *asker)
{
    forget(asker);
}

static int connect_if_needed(struct top_asker *asker)
{
    struct ctl *ctl = asker->ctl;
    uint32_t domain;

    if (ctl->link.socket >= 0)
        return 0;
    forget(asker);
    if (ctl_domain(&domain) < 0)
        return -EINVAL;
    return broker_link_open(&ctl->link, ctl->socket_path, domain);
}

/* From the oldest that is kept on, because those that were published may be done by now. */
static int ask_decisions(struct top_asker *asker, struct top_sample *sample)
{
    const struct proto_decision *kept = asker->decisions.items;
    struct broker_items list = {0};
    uint64_t cursor = asker->decisions.count > 0 ? kept[0].number - 1 : 0;
    int r = decisions_load(&asker->ctl->link, cursor, &list);

    if (r == -EPERM && !asker->ctl->link.lost) {
        sample->decisions_denied = true;
        return 0;
    }
    if (r < 0)
        return r;
    if (list.count > TOP_DECISIONS_MAX) {
        struct proto_decision *all = list.items;
        memmove(all, all + (list.count - TOP_DECISIONS_MAX), TOP_DECISIONS_MAX * sizeof(*all));
        list.count = TOP_DECISIONS_MAX;
    }
    broker_items_deinit(&asker->decisions);
    asker->decisions = list;
    return copy_items(&sample->decisions, &list, sizeof(struct proto_decision));
}

static int ask_info(struct top_asker *asker, struct top_sample *sample)
{
    struct proto_broker_info *info = &sample->info;
    int r = broker_link_call(&asker->ctl->link, PROTO_BROKER_INFO, NULL, 0, info, sizeof(*info));

    if (r < 0)
        return r;
    text_clean(info->version, sizeof(info->version));
    text_clean(info->policy, sizeof(info->policy));
    return 0;
}

static int ask(struct top_asker *asker, struct top_sample *sample)
{
    int r = connect_if_needed(asker);

    if (r == 0)
        r = ask_info(asker, sample);
    if (r == 0)
        r = names_load(&sample->names, &asker->ctl->link);
    if (r == 0)
        r = rings_load(&asker->ctl->link, PROTO_ANY, &sample->rings);
    if (r == 0)
        r = ask_decisions(asker, sample);
    return r;
}

static double rate(uint64_t now, uint64_t before, uint64_t elapsed_ns)
{
    return now > before ? (double)(now - before) * 1e9 / (double)elapsed_ns : 0.0;
}

/* What comes of comparing it with the last one, which it then replaces. */
static int compare(struct top_asker *asker, struct top_sample *sample)
{
    const uint64_t elapsed_ns =
        asker->monotonic_ns ? sample->monotonic_ns - asker->monotonic_ns : 0;

    sample->rows = calloc(sample->rings.count + 1, sizeof(*sample->rows));
    if (!sample->rows)
        return -ENOMEM;
    top_rows_fill(sample->rows, sample->rings.items, sample->rings.count, asker->rings.items,
                  asker->rings.count, elapsed_ns);
    sample->sums = top_rows_sum(sample->rows, sample->rings.count);
    if (elapsed_ns > 0) {
        sample->known = true;
        sample->rounds_per_second = rate(sample->info.rounds, asker->info.rounds, elapsed_ns);
        sample->moves_per_second = rate(sample->info.moves, asker->info.moves, elapsed_ns);
    }
    broker_items_deinit(&asker->rings);
    asker->info = sample->info;
    asker->monotonic_ns = sample->monotonic_ns;
    return copy_items(&asker->rings, &sample->rings, sizeof(struct proto_ring_info));
}

/* The link is of no use any more, or this broker will not have us. */
static void give_up(struct top_asker *asker, struct top_sample *sample, int error)
{
    sample->error = error;
    snprintf(sample->why, sizeof(sample->why), "%s", asker->ctl->link.why);
    broker_link_close(&asker->ctl->link);
    forget(asker);
    names_deinit(&sample->names);
    broker_items_deinit(&sample->rings);
    broker_items_deinit(&sample->decisions);
}

struct top_sample *top_sample_take(struct top_asker *asker)
{
    struct top_sample *sample = calloc(1, sizeof(*sample));

    if (!sample)
        return NULL;
    sample->time_ns = clock_ns(CLOCK_REALTIME);
    int r = ask(asker, sample);
    sample->monotonic_ns = clock_ns(CLOCK_MONOTONIC);
    if (r == 0)
        r = compare(asker, sample);
    if (r == -ENOMEM && !asker->ctl->link.lost) {
        top_sample_free(sample);
        return NULL;
    }
    if (r < 0)
        give_up(asker, sample, r);
    return sample;
}

void top_sample_free(struct top_sample *sample)
{
    if (!sample)
        return;
    names_deinit(&sample->names);
    broker_items_deinit(&sample->rings);
    broker_items_deinit(&sample->decisions);
    free(sample->rows);
    free(sample);
}
