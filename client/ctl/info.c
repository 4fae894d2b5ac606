/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl info and vchanctl version. */
#include "client/ctl/ctl.h"
#include "client/ctl/json.h"
#include "client/ctl/quantity.h"
#include "client/ctl/text.h"

uint64_t ctl_used_bytes(const struct proto_broker_info *info)
{
    return info->data_bytes > info->free_bytes ? info->data_bytes - info->free_bytes : 0;
}

static int load(struct ctl *ctl, struct proto_broker_info *info)
{
    int r = broker_link_call(&ctl->link, PROTO_BROKER_INFO, NULL, 0, info, sizeof(*info));

    if (r < 0)
        return r;
    text_clean(info->version, sizeof(info->version));
    text_clean(info->policy, sizeof(info->policy));
    return 0;
}

static struct json *info_json(const struct proto_broker_info *info)
{
    struct json *object = json_new_object();

    json_set_text(object, "version", info->version);
    json_set_text(object, "policy", info->policy);
    json_set_number(object, "uptime_ns", info->uptime_ns);
    json_set_number(object, "region_bytes", info->region_bytes);
    json_set_number(object, "data_bytes", info->data_bytes);
    json_set_number(object, "free_bytes", info->free_bytes);
    json_set_number(object, "largest_free_bytes", info->largest_free_bytes);
    json_set_number(object, "fragmentation_permille", info->fragmentation_permille);
    json_set_number(object, "used_bytes", ctl_used_bytes(info));
    json_set_number(object, "resident_bytes", info->resident_bytes);
    json_set_number(object, "domains", info->domains);
    json_set_number(object, "channels", info->channels);
    json_set_number(object, "channels_max", info->channels_max);
    json_set_number(object, "connections", info->connections);
    json_set_number(object, "zones", info->zones);
    json_set_number(object, "rounds", info->rounds);
    json_set_number(object, "moves", info->moves);
    json_set_number(object, "grace_periods", info->grace_periods);
    json_set_number(object, "pinned", info->pinned);
    json_set_number(object, "opens", info->opens);
    json_set_number(object, "closes", info->closes);
    return object;
}

static void info_print(const struct proto_broker_info *info)
{
    const bool several = info->zones > 1;

    printf("version        %s\n", info->version);
    printf("policy         %s\n", info->policy);
    printf("uptime         %s\n", quantity_duration(info->uptime_ns).text);
    if (several)
        printf("zones          %u, of which these are the sums:\n", info->zones);
    printf("region         %s, %s of it for data\n", quantity_size(info->region_bytes).text,
           quantity_size(info->data_bytes).text);
    printf("free           %s, the largest run%s %s\n", quantity_size(info->free_bytes).text,
           several ? " of any zone" : "", quantity_size(info->largest_free_bytes).text);
    printf("fragmentation  %u.%u%%%s\n", info->fragmentation_permille / 10,
           info->fragmentation_permille % 10, several ? " in the worst zone" : "");
    printf("in use         %s\n", quantity_size(ctl_used_bytes(info)).text);
    printf("resident       %s\n", quantity_size(info->resident_bytes).text);
    printf("domains        %u\n", info->domains);
    printf("channels       %u of at most %u\n", info->channels, info->channels_max);
    printf("connections    %u\n", info->connections);
    printf("opened         %llu ends, %llu closed\n", (unsigned long long)info->opens,
           (unsigned long long)info->closes);
    printf("rebalancing    %llu rounds, %llu moves, %llu grace periods\n",
           (unsigned long long)info->rounds, (unsigned long long)info->moves,
           (unsigned long long)info->grace_periods);
    printf("pinned         %llu rings whose old memory an end keeps\n",
           (unsigned long long)info->pinned);
}

static int info_run(struct ctl *ctl, int argc, char **argv)
{
    struct proto_broker_info info;
    int r = load(ctl, &info);

    (void)argc;
    (void)argv;
    if (r == 0 && ctl->json)
        r = json_write(info_json(&info), stdout, !(ctl->options & CTL_OPTION_WATCH));
    else if (r == 0)
        info_print(&info);
    return r < 0 ? ctl_fail(ctl, r, "cannot ask the broker about itself") : CTL_OK;
}

const struct ctl_command info_command = {
    .name = "info",
    .arguments = "",
    .summary = "the broker: version, policy, memory, what it has done",
    .help = "  region         all shared memory; \"for data\" is what the rings are made of\n"
            "  free           of the data section; no single ring can get more than the\n"
            "                 largest run at once\n"
            "  fragmentation  the part of the free memory outside its largest run\n"
            "  in use         of the data section: the memory of the rings\n"
            "  resident       what the host really spends on the region now: what is in use,\n"
            "                 a page for each channel, and the header\n"
            "  moves          generations published: each resize or move of a ring\n"
            "With several zones, memory is their sum, the largest run that of any zone, and\n"
            "the fragmentation that of the worst.\n"
            "\n"
            "JSON: {version, policy, uptime_ns, region_bytes, data_bytes, free_bytes,\n"
            "largest_free_bytes, fragmentation_permille, used_bytes, resident_bytes, domains,\n"
            "channels, channels_max, connections, zones, rounds, moves, grace_periods,\n"
            "pinned, opens, closes}.\n",
    .options = CTL_OPTION_WATCH,
    .run = info_run,
};

/* The broker's version is told when there is one that answers; vchanctl has its own in any case. */
static int version_run(struct ctl *ctl, int argc, char **argv)
{
    struct proto_broker_info info;
    uint32_t domain;
    bool answered =
        ctl_domain(&domain) == 0 && broker_link_open(&ctl->link, ctl->socket_path, domain) == 0;

    (void)argc;
    (void)argv;
    if (answered) {
        answered = load(ctl, &info) == 0;
        broker_link_close(&ctl->link);
    }
    if (ctl->json) {
        struct json *object = json_new_object();
        json_set_text(object, "version", VCHAN_VERSION);
        json_set_number(object, "protocol", PROTO_VERSION);
        if (answered)
            json_set_text(object, "broker_version", info.version);
        else
            json_set_null(object, "broker_version");
        int r = json_write(object, stdout, true);
        return r < 0 ? ctl_fail(ctl, r, "cannot write the version") : CTL_OK;
    }
    printf("vchanctl %s (control protocol %u)\n", VCHAN_VERSION, PROTO_VERSION);
    if (answered)
        printf("vchand %s\n", info.version);
    return CTL_OK;
}

const struct ctl_command version_command = {
    .name = "version",
    .arguments = "",
    .summary = "the versions of vchanctl and of the broker that runs",
    .help = "Without a broker it tells its own version only, and succeeds.\n"
            "\n"
            "JSON: {version, protocol, broker_version}. broker_version null: no broker\n"
            "answered.\n",
    .offline = true,
    .run = version_run,
};
