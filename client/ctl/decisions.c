/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/decisions.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl/quantity.h"
#include "client/ctl/text.h"
#include "ring/layout.h"

static const struct {
    uint32_t outcome;
    const char *text;
} outcomes[] = {
    {PROTO_OUTCOME_PLANNED, "planned"},
    {PROTO_OUTCOME_PUBLISHED, "published"},
    {PROTO_OUTCOME_DONE, "done"},
    {PROTO_OUTCOME_REFUSED, "refused"},
};
#define OUTCOMES (sizeof(outcomes) / sizeof(outcomes[0]))

static int compare_decisions(const void *a, const void *b)
{
    const struct proto_decision *x = a, *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

void decisions_clean(struct broker_items *items)
{
    struct proto_decision *decisions = items->items;

    for (size_t i = 0; i < items->count; i++) {
        text_clean(decisions[i].trigger, sizeof(decisions[i].trigger));
        text_clean(decisions[i].reason, sizeof(decisions[i].reason));
    }
}

int decisions_load(struct broker_link *link, uint64_t cursor, struct broker_items *decisions)
{
    int r = broker_link_list(link, PROTO_LIST_HISTORY, cursor, PROTO_ANY,
                             sizeof(struct proto_decision), decisions);

    if (r < 0)
        return r;
    broker_items_order(decisions, sizeof(struct proto_decision), compare_decisions);
    decisions_clean(decisions);
    return 0;
}

const char *decision_outcome_text(uint32_t outcome)
{
    for (size_t i = 0; i < OUTCOMES; i++)
        if (outcomes[i].outcome == outcome)
            return outcomes[i].text;
    return "unknown";
}

int decision_outcome_parse(const char *text, uint32_t *outcome)
{
    for (size_t i = 0; i < OUTCOMES; i++)
        if (strcmp(outcomes[i].text, text) == 0) {
            *outcome = outcomes[i].outcome;
            return 0;
        }
    return -EINVAL;
}

struct decision_extent_text decision_extent_text(uint64_t offset, uint64_t bytes)
{
    struct decision_extent_text text;

    if (bytes == 0)
        snprintf(text.text, sizeof(text.text), "-");
    else
        snprintf(text.text, sizeof(text.text), "%s at 0x%" PRIx64, quantity_size(bytes).text,
                 offset);
    return text;
}

struct decision_extent_text decision_to_text(const struct proto_decision *d)
{
    struct decision_extent_text text = decision_extent_text(d->to_offset, d->to_bytes);

    if (d->outcome == PROTO_OUTCOME_REFUSED && d->to_bytes > 0)
        snprintf(text.text, sizeof(text.text), "%s", quantity_size(d->to_bytes).text);
    return text;
}

struct json *decision_json(const struct proto_decision *d, const struct names *names)
{
    struct json *object = json_new_object();

    json_set_number(object, "number", d->number);
    json_set_number(object, "time_ns", d->time_ns);
    json_set_text(object, "time", quantity_time_utc(d->time_ns).text);
    json_set_number(object, "channel", d->channel);
    json_set_number(object, "ring", d->ring);
    names_set_json(names, object, "sender_domain", d->sender_domain);
    names_set_json(names, object, "receiver_domain", d->receiver_domain);
    json_set_number(object, "port", d->port);
    json_set_number(object, "generation", d->generation);
    json_set_number(object, "from_offset", d->from_offset);
    json_set_number(object, "from_bytes", d->from_bytes);
    json_set_number(object, "to_offset", d->to_offset);
    json_set_number(object, "to_bytes", d->to_bytes);
    json_set_text(object, "trigger", d->trigger);
    json_set_text(object, "outcome", decision_outcome_text(d->outcome));
    json_set_text(object, "reason", d->reason);
    if (d->outcome == PROTO_OUTCOME_DONE)
        json_set_number(object, "took_ns", d->took_ns);
    else
        json_set_null(object, "took_ns");
    return object;
}

bool decision_passes(const struct proto_decision *d, const struct channel_filter *filter)
{
    const uint32_t server = d->ring == LAYOUT_SERVER_SENDS ? d->sender_domain : d->receiver_domain;

    return channel_filter_passes(filter, d->channel, server, d->port);
}
