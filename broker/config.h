/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/config.h - what vchand.conf says.
 *
 * An INI file; every key has a default, and no file is needed. What is unknown, out of range or
 * said twice is an error that names file, line and key and says what is allowed: a misspelt quota
 * must not be found out by the domain it should have held back. The table of keys is in config.c;
 * docs: vchand.conf(5).
 */
#ifndef VCHAN_BROKER_CONFIG_H
#define VCHAN_BROKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "broker/config_value.h"
#include "broker/policy.h"
#include "broker/zone.h"
#include "proto/proto.h"

#define CONFIG_PATH "/etc/vchan/vchand.conf"
#define CONFIG_ERROR_BYTES 512u
#define CONFIG_UNSET UINT64_MAX

struct config_domain {
    char name[PROTO_NAME_BYTES];
    uint64_t id; /* CONFIG_UNSET until given */
    uint64_t quota_bytes;
    uint8_t uuid[16];
    unsigned line; /* of its section */
};

struct config_zone {
    char name[PROTO_NAME_BYTES];
    struct domain_set members;
    uint64_t region_bytes; /* CONFIG_UNSET: that of [broker] */
    uint64_t channels;     /* likewise */
    unsigned line;
};

struct config {
    /* [broker] */
    uint64_t region_bytes;
    uint64_t channels;    /* CONFIG_UNSET: 4096, or fewer in a small region */
    uint64_t connections; /* most at once */
    uint64_t log_level;   /* LOG_* */
    uint64_t socket_mode;
    char socket_group[CONFIG_WORD_BYTES]; /* "": none */
    unsigned socket_group_line;
    char policy_name[CONFIG_WORD_BYTES];
    bool sandbox;
    /* [local] */
    bool local_enable;
    struct domain_set local_domains;
    /* [rebalance] */
    uint64_t ring_max_bytes; /* of a ring whose ends wish for no maximum */
    struct policy_config policy;
    /* [metrics] */
    char metrics_socket[CONFIG_PATH_BYTES]; /* "": beside the broker's; "no": none */
    char metrics_http[CONFIG_WORD_BYTES];   /* 127.0.0.1:PORT or [::1]:PORT; "": none */
    /* [guests] */
    uint64_t guest_vectors;  /* of each ivshmem device, as the domain's XML has it */
    uint64_t guest_first_id; /* numbers for domains that have no section, from here on */
    uint64_t guest_socket_mode;
    char guest_socket_group[CONFIG_WORD_BYTES]; /* "": none */
    unsigned guest_socket_group_line;
    /* [domain NAME], [zone NAME] */
    struct config_domain *domains;
    size_t domain_count;
    struct config_zone *zones; /* none: one that everybody is in */
    size_t zone_count;
};

/* The defaults. */
void config_init(struct config *config);
void config_deinit(struct config *config);

/*
 * Reads a file over the defaults. 0; -EINVAL with the sentence in error; -ENOMEM; what fopen gave
 * (with a sentence). name: how messages call the stream.
 */
int config_read(struct config *config, const char *path, char error[CONFIG_ERROR_BYTES]);
int config_read_stream(struct config *config, FILE *stream, const char *name,
                       char error[CONFIG_ERROR_BYTES]);

/*
 * What only the host can tell: is there the group? -ENOENT with the sentence. Not for a broker in
 * its sandbox: name services open files and sockets.
 */
int config_check_host(const struct config *config, const char *path,
                      char error[CONFIG_ERROR_BYTES]);

/* Channel pages of a region: as configured, or what suits its size. */
uint32_t config_channels_for(uint64_t channels, uint64_t region_bytes);

#endif
