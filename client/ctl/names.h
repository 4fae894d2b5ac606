/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/names.h - the broker's domains, to show and take their names in place of numbers; and
 * how channels, rings and ports are named on the command line.
 */
#ifndef VCHAN_CLIENT_CTL_NAMES_H
#define VCHAN_CLIENT_CTL_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "client/ctl/broker_link.h"
#include "client/ctl/json.h"

/* Sorted by number; each name is clean. */
struct names {
    struct broker_items domains; /* proto_domain_info */
};

/* Asks the broker. 0 or -errno as broker_link_list. */
int names_load(struct names *names, struct broker_link *link);
void names_deinit(struct names *names);

struct name_text {
    char text[PROTO_NAME_BYTES];
};

/* The domain's name, or its number when it has none. */
struct name_text names_text(const struct names *names, uint32_t domain);

struct uuid_text {
    char text[40];
};

/* As people write it; "" for one that is zero: there is none. */
struct uuid_text names_uuid(const uint8_t uuid[16]);

/* The domain that text names: a number up to PROTO_DOMAIN_MAX (known or not) or a known name.
 * -ENOENT. */
int names_find(const struct names *names, const char *text, uint32_t *domain);

/* Sets key to the number and key_name to the name (null: none). */
void names_set_json(const struct names *names, struct json *object, const char *key,
                    uint32_t domain);

/* "3": a channel number. -EINVAL. */
int names_parse_channel(const char *text, uint32_t *channel);

/* "3.0", "3.1", "3:server", "3:client": a channel number and which end sends. -EINVAL. */
int names_parse_ring(const char *text, uint32_t *channel, uint32_t *ring);

/* What a command is to show: everything, one channel, or those of a server's port. */
struct channel_filter {
    uint32_t channel; /* PROTO_ANY: all */
    bool by_port;
    uint32_t server_domain; /* with by_port */
    uint32_t port;
};

/* "3" or "web:5000". -EINVAL: neither; -ENOENT: no such domain. */
int names_parse_filter(const struct names *names, const char *text, struct channel_filter *filter);

/* Does the channel of this server and port pass? */
bool channel_filter_passes(const struct channel_filter *filter, uint32_t channel,
                           uint32_t server_domain, uint32_t port);

#endif
