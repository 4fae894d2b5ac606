/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl stats: what goes through each ring, and with --watch how fast. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "client/ctl/ctl.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/rings.h"
#include "client/ctl/table.h"

struct sample {
    struct names names;
    struct broker_items rings; /* proto_ring_info: those that are to be shown */
    struct proto_broker_info info;
    uint64_t now_ns;
};

/* Per second since the last sample. known: there was one of this ring. */
struct rates {
    bool known;
    uint64_t bytes;
    uint64_t operations;
};

static uint64_t monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A counter that went back (a broker that lies) is a rate of 0. */
static uint64_t per_second(uint64_t now, uint64_t before, uint64_t elapsed_ns)
{
    return now > before ? (uint64_t)((double)(now - before) * 1e9 / (double)elapsed_ns) : 0;
}

static struct rates rates_of(const struct ctl *ctl, const struct sample *sample,
                             const struct proto_ring_info *ring)
{
    const struct proto_ring_info *last =
        rings_find(&ctl->last_rings, ring->channel, ring->ring, ring->incarnation);
    uint64_t elapsed_ns = sample->now_ns - ctl->last_ns;

    if (ctl->last_ns == 0 || !last || elapsed_ns == 0)
        return (struct rates){0};
    return (struct rates){
        .known = true,
        .bytes = per_second(ring->bytes_sent, last->bytes_sent, elapsed_ns),
        .operations = per_second(ring->operations_sent, last->operations_sent, elapsed_ns),
    };
}

static void keep_those_that_pass(struct broker_items *items, const struct channel_filter *filter)
{
    struct proto_ring_info *rings = items->items;
    size_t kept = 0;

    for (size_t i = 0; i < items->count; i++)
        if (channel_filter_passes(filter, rings[i].channel, ring_server_domain(&rings[i]),
                                  rings[i].port))
            rings[kept++] = rings[i];
    items->count = kept;
}

static struct json *memory_json(const struct proto_broker_info *info)
{
    struct json *object = json_new_object();

    json_set_number(object, "region_bytes", info->region_bytes);
    json_set_number(object, "data_bytes", info->data_bytes);
    json_set_number(object, "used_bytes", ctl_used_bytes(info));
    json_set_number(object, "resident_bytes", info->resident_bytes);
    return object;
}

static int write_json(const struct ctl *ctl, const struct sample *sample)
{
    const struct proto_ring_info *rings = sample->rings.items;
    struct json *object = json_new_object(), *array = json_new_array();

    for (size_t i = 0; i < sample->rings.count; i++) {
        struct json *ring = ring_json(&rings[i], &sample->names);
        struct rates rates = rates_of(ctl, sample, &rings[i]);
        if (rates.known) {
            json_set_number(ring, "bytes_per_second", rates.bytes);
            json_set_number(ring, "operations_per_second", rates.operations);
        }
        json_push(array, ring);
    }
    json_set(object, "rings", array);
    json_set(object, "memory", memory_json(&sample->info));
    return json_write(object, stdout, !(ctl->options & CTL_OPTION_WATCH));
}

static void add_row(struct table *table, const struct ctl *ctl, const struct sample *sample,
                    const struct proto_ring_info *r)
{
    struct rates rates = rates_of(ctl, sample, r);

    table_add(table, "%u.%u", r->channel, r->ring);
    table_add(table, "%s", names_text(&sample->names, r->sender_domain).text);
    table_add(table, "%s", names_text(&sample->names, r->receiver_domain).text);
    table_add(table, "%u", r->port);
    table_add(table, "%s", quantity_size(r->size_bytes).text);
    table_add(table, "%llu", (unsigned long long)r->generation);
    table_add(table, "%s", quantity_size(r->bytes_held).text);
    table_add(table, "%s", quantity_size(r->high_water_bytes).text);
    table_add(table, "%s", quantity_size(r->bytes_sent).text);
    table_add(table, "%s", quantity_count(r->operations_sent).text);
    table_add(table, "%s", quantity_count(r->stalls).text);
    table_add(table, "%s", quantity_duration(r->stall_ns).text);
    table_add(table, "%s", quantity_count(r->sender_sleeps + r->receiver_sleeps).text);
    table_add(table, "%s", quantity_count(r->sender_doorbells + r->receiver_doorbells).text);
    table_add(table, "%s", quantity_duration(r->idle_ns).text);
    if (ctl->options & CTL_OPTION_WATCH) {
        table_add(table, "%s", rates.known ? quantity_size(rates.bytes).text : "-");
        table_add(table, "%s", rates.known ? quantity_count(rates.operations).text : "-");
    }
    table_add(table, "%s", ring_flags_text(r->flags).text);
}

static int write_table(const struct ctl *ctl, const struct sample *sample)
{
    static const struct table_column once[] = {
        {"RING", TABLE_RIGHT},   {"SENDER", TABLE_LEFT},  {"RECEIVER", TABLE_LEFT},
        {"PORT", TABLE_RIGHT},   {"SIZE", TABLE_RIGHT},   {"GEN", TABLE_RIGHT},
        {"HELD", TABLE_RIGHT},   {"HIGH", TABLE_RIGHT},   {"SENT", TABLE_RIGHT},
        {"OPS", TABLE_RIGHT},    {"STALLS", TABLE_RIGHT}, {"STALLED", TABLE_RIGHT},
        {"SLEEPS", TABLE_RIGHT}, {"BELLS", TABLE_RIGHT},  {"IDLE", TABLE_RIGHT},
        {"FLAGS", TABLE_LEFT},
    };
    static const struct table_column watched[] = {
        {"RING", TABLE_RIGHT},   {"SENDER", TABLE_LEFT},  {"RECEIVER", TABLE_LEFT},
        {"PORT", TABLE_RIGHT},   {"SIZE", TABLE_RIGHT},   {"GEN", TABLE_RIGHT},
        {"HELD", TABLE_RIGHT},   {"HIGH", TABLE_RIGHT},   {"SENT", TABLE_RIGHT},
        {"OPS", TABLE_RIGHT},    {"STALLS", TABLE_RIGHT}, {"STALLED", TABLE_RIGHT},
        {"SLEEPS", TABLE_RIGHT}, {"BELLS", TABLE_RIGHT},  {"IDLE", TABLE_RIGHT},
        {"SENT/S", TABLE_RIGHT}, {"OPS/S", TABLE_RIGHT},  {"FLAGS", TABLE_LEFT},
    };
    const struct proto_ring_info *rings = sample->rings.items;
    struct table table;
    int r;

    if (ctl->options & CTL_OPTION_WATCH)
        table_init(&table, watched, sizeof(watched) / sizeof(watched[0]));
    else
        table_init(&table, once, sizeof(once) / sizeof(once[0]));
    for (size_t i = 0; i < sample->rings.count; i++)
        add_row(&table, ctl, sample, &rings[i]);
    r = table_print(&table, stdout, ctl->colour);
    table_deinit(&table);
    printf("memory: %s in use, %s resident, of %s for data\n",
           quantity_size(ctl_used_bytes(&sample->info)).text,
           quantity_size(sample->info.resident_bytes).text,
           quantity_size(sample->info.data_bytes).text);
    return r;
}

static void write_ends(const struct names *names, const struct proto_ring_info *r)
{
    printf("  sender        domain %s, pid %u\n", names_text(names, r->sender_domain).text,
           r->sender_pid);
    if (r->receiver_pid)
        printf("  receiver      domain %s, pid %u\n", names_text(names, r->receiver_domain).text,
               r->receiver_pid);
    else
        printf("  receiver      domain %s, not there\n",
               names_text(names, r->receiver_domain).text);
}

static void write_details(const struct ctl *ctl, const struct sample *sample,
                          const struct proto_ring_info *r)
{
    struct rates rates = rates_of(ctl, sample, r);
    struct ring_flags_text flags = ring_flags_text(r->flags);

    printf("ring %u.%u, port %u, the %s sends, %s\n", r->channel, r->ring, r->port,
           r->ring ? "client" : "server", channel_state_text(r->channel_state, 0, 0).text);
    write_ends(&sample->names, r);
    printf("  memory        %s at 0x%llx, generation %llu, resized %llu times\n",
           quantity_size(r->size_bytes).text, (unsigned long long)r->offset_bytes,
           (unsigned long long)r->generation, (unsigned long long)r->resizes);
    if (r->old_size_bytes)
        printf("  old memory    %s, being drained\n", quantity_size(r->old_size_bytes).text);
    printf("  limits        min %s, max %s, weight %u\n", quantity_size(r->min_bytes).text,
           quantity_size(r->max_bytes).text, r->weight);
    printf("  held          %s, at most %s\n", quantity_size(r->bytes_held).text,
           quantity_size(r->high_water_bytes).text);
    printf("  sent          %s in %s operations\n", quantity_size(r->bytes_sent).text,
           quantity_count(r->operations_sent).text);
    printf("  received      %s in %s operations\n", quantity_size(r->bytes_received).text,
           quantity_count(r->operations_received).text);
    if (rates.known)
        printf("  rate          %s/s in %s operations/s\n", quantity_size(rates.bytes).text,
               quantity_count(rates.operations).text);
    printf("  stalls        %s, %s in all\n", quantity_count(r->stalls).text,
           quantity_duration(r->stall_ns).text);
    printf("  sleeps        sender %s, receiver %s\n", quantity_count(r->sender_sleeps).text,
           quantity_count(r->receiver_sleeps).text);
    printf("  doorbells     sender %s, receiver %s\n", quantity_count(r->sender_doorbells).text,
           quantity_count(r->receiver_doorbells).text);
    printf("  last activity %s%s\n", quantity_duration(r->idle_ns).text,
           r->idle_ns == UINT64_MAX ? "" : " ago");
    printf("  flags         %s\n", flags.text[0] ? flags.text : "none");
}

static int sample_write(const struct ctl *ctl, const struct sample *sample, bool detailed)
{
    const struct proto_ring_info *rings = sample->rings.items;

    if (ctl->json)
        return write_json(ctl, sample);
    if (!detailed)
        return write_table(ctl, sample);
    for (size_t i = 0; i < sample->rings.count; i++) {
        fputs(i > 0 ? "\n" : "", stdout);
        write_details(ctl, sample, &rings[i]);
    }
    return 0;
}

/* An exit code: 0, or the complaint has been made. */
static int sample_load(struct ctl *ctl, struct sample *sample, const char *which)
{
    struct channel_filter filter = {.channel = PROTO_ANY};
    int r = names_load(&sample->names, &ctl->link);

    if (r < 0)
        return ctl_fail(ctl, r, "cannot list the domains");
    r = broker_link_call(&ctl->link, PROTO_BROKER_INFO, NULL, 0, &sample->info,
                         sizeof(sample->info));
    if (r < 0)
        return ctl_fail(ctl, r, "cannot ask the broker about its memory");
    r = which ? names_parse_filter(&sample->names, which, &filter) : 0;
    if (r == -EINVAL)
        return ctl_usage("%s: not a channel number, nor a server's DOMAIN:PORT", which);
    if (r == 0)
        r = rings_load(&ctl->link, filter.channel, &sample->rings);
    if (r == 0)
        keep_those_that_pass(&sample->rings, &filter);
    if (r == 0 && which && sample->rings.count == 0)
        r = -ENOENT;
    if (r == -ENOENT && which && !ctl->link.why[0]) {
        fprintf(stderr, "vchanctl: no channel is known as %s: see vchanctl list\n", which);
        return CTL_FAILED;
    }
    return r < 0 ? ctl_fail(ctl, r, "cannot list the rings") : CTL_OK;
}

static int stats_run(struct ctl *ctl, int argc, char **argv)
{
    const char *which = argc > 0 ? argv[0] : NULL;
    struct sample sample = {.now_ns = monotonic_ns()};
    int code = sample_load(ctl, &sample, which);

    if (code == CTL_OK) {
        int r = sample_write(ctl, &sample, which || (ctl->options & CTL_OPTION_VERBOSE));
        if (r < 0)
            code = ctl_fail(ctl, r, "cannot write the statistics");
        broker_items_deinit(&ctl->last_rings);
        ctl->last_rings = sample.rings;
        ctl->last_ns = sample.now_ns;
        sample.rings = (struct broker_items){0};
    }
    broker_items_deinit(&sample.rings);
    names_deinit(&sample.names);
    return code;
}

const struct ctl_command stats_command = {
    .name = "stats",
    .arguments = "[CHANNEL | DOMAIN:PORT]",
    .summary = "each ring: size, occupancy, bytes, stalls, wake-ups",
    .help = "One line a ring; with a channel, or the server's domain and port, or -v, a\n"
            "block with all that is known. RING is CHANNEL.0 for what the server sends,\n"
            "CHANNEL.1 for what the client sends.\n"
            "\n"
            "  SIZE, GEN       memory of the ring, and how often that was changed\n"
            "                  (generation)\n"
            "  HELD, HIGH      bytes that wait to be read, now and at most since the last\n"
            "                  sample of the broker\n"
            "  SENT, OPS       bytes and operations of the sender\n"
            "  STALLS, STALLED how often, and for how long in all, the sender lacked space\n"
            "  SLEEPS, BELLS   how often an end went to sleep, and the other one rang; both\n"
            "                  ends together\n"
            "  IDLE            since the broker last saw a byte go in or out\n"
            "  SENT/S, OPS/S   with --watch: a second's worth since the last sample\n"
            "  FLAGS           stalled: lacks space now. moving: an old extent is not free\n"
            "                  yet. pinned: because an end stays in an operation or was\n"
            "                  promised the space\n"
            "  memory          the last line: what all rings have, and what the host spends\n"
            "                  on the region for it, which follows\n"
            "\n"
            "JSON: {\"rings\": [{channel, ring, incarnation, port, state, sender_domain,\n"
            "sender_domain_name, sender_pid, receiver_domain, receiver_domain_name,\n"
            "receiver_pid, generation, offset_bytes, size_bytes, old_size_bytes, min_bytes,\n"
            "max_bytes, weight, bytes_held, high_water_bytes, bytes_sent, bytes_received,\n"
            "operations_sent, operations_received, stalls, stall_ns, sender_sleeps,\n"
            "receiver_sleeps, sender_doorbells, receiver_doorbells, resizes, idle_ns,\n"
            "stalled, moving, pinned}], \"memory\": {region_bytes, data_bytes, used_bytes,\n"
            "resident_bytes}}. idle_ns null: never. With --watch one object a line, and from\n"
            "the second sample of a ring on bytes_per_second and operations_per_second.\n",
    .options = CTL_OPTION_WATCH | CTL_OPTION_VERBOSE,
    .arguments_max = 1,
    .run = stats_run,
};
