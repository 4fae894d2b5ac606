/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/quantity.h"
#include "client/ctl/text.h"
#include "ring/layout.h"

static int compare_domains(const void *a, const void *b)
{
    const struct proto_domain_info *x = a, *y = b;

    return (x->domain > y->domain) - (x->domain < y->domain);
}

int names_load(struct names *names, struct broker_link *link)
{
    int r;

    *names = (struct names){0};
    r = broker_link_list(link, PROTO_LIST_DOMAINS, 0, PROTO_ANY, sizeof(struct proto_domain_info),
                         &names->domains);
    if (r < 0)
        return r;
    broker_items_order(&names->domains, sizeof(struct proto_domain_info), compare_domains);
    struct proto_domain_info *infos = names->domains.items;
    for (size_t i = 0; i < names->domains.count; i++)
        text_clean(infos[i].name, sizeof(infos[i].name));
    return 0;
}

void names_deinit(struct names *names)
{
    broker_items_deinit(&names->domains);
}

/* NULL: it has no name. */
static const char *name_of(const struct names *names, uint32_t domain)
{
    struct proto_domain_info key = {.domain = domain};
    const struct proto_domain_info *info = NULL;

    if (names->domains.count > 0)
        info =
            bsearch(&key, names->domains.items, names->domains.count, sizeof(key), compare_domains);
    return info && info->name[0] ? info->name : NULL;
}

struct name_text names_text(const struct names *names, uint32_t domain)
{
    const char *name = name_of(names, domain);
    struct name_text text;

    if (name)
        snprintf(text.text, sizeof(text.text), "%s", name);
    else
        snprintf(text.text, sizeof(text.text), "%u", domain);
    return text;
}

struct uuid_text names_uuid(const uint8_t uuid[16])
{
    static const uint8_t none[16];
    struct uuid_text text = {""};
    size_t used = 0;

    for (size_t i = 0; memcmp(uuid, none, sizeof(none)) != 0 && i < sizeof(none); i++)
        used += (size_t)snprintf(text.text + used, sizeof(text.text) - used, "%s%02x",
                                 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    return text;
}

int names_find(const struct names *names, const char *text, uint32_t *domain)
{
    const struct proto_domain_info *infos = names->domains.items;
    uint64_t number;

    if (quantity_parse_number(text, PROTO_DOMAIN_MAX, &number) == 0) {
        *domain = (uint32_t)number;
        return 0;
    }
    if (!*text)
        return -ENOENT;
    for (size_t i = 0; i < names->domains.count; i++)
        if (strcmp(infos[i].name, text) == 0) {
            *domain = infos[i].domain;
            return 0;
        }
    return -ENOENT;
}

void names_set_json(const struct names *names, struct json *object, const char *key,
                    uint32_t domain)
{
    const char *name = name_of(names, domain);
    char name_key[64];

    snprintf(name_key, sizeof(name_key), "%s_name", key);
    json_set_number(object, key, domain);
    if (name)
        json_set_text(object, name_key, name);
    else
        json_set_null(object, name_key);
}

int names_parse_channel(const char *text, uint32_t *channel)
{
    uint64_t number;

    if (quantity_parse_number(text, PROTO_ANY - 1, &number) < 0)
        return -EINVAL;
    *channel = (uint32_t)number;
    return 0;
}

int names_parse_ring(const char *text, uint32_t *channel, uint32_t *ring)
{
    size_t digits = strcspn(text, ".:");
    const char *end = text + digits;
    char number[16];

    if (strcmp(end, ".0") == 0 || strcmp(end, ":server") == 0)
        *ring = LAYOUT_SERVER_SENDS;
    else if (strcmp(end, ".1") == 0 || strcmp(end, ":client") == 0)
        *ring = LAYOUT_CLIENT_SENDS;
    else
        return -EINVAL;
    if (digits >= sizeof(number))
        return -EINVAL;
    memcpy(number, text, digits);
    number[digits] = '\0';
    return names_parse_channel(number, channel);
}

int names_parse_filter(const struct names *names, const char *text, struct channel_filter *filter)
{
    const char *colon = strrchr(text, ':');
    char domain[PROTO_NAME_BYTES];
    uint64_t port;

    *filter = (struct channel_filter){.channel = PROTO_ANY};
    if (!colon)
        return names_parse_channel(text, &filter->channel);
    if (quantity_parse_number(colon + 1, PROTO_PORT_MAX, &port) < 0)
        return -EINVAL;
    if ((size_t)(colon - text) >= sizeof(domain))
        return -ENOENT;
    memcpy(domain, text, (size_t)(colon - text));
    domain[colon - text] = '\0';
    filter->by_port = true;
    filter->port = (uint32_t)port;
    return names_find(names, domain, &filter->server_domain);
}

bool channel_filter_passes(const struct channel_filter *filter, uint32_t channel,
                           uint32_t server_domain, uint32_t port)
{
    if (filter->channel != PROTO_ANY && filter->channel != channel)
        return false;
    return !filter->by_port || (filter->server_domain == server_domain && filter->port == port);
}
