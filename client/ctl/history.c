/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl history and vchanctl rebalance: what the broker did, or would do, and why. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "client/ctl/decisions.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/table.h"

#define LINES_DEFAULT 20
#define FOLLOW_PERIOD_MS 500

/* Published moves that --follow waits for the end of; more than that are forgotten, oldest first.
 */
#define PENDING_MAX 64

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
        table_add(&table, "%s", decision_extent_text(d->from_offset, d->from_bytes).text);
        table_add(&table, "%s", decision_to_text(d).text);
        table_add(&table, "%s", d->trigger);
        table_add(&table, "%s", decision_outcome_text(d->outcome));
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
           decision_extent_text(d->from_offset, d->from_bytes).text, decision_to_text(d).text,
           d->trigger, decision_outcome_text(d->outcome));
    if (d->outcome == PROTO_OUTCOME_DONE)
        printf(" in %s", quantity_duration(d->took_ns).text);
    printf(": %s\n", d->reason);
    return 0;
}

/* What of the history is to be shown. */
struct history_filter {
    struct channel_filter channel;
    uint32_t outcome; /* 0: any */
};

static bool history_passes(const struct history_filter *filter, const struct proto_decision *d)
{
    return (filter->outcome == 0 || filter->outcome == d->outcome) &&
           decision_passes(d, &filter->channel);
}

static void keep_those_that_pass(struct broker_items *list, const struct history_filter *filter)
{
    struct proto_decision *decisions = list->items;
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++)
        if (history_passes(filter, &decisions[i]))
            decisions[kept++] = decisions[i];
    list->count = kept;
}

/* Of the last `lines` decisions that pass, the index of the first. */
static size_t first_shown(const struct broker_items *list, const struct history_filter *filter,
                          uint64_t lines)
{
    const struct proto_decision *decisions = list->items;
    size_t i = list->count;

    while (lines > 0 && i > 0)
        if (history_passes(filter, &decisions[--i]))
            lines--;
    return i;
}

static int follow_show(struct ctl *ctl, struct follow *follow, const struct broker_items *list,
                       const struct history_filter *filter, size_t skip)
{
    const struct proto_decision *decisions = list->items;
    struct names names = {0};
    int r = 0;

    for (size_t i = 0; i < list->count && r == 0; i++) {
        if (!follow_note(follow, &decisions[i]) || i < skip ||
            !history_passes(filter, &decisions[i]))
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

static uint64_t lines_wanted(const struct ctl *ctl)
{
    uint64_t lines = ctl->options & CTL_OPTION_LINES ? ctl->lines : LINES_DEFAULT;

    return lines != 0 ? lines : UINT64_MAX;
}

/* Until the broker goes, the output cannot be written, or a signal ends it. */
static int history_follow(struct ctl *ctl, const struct history_filter *filter)
{
    struct follow follow = {0};
    bool first = true;

    for (;;) {
        struct broker_items list = {0};
        int r = decisions_load(&ctl->link, follow_cursor(&follow), &list);
        if (r == 0)
            r = follow_show(ctl, &follow, &list, filter,
                            first ? first_shown(&list, filter, lines_wanted(ctl)) : 0);
        broker_items_deinit(&list);
        if (r < 0)
            return ctl_fail(ctl, r, "cannot follow the history");
        if (fflush(stdout) != 0)
            return CTL_OK; /* main says why */
        first = false;
        pause_ms(FOLLOW_PERIOD_MS);
    }
}

/* An exit code. */
static int history_show(struct ctl *ctl, const struct names *names,
                        const struct history_filter *filter)
{
    struct broker_items list = {0};
    int r = decisions_load(&ctl->link, 0, &list);

    if (r == 0) {
        keep_those_that_pass(&list, filter);
        const size_t skip = first_shown(&list, filter, lines_wanted(ctl));
        const struct proto_decision *decisions = list.items;
        if (skip > 0)
            decisions += skip;
        if (ctl->json)
            r = write_json(decisions, list.count - skip, names, json_new_object(),
                           !(ctl->options & CTL_OPTION_WATCH));
        else
            r = write_table(decisions, list.count - skip, names, ctl->colour);
    }
    broker_items_deinit(&list);
    return r < 0 ? ctl_fail(ctl, r, "cannot read the history") : CTL_OK;
}

static int history_run(struct ctl *ctl, int argc, char **argv)
{
    struct history_filter filter = {.channel = {.channel = PROTO_ANY}};
    struct names names = {0};
    int r, code;

    if (ctl->outcome && decision_outcome_parse(ctl->outcome, &filter.outcome) < 0)
        return ctl_usage("--outcome=%s: it is published, done or refused", ctl->outcome);
    r = names_load(&names, &ctl->link);
    if (r < 0)
        return ctl_fail(ctl, r, "cannot list the domains");
    r = argc > 0 ? names_parse_filter(&names, argv[0], &filter.channel) : 0;
    if (r == -EINVAL)
        code = ctl_usage("%s: not a channel number, nor a server's DOMAIN:PORT", argv[0]);
    else if (r < 0)
        code = ctl_fail(ctl, r, argv[0]);
    else if (ctl->options & CTL_OPTION_FOLLOW)
        code = history_follow(ctl, &filter);
    else
        code = history_show(ctl, &names, &filter);
    names_deinit(&names);
    return code;
}

const struct ctl_command history_command = {
    .name = "history",
    .arguments = "[CHANNEL | DOMAIN:PORT]",
    .summary = "each decision of the rebalancer: which ring, from, to, why",
    .help = "The last 20 decisions, oldest first; -n says how many, -n 0 shows all that the\n"
            "broker remembers. With --follow it goes on with new ones, each once when it is\n"
            "taken and once when it is done. With a channel, or the server's domain and\n"
            "port, those about it only; with --outcome those only that ended so.\n"
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
    .options = CTL_OPTION_WATCH | CTL_OPTION_LINES | CTL_OPTION_FOLLOW | CTL_OPTION_OUTCOME,
    .arguments_max = 1,
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
        decisions_clean(&plan);
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
