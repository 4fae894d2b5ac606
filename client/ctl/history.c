/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl history and vchanctl rebalance: what the broker did, or would do, and why. */
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/table.h"
#include "client/ctl/text.h"

#define LINES_DEFAULT 20
#define FOLLOW_PERIOD_MS 500

/* Published moves that --follow waits for the end of; more than that are forgotten, oldest first.
 */
#define PENDING_MAX 64

static int compare_decisions(const void *a, const void *b)
{
    const struct proto_decision *x = a, *y = b;

    return (x->number > y->number) - (x->number < y->number);
}

static void clean(struct broker_items *items)
{
    struct proto_decision *decisions = items->items;

    for (size_t i = 0; i < items->count; i++) {
        text_clean(decisions[i].trigger, sizeof(decisions[i].trigger));
        text_clean(decisions[i].reason, sizeof(decisions[i].reason));
    }
}

static int decisions_load(struct broker_link *link, uint64_t cursor, struct broker_items *decisions)
{
    int r = broker_link_list(link, PROTO_LIST_HISTORY, cursor, PROTO_ANY,
                             sizeof(struct proto_decision), decisions);

    if (r < 0)
        return r;
    broker_items_order(decisions, sizeof(struct proto_decision), compare_decisions);
    clean(decisions);
    return 0;
}

static const char *outcome_text(uint32_t outcome)
{
    switch (outcome) {
    case PROTO_OUTCOME_PLANNED:
        return "planned";
    case PROTO_OUTCOME_PUBLISHED:
        return "published";
    case PROTO_OUTCOME_DONE:
        return "done";
    case PROTO_OUTCOME_REFUSED:
        return "refused";
    default:
        return "unknown";
    }
}

static struct json *decision_json(const struct proto_decision *d, const struct names *names)
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
    json_set_text(object, "outcome", outcome_text(d->outcome));
    json_set_text(object, "reason", d->reason);
    if (d->outcome == PROTO_OUTCOME_DONE)
        json_set_number(object, "took_ns", d->took_ns);
    else
        json_set_null(object, "took_ns");
    return object;
}

struct extent_text {
    char text[64];
};

static struct extent_text extent_text(uint64_t offset, uint64_t bytes)
{
    struct extent_text text;

    if (bytes == 0)
        snprintf(text.text, sizeof(text.text), "-");
    else
        snprintf(text.text, sizeof(text.text), "%s at 0x%" PRIx64, quantity_size(bytes).text,
                 offset);
    return text;
}

static int write_table(const struct proto_decision *decisions, size_t count,
                       const struct names *names, bool bold)
{
    static const struct table_column columns[] = {
        {"TIME", TABLE_LEFT},     {"RING", TABLE_RIGHT},   {"SENDER", TABLE_LEFT},
        {"RECEIVER", TABLE_LEFT}, {"PORT", TABLE_RIGHT},   {"FROM", TABLE_LEFT},
        {"TO", TABLE_LEFT},       {"TRIGGER", TABLE_LEFT}, {"OUTCOME", TABLE_LEFT},
        {"TOOK", TABLE_RIGHT},    {"WHY", TABLE_LEFT},
    };
    struct table table;
    int r;

    table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < count; i++) {
        const struct proto_decision *d = &decisions[i];
        table_add(&table, "%s", quantity_time(d->time_ns).text);
        table_add(&table, "%u.%u", d->channel, d->ring);
        table_add(&table, "%s", names_text(names, d->sender_domain).text);
        table_add(&table, "%s", names_text(names, d->receiver_domain).text);
        table_add(&table, "%u", d->port);
        table_add(&table, "%s", extent_text(d->from_offset, d->from_bytes).text);
        table_add(&table, "%s", extent_text(d->to_offset, d->to_bytes).text);
        table_add(&table, "%s", d->trigger);
        table_add(&table, "%s", outcome_text(d->outcome));
        table_add(&table, "%s",
                  d->outcome == PROTO_OUTCOME_DONE ? quantity_duration(d->took_ns).text : "-");
        table_add(&table, "%s", d->reason);
    }
    r = table_print(&table, stdout, bold);
    table_deinit(&table);
    return r;
}

static int write_json(const struct proto_decision *decisions, size_t count,
                      const struct names *names, struct json *object, bool indented)
{
    struct json *array = json_new_array();

    for (size_t i = 0; i < count; i++)
        json_push(array, decision_json(&decisions[i], names));
    json_set(object, "decisions", array);
    return json_write(object, stdout, indented);
}

/* What --follow has shown: everything up to last, and those that were not finished then. */
struct follow {
    uint64_t last;
    uint64_t pending[PENDING_MAX]; /* 0: a free place */
};

static uint64_t follow_cursor(const struct follow *follow)
{
    uint64_t cursor = follow->last;

    for (size_t i = 0; i < PENDING_MAX; i++)
        if (follow->pending[i] && follow->pending[i] - 1 < cursor)
            cursor = follow->pending[i] - 1;
    return cursor;
}

/* Notes the decision; true: it is new, or has finished since it was shown. */
static bool follow_note(struct follow *follow, const struct proto_decision *decision)
{
    size_t place = 0;
    bool finished = decision->outcome != PROTO_OUTCOME_PUBLISHED;

    for (size_t i = 0; i < PENDING_MAX; i++) {
        if (follow->pending[i] == decision->number) {
            follow->pending[i] = finished ? 0 : decision->number;
            return finished;
        }
        if (follow->pending[i] < follow->pending[place])
            place = i;
    }
    if (decision->number <= follow->last)
        return false;
    follow->last = decision->number;
    if (!finished)
        follow->pending[place] = decision->number;
    return true;
}

/* One line each, without a title: columns could not be kept aligned with lines that are not there
 * yet. */
static int follow_write(const struct ctl *ctl, const struct proto_decision *d,
                        const struct names *names)
{
    if (ctl->json)
        return json_write(decision_json(d, names), stdout, false);
    printf("%s  %u.%u %s->%s:%u  %s -> %s  %s %s", quantity_time(d->time_ns).text, d->channel,
           d->ring, names_text(names, d->sender_domain).text,
           names_text(names, d->receiver_domain).text, d->port,
           extent_text(d->from_offset, d->from_bytes).text,
           extent_text(d->to_offset, d->to_bytes).text, d->trigger, outcome_text(d->outcome));
    if (d->outcome == PROTO_OUTCOME_DONE)
        printf(" in %s", quantity_duration(d->took_ns).text);
    printf(": %s\n", d->reason);
    return 0;
}

static int follow_show(struct ctl *ctl, struct follow *follow, const struct broker_items *list,
                       size_t skip)
{
    const struct proto_decision *decisions = list->items;
    struct names names = {0};
    int r = 0;

    for (size_t i = 0; i < list->count && r == 0; i++) {
        if (!follow_note(follow, &decisions[i]) || i < skip)
            continue;
        if (names.domains.count == 0)
            r = names_load(&names, &ctl->link);
        if (r == 0)
            r = follow_write(ctl, &decisions[i], &names);
    }
    names_deinit(&names);
    return r;
}

static void pause_ms(unsigned time_ms)
{
    struct timespec time = {.tv_sec = time_ms / 1000, .tv_nsec = (long)(time_ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

static size_t to_skip(const struct ctl *ctl, size_t count)
{
    uint64_t lines = ctl->options & CTL_OPTION_LINES ? ctl->lines : LINES_DEFAULT;

    return lines != 0 && count > lines ? count - (size_t)lines : 0;
}

/* Until the broker goes, the output cannot be written, or a signal ends it. */
static int history_follow(struct ctl *ctl)
{
    struct follow follow = {0};
    bool first = true;

    for (;;) {
        struct broker_items list = {0};
        int r = decisions_load(&ctl->link, follow_cursor(&follow), &list);
        if (r == 0)
            r = follow_show(ctl, &follow, &list, first ? to_skip(ctl, list.count) : 0);
        broker_items_deinit(&list);
        if (r < 0)
            return ctl_fail(ctl, r, "cannot follow the history");
        if (fflush(stdout) != 0)
            return CTL_OK; /* main says why */
        first = false;
        pause_ms(FOLLOW_PERIOD_MS);
    }
}

static int history_run(struct ctl *ctl, int argc, char **argv)
{
    struct names names = {0};
    struct broker_items list = {0};
    int r;

    (void)argc;
    (void)argv;
    if (ctl->options & CTL_OPTION_FOLLOW)
        return history_follow(ctl);
    r = names_load(&names, &ctl->link);
    if (r == 0)
        r = decisions_load(&ctl->link, 0, &list);
    if (r == 0) {
        size_t skip = to_skip(ctl, list.count), count = list.count - skip;
        const struct proto_decision *decisions = list.items;
        if (skip > 0)
            decisions += skip;
        if (ctl->json)
            r = write_json(decisions, count, &names, json_new_object(),
                           !(ctl->options & CTL_OPTION_WATCH));
        else
            r = write_table(decisions, count, &names, ctl->colour);
    }
    broker_items_deinit(&list);
    names_deinit(&names);
    return r < 0 ? ctl_fail(ctl, r, "cannot read the history") : CTL_OK;
}

const struct ctl_command history_command = {
    .name = "history",
    .arguments = "",
    .summary = "each decision of the rebalancer: which ring, from, to, why",
    .help = "The last 20 decisions, oldest first; -n says how many, -n 0 shows all that the\n"
            "broker remembers. With --follow it goes on with new ones, each once when it is\n"
            "taken and once when it is done.\n"
            "\n"
            "Outcomes: published (the new memory is out, the old not free yet), done (TOOK:\n"
            "from the one to the other), refused (not taken, WHY says for what reason).\n"
            "Triggers: period, pressure, doorbells, command, quota, compact.\n"
            "\n"
            "JSON: {\"decisions\": [{number, time_ns, time, channel, ring, sender_domain,\n"
            "sender_domain_name, receiver_domain, receiver_domain_name, port, generation,\n"
            "from_offset, from_bytes, to_offset, to_bytes, trigger, outcome, reason,\n"
            "took_ns}]}. took_ns null: not done. With --follow one decision a line, without\n"
            "the object around them.\n",
    .options = CTL_OPTION_WATCH | CTL_OPTION_LINES | CTL_OPTION_FOLLOW,
    .run = history_run,
};

static int rebalance_write(const struct ctl *ctl, const struct broker_items *plan,
                           const struct names *names, bool more)
{
    bool dry_run = ctl->options & CTL_OPTION_DRY_RUN;
    int r = 0;

    if (ctl->json) {
        struct json *object = json_new_object();
        json_set_boolean(object, "dry_run", dry_run);
        json_set_boolean(object, "more", more);
        return write_json(plan->items, plan->count, names, object, true);
    }
    if (plan->count == 0)
        puts(dry_run ? "nothing would be changed" : "nothing to change");
    else
        r = write_table(plan->items, plan->count, names, ctl->colour);
    if (more)
        puts(dry_run ? "and more of the same kind" : "and more: see vchanctl history");
    return r;
}

static int rebalance_run(struct ctl *ctl, int argc, char **argv)
{
    struct proto_rebalance request = {
        .flags = ctl->options & CTL_OPTION_DRY_RUN ? PROTO_REBALANCE_DRY_RUN : 0};
    struct names names = {0};
    struct broker_items plan = {0};
    uint64_t next = 0;
    int r = names_load(&names, &ctl->link);

    (void)argc;
    (void)argv;
    if (r == 0)
        r = broker_link_page(&ctl->link, PROTO_REBALANCE, &request, sizeof(request),
                             sizeof(struct proto_decision), &plan, &next);
    if (r == 0) {
        clean(&plan);
        r = rebalance_write(ctl, &plan, &names, next != 0);
    }
    broker_items_deinit(&plan);
    names_deinit(&names);
    return r < 0 ? ctl_fail(ctl, r, "cannot rebalance") : CTL_OK;
}

const struct ctl_command rebalance_command = {
    .name = "rebalance",
    .arguments = "",
    .summary = "rebalance now, or with --dry-run show what would be done",
    .help = "Runs one round of the rebalancer now and prints its decisions with their\n"
            "reasons, those that it refused too. With --dry-run nothing is changed. Domain 0\n"
            "only.\n"
            "\n"
            "JSON: {dry_run, more, \"decisions\": [as history has them, outcome \"planned\" in a\n"
            "dry run]}. more: there were more decisions than one answer holds.\n",
    .options = CTL_OPTION_DRY_RUN,
    .run = rebalance_run,
};
