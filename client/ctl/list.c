/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl list and vchanctl domains. */
#include "client/ctl/ctl.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/rings.h"
#include "client/ctl/table.h"
#include "ring/layout.h"

struct listing {
    struct names names;
    struct broker_items channels; /* proto_channel_info, by number */
    struct broker_items rings;
};

static int compare_channels(const void *a, const void *b)
{
    const struct proto_channel_info *x = a, *y = b;

    return (x->channel > y->channel) - (x->channel < y->channel);
}

static int listing_load(struct listing *listing, struct broker_link *link)
{
    int r = names_load(&listing->names, link);

    if (r == 0)
        r = broker_link_list(link, PROTO_LIST_CHANNELS, 0, PROTO_ANY,
                             sizeof(struct proto_channel_info), &listing->channels);
    if (r == 0)
        r = rings_load(link, PROTO_ANY, &listing->rings);
    broker_items_order(&listing->channels, sizeof(struct proto_channel_info), compare_channels);
    return r;
}

static void listing_deinit(struct listing *listing)
{
    names_deinit(&listing->names);
    broker_items_deinit(&listing->channels);
    broker_items_deinit(&listing->rings);
}

/* A channel that came between the two lists has no rings yet: zeros. */
static struct proto_ring_info ring_of(const struct listing *listing,
                                      const struct proto_channel_info *channel, uint32_t ring)
{
    const struct proto_ring_info *found =
        rings_find(&listing->rings, channel->channel, ring, channel->incarnation);

    return found ? *found : (struct proto_ring_info){0};
}

static struct json *channel_json(const struct listing *listing,
                                 const struct proto_channel_info *channel)
{
    struct proto_ring_info server = ring_of(listing, channel, LAYOUT_SERVER_SENDS);
    struct proto_ring_info client = ring_of(listing, channel, LAYOUT_CLIENT_SENDS);
    struct json *object = json_new_object();

    json_set_number(object, "channel", channel->channel);
    json_set_number(object, "incarnation", channel->incarnation);
    names_set_json(&listing->names, object, "server_domain", channel->server_domain);
    json_set_number(object, "server_pid", channel->server_pid);
    names_set_json(&listing->names, object, "client_domain", channel->client_domain);
    json_set_number(object, "client_pid", channel->client_pid);
    json_set_number(object, "port", channel->port);
    json_set_text(object, "state", channel_state_text(channel->state, 0, 0).text);
    json_set_boolean(object, "server_gone", channel->gone & LAYOUT_GONE_SERVER);
    json_set_boolean(object, "client_gone", channel->gone & LAYOUT_GONE_CLIENT);
    json_set_signed(object, "reason_errno",
                    channel->reason < 0 ? -(int64_t)channel->reason : channel->reason);
    json_set_number(object, "zone", channel->zone);
    json_set_number(object, "age_ns", channel->age_ns);
    json_set_number(object, "server_ring_bytes", server.size_bytes);
    json_set_number(object, "client_ring_bytes", client.size_bytes);
    json_set_number(object, "server_bytes_sent", server.bytes_sent);
    json_set_number(object, "client_bytes_sent", client.bytes_sent);
    return object;
}

static int listing_write_json(const struct listing *listing, bool indented)
{
    const struct proto_channel_info *channels = listing->channels.items;
    struct json *object = json_new_object(), *array = json_new_array();

    for (size_t i = 0; i < listing->channels.count; i++)
        json_push(array, channel_json(listing, &channels[i]));
    json_set(object, "channels", array);
    return json_write(object, stdout, indented);
}

static void add_pid(struct table *table, uint32_t pid)
{
    if (pid)
        table_add(table, "%u", pid);
    else
        table_add(table, "-");
}

static int listing_write_table(const struct listing *listing, bool bold)
{
    static const struct table_column columns[] = {
        {"CHANNEL", TABLE_RIGHT},     {"SERVER", TABLE_LEFT},       {"CLIENT", TABLE_LEFT},
        {"PORT", TABLE_RIGHT},        {"STATE", TABLE_LEFT},        {"SERVER-PID", TABLE_RIGHT},
        {"CLIENT-PID", TABLE_RIGHT},  {"AGE", TABLE_RIGHT},         {"SERVER-RING", TABLE_RIGHT},
        {"CLIENT-RING", TABLE_RIGHT}, {"SERVER-SENT", TABLE_RIGHT}, {"CLIENT-SENT", TABLE_RIGHT},
    };
    const struct proto_channel_info *channels = listing->channels.items;
    struct table table;
    int r;

    table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < listing->channels.count; i++) {
        const struct proto_channel_info *c = &channels[i];
        struct proto_ring_info server = ring_of(listing, c, LAYOUT_SERVER_SENDS);
        struct proto_ring_info client = ring_of(listing, c, LAYOUT_CLIENT_SENDS);
        table_add(&table, "%u", c->channel);
        table_add(&table, "%s", names_text(&listing->names, c->server_domain).text);
        table_add(&table, "%s", names_text(&listing->names, c->client_domain).text);
        table_add(&table, "%u", c->port);
        table_add(&table, "%s", channel_state_text(c->state, c->gone, c->reason).text);
        add_pid(&table, c->server_pid);
        add_pid(&table, c->client_pid);
        table_add(&table, "%s", quantity_duration(c->age_ns).text);
        table_add(&table, "%s", quantity_size(server.size_bytes).text);
        table_add(&table, "%s", quantity_size(client.size_bytes).text);
        table_add(&table, "%s", quantity_size(server.bytes_sent).text);
        table_add(&table, "%s", quantity_size(client.bytes_sent).text);
    }
    r = table_print(&table, stdout, bold);
    table_deinit(&table);
    return r;
}

static int list_run(struct ctl *ctl, int argc, char **argv)
{
    struct listing listing = {0};
    int r = listing_load(&listing, &ctl->link);

    (void)argc;
    (void)argv;
    if (r == 0 && ctl->json)
        r = listing_write_json(&listing, !(ctl->options & CTL_OPTION_WATCH));
    else if (r == 0)
        r = listing_write_table(&listing, ctl->colour);
    listing_deinit(&listing);
    return r < 0 ? ctl_fail(ctl, r, "cannot list the channels") : CTL_OK;
}

const struct ctl_command list_command = {
    .name = "list",
    .arguments = "",
    .summary = "the channels: their ends, state, memory and bytes",
    .help = "One line a channel. SERVER-RING and CLIENT-RING are the sizes of the rings that\n"
            "the server and the client send in; SERVER-SENT and CLIENT-SENT what went\n"
            "through them. A domain other than 0 sees its own channels.\n"
            "\n"
            "States: waiting (the server is there, no client yet), connected, server gone or\n"
            "client gone (the other end still reads what is left), closed (with the reason,\n"
            "when an end broke the rules).\n"
            "\n"
            "JSON: {\"channels\": [{channel, incarnation, server_domain, server_domain_name,\n"
            "server_pid, client_domain, client_domain_name, client_pid, port, state,\n"
            "server_gone, client_gone, reason_errno, zone, age_ns, server_ring_bytes,\n"
            "client_ring_bytes, server_bytes_sent, client_bytes_sent}]}. A pid of 0: nobody\n"
            "is there yet. A name of null: the domain has none.\n",
    .options = CTL_OPTION_WATCH,
    .run = list_run,
};

static const char *domain_state_text(uint32_t state)
{
    return state == PROTO_DOMAIN_RUNNING      ? "running"
           : state == PROTO_DOMAIN_CONFIGURED ? "configured"
                                              : "unknown";
}

static struct json *domain_json(const struct proto_domain_info *domain)
{
    struct json *object = json_new_object();
    const struct uuid_text uuid = names_uuid(domain->uuid);

    json_set_number(object, "domain", domain->domain);
    if (domain->name[0])
        json_set_text(object, "name", domain->name);
    else
        json_set_null(object, "name");
    json_set_text(object, "state", domain_state_text(domain->state));
    json_set_number(object, "connections", domain->connections);
    json_set_number(object, "channels", domain->channels);
    json_set_number(object, "bytes_held", domain->bytes_held);
    json_set_number(object, "quota_bytes", domain->quota_bytes);
    if (uuid.text[0])
        json_set_text(object, "uuid", uuid.text);
    else
        json_set_null(object, "uuid");
    return object;
}

static int domains_write_json(const struct names *names, bool indented)
{
    const struct proto_domain_info *domains = names->domains.items;
    struct json *object = json_new_object(), *array = json_new_array();

    for (size_t i = 0; i < names->domains.count; i++)
        json_push(array, domain_json(&domains[i]));
    json_set(object, "domains", array);
    return json_write(object, stdout, indented);
}

static int domains_write_table(const struct names *names, bool bold)
{
    static const struct table_column columns[] = {
        {"DOMAIN", TABLE_RIGHT},      {"NAME", TABLE_LEFT},      {"STATE", TABLE_LEFT},
        {"CONNECTIONS", TABLE_RIGHT}, {"CHANNELS", TABLE_RIGHT}, {"HELD", TABLE_RIGHT},
        {"QUOTA", TABLE_RIGHT},
    };
    const struct proto_domain_info *domains = names->domains.items;
    struct table table;
    int r;

    table_init(&table, columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < names->domains.count; i++) {
        const struct proto_domain_info *d = &domains[i];
        table_add(&table, "%u", d->domain);
        table_add(&table, "%s", d->name);
        table_add(&table, "%s", domain_state_text(d->state));
        table_add(&table, "%u", d->connections);
        table_add(&table, "%u", d->channels);
        table_add(&table, "%s", quantity_size(d->bytes_held).text);
        table_add(&table, "%s", d->quota_bytes ? quantity_size(d->quota_bytes).text : "none");
    }
    r = table_print(&table, stdout, bold);
    table_deinit(&table);
    return r;
}

static int domains_run(struct ctl *ctl, int argc, char **argv)
{
    struct names names = {0};
    int r = names_load(&names, &ctl->link);

    (void)argc;
    (void)argv;
    if (r == 0 && ctl->json)
        r = domains_write_json(&names, !(ctl->options & CTL_OPTION_WATCH));
    else if (r == 0)
        r = domains_write_table(&names, ctl->colour);
    names_deinit(&names);
    return r < 0 ? ctl_fail(ctl, r, "cannot list the domains") : CTL_OK;
}

const struct ctl_command domains_command = {
    .name = "domains",
    .arguments = "",
    .summary = "the domains: names, connections, memory held and quota",
    .help = "One line a domain that is configured or has something open. HELD is the memory\n"
            "of the rings that it sends in, which counts against its QUOTA.\n"
            "\n"
            "JSON: {\"domains\": [{domain, name, state, connections, channels, bytes_held,\n"
            "quota_bytes, uuid}]}. state: \"configured\" (nobody of it is connected) or\n"
            "\"running\". quota_bytes 0: none.\n",
    .options = CTL_OPTION_WATCH,
    .run = domains_run,
};
