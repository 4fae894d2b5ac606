/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl set ring and vchanctl set domain. */
#include <errno.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/json.h"
#include "client/ctl/names.h"
#include "client/ctl/quantity.h"
#include "client/ctl/rings.h"

#define WEIGHT_MAX 1000u

/* The value in "key=value", NULL: it is another key's. */
static const char *value_of(const char *text, const char *key)
{
    size_t length = strlen(key);

    return strncmp(text, key, length) == 0 && text[length] == '=' ? text + length + 1 : NULL;
}

static int parse_size(const char *setting, const char *value, uint64_t *bytes)
{
    int r = quantity_parse_size(value, bytes);

    if (r == -ERANGE)
        return ctl_usage("%s: too large", setting);
    if (r < 0)
        return ctl_usage("%s: not a size; sizes are like 65536, 64K, 1.5M or 2GiB", setting);
    return CTL_OK;
}

static int parse_setting(const char *setting, struct proto_ring_set *set)
{
    const char *value;
    uint64_t weight;
    uint32_t field;
    int code = CTL_OK;

    if ((value = value_of(setting, "min"))) {
        field = PROTO_SET_MIN;
        code = parse_size(setting, value, &set->min_bytes);
    } else if ((value = value_of(setting, "max"))) {
        field = PROTO_SET_MAX;
        code = parse_size(setting, value, &set->max_bytes);
    } else if ((value = value_of(setting, "size"))) {
        field = PROTO_SET_SIZE;
        code = parse_size(setting, value, &set->size_bytes);
    } else if ((value = value_of(setting, "weight"))) {
        field = PROTO_SET_WEIGHT;
        if (quantity_parse_number(value, WEIGHT_MAX, &weight) < 0 || weight == 0)
            return ctl_usage("%s: a weight is from 1 to %u", setting, WEIGHT_MAX);
        set->weight = (uint32_t)weight;
    } else {
        return ctl_usage(
            "%s: not a setting of a ring; those are min=SIZE, max=SIZE, size=SIZE and weight=N",
            setting);
    }
    if (code == CTL_OK && (set->fields & field))
        return ctl_usage("%s: set twice", setting);
    set->fields |= field;
    return code;
}

static int parse_ring(int argc, char **argv, struct proto_ring_set *set)
{
    int code = CTL_OK;

    if (argc < 2)
        return ctl_usage("set ring: say which ring and what to set, as in: set ring 3.0 max=1M");
    *set = (struct proto_ring_set){0};
    if (names_parse_ring(argv[0], &set->channel, &set->ring) < 0)
        return ctl_usage(
            "%s: not a ring; rings are CHANNEL.0 or CHANNEL:server, CHANNEL.1 or CHANNEL:client",
            argv[0]);
    for (int i = 1; i < argc && code == CTL_OK; i++)
        code = parse_setting(argv[i], set);
    if (code == CTL_OK && (set->fields & PROTO_SET_MIN) && (set->fields & PROTO_SET_MAX) &&
        set->min_bytes > set->max_bytes)
        return ctl_usage("the minimum is larger than the maximum");
    return code;
}

/* Shows the ring as it is after the change. */
static int show_ring(struct ctl *ctl, const struct proto_ring_set *set)
{
    struct broker_items rings = {0};
    struct names names = {0};
    const struct proto_ring_info *info = NULL;
    int r = names_load(&names, &ctl->link);

    if (r == 0)
        r = rings_load(&ctl->link, set->channel, &rings);
    for (size_t i = 0; i < rings.count; i++) {
        const struct proto_ring_info *each = (const struct proto_ring_info *)rings.items + i;
        if (each->channel == set->channel && each->ring == set->ring)
            info = each;
    }
    if (r == 0 && !info)
        r = -ENOENT; /* closed meanwhile */
    if (r == 0 && ctl->json) {
        struct json *object = json_new_object();
        json_set(object, "ring", ring_json(info, &names));
        r = json_write(object, stdout, true);
    } else if (r == 0) {
        printf("ring %u.%u: size %s, min %s, max %s, weight %u\n", info->channel, info->ring,
               quantity_size(info->size_bytes).text, quantity_size(info->min_bytes).text,
               quantity_size(info->max_bytes).text, info->weight);
    }
    broker_items_deinit(&rings);
    names_deinit(&names);
    return r < 0 ? ctl_fail(ctl, r, "the ring is set, but cannot be shown") : CTL_OK;
}

static int set_ring(struct ctl *ctl, const struct proto_ring_set *set)
{
    char what[64];
    int code = ctl_open(ctl);

    if (code != CTL_OK)
        return code;
    int r = broker_link_call(&ctl->link, PROTO_RING_SET, set, sizeof(*set), NULL, 0);
    if (r < 0) {
        snprintf(what, sizeof(what), "cannot set ring %u.%u", set->channel, set->ring);
        return ctl_fail(ctl, r, what);
    }
    return show_ring(ctl, set);
}

static int show_domain(const struct ctl *ctl, const struct names *names, uint32_t domain,
                       uint64_t quota_bytes)
{
    if (ctl->json) {
        struct json *object = json_new_object(), *shown = json_new_object();
        json_set_number(shown, "domain", domain);
        json_set_number(shown, "quota_bytes", quota_bytes);
        json_set(object, "domain", shown);
        int r = json_write(object, stdout, true);
        return r < 0 ? ctl_fail(ctl, r, "the quota is set, but cannot be shown") : CTL_OK;
    }
    printf("domain %s: quota %s\n", names_text(names, domain).text,
           quota_bytes ? quantity_size(quota_bytes).text : "none");
    return CTL_OK;
}

static int set_domain(struct ctl *ctl, const char *name, uint64_t quota_bytes)
{
    struct proto_domain_set set = {.quota_bytes = quota_bytes};
    struct names names = {0};
    int code = ctl_open(ctl);

    if (code != CTL_OK)
        return code;
    int r = names_load(&names, &ctl->link);
    if (r < 0) {
        code = ctl_fail(ctl, r, "cannot list the domains");
    } else if (names_find(&names, name, &set.domain) < 0) {
        fprintf(stderr, "vchanctl: no domain has the name %s: see vchanctl domains\n", name);
        code = CTL_FAILED;
    } else {
        r = broker_link_call(&ctl->link, PROTO_DOMAIN_SET, &set, sizeof(set), NULL, 0);
        code = r < 0 ? ctl_fail(ctl, r, "cannot set the quota")
                     : show_domain(ctl, &names, set.domain, quota_bytes);
    }
    names_deinit(&names);
    return code;
}

static int parse_quota(const char *setting, uint64_t *quota_bytes)
{
    const char *value = value_of(setting, "quota");

    if (!value)
        return ctl_usage("%s: not a setting of a domain; that is quota=SIZE, or quota=none",
                         setting);
    *quota_bytes = 0;
    return strcmp(value, "none") == 0 ? CTL_OK : parse_size(setting, value, quota_bytes);
}

/* Opens the link only when the whole command line is understood. */
static int set_run(struct ctl *ctl, int argc, char **argv)
{
    struct proto_ring_set set;
    uint64_t quota_bytes;
    int code;

    if (strcmp(argv[0], "ring") == 0) {
        code = parse_ring(argc - 1, argv + 1, &set);
        return code == CTL_OK ? set_ring(ctl, &set) : code;
    }
    if (strcmp(argv[0], "domain") == 0) {
        if (argc != 3)
            return ctl_usage(
                "set domain: say which domain and its quota, as in: set domain web quota=16M");
        code = parse_quota(argv[2], &quota_bytes);
        return code == CTL_OK ? set_domain(ctl, argv[1], quota_bytes) : code;
    }
    return ctl_usage("set %s: what is set is a ring or a domain", argv[0]);
}

const struct ctl_command set_command = {
    .name = "set",
    .arguments =
        "ring RING [min=SIZE] [max=SIZE] [size=SIZE] [weight=N] | domain DOMAIN quota=SIZE",
    .summary = "limits, size and weight of a ring; a domain's quota",
    .help = "RING is CHANNEL.0 or CHANNEL:server (what the server sends), CHANNEL.1 or\n"
            "CHANNEL:client. DOMAIN is a name or a number. Domain 0 only.\n"
            "\n"
            "  min=SIZE    the ring never shrinks below this\n"
            "  max=SIZE    and never grows beyond this\n"
            "  size=SIZE   resize it now; the policy may change it again, unless min and max\n"
            "              hold it\n"
            "  weight=N    1 to 1000 (default 100): its share when rings compete for memory\n"
            "  quota=SIZE  memory that the rings a domain sends in may have together; none\n"
            "              or 0: no limit\n"
            "\n"
            "SIZE is in bytes, or with K, M, G, T (also KiB, ...), powers of 1024.\n"
            "\n"
            "JSON: {\"ring\": {as stats has it, after the change}} or {\"domain\": {domain,\n"
            "quota_bytes}}.\n",
    .arguments_min = 1,
    .arguments_max = -1,
    .offline = true,
    .run = set_run,
};
