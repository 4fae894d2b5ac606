/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/config_reader.h - a configuration file while it is read. Internal to broker/config*.c:
 * config.c has the table of keys and reads lines, config_check.c knows what no key alone can tell.
 */
#ifndef VCHAN_BROKER_CONFIG_READER_H
#define VCHAN_BROKER_CONFIG_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "broker/config.h"

/* Keys that there may be: which a section had is kept in a word of bits. */
#define CONFIG_KEYS_MAX 64
#define CONFIG_SECTIONS_MAX 16

enum section {
    SECTION_NONE,
    SECTION_BROKER,
    SECTION_LOCAL,
    SECTION_REBALANCE,
    SECTION_METRICS,
    SECTION_GUESTS,
    SECTION_DOMAIN,
    SECTION_ZONE
};

enum kind {
    KIND_NUMBER,
    KIND_SIZE,
    KIND_BLOCKS, /* a size in whole blocks of the region */
    KIND_BOOLEAN,
    KIND_MODE,
    KIND_LEVEL,
    KIND_WORD,
    KIND_PATH,
    KIND_LOOPBACK,
    KIND_POLICY,
    KIND_DOMAINS,
    KIND_UUID
};

/* offset: of a field of struct config, config_domain or config_zone; its type is the kind's. */
struct key {
    enum section section;
    const char *name;
    enum kind kind;
    size_t offset;
    uint64_t min, max;
    const char *allowed; /* for messages; NULL: a number from min to max, a policy's name */
};

/* A domain that was named where numbers can be: whose section may come later. */
struct mention {
    const struct key *key;
    size_t zone; /* of a key of [zone NAME]: its index */
    unsigned line;
    char name[PROTO_NAME_BYTES];
};

/* A file on its way through inih, which hands over lines without their numbers: we read the lines,
 * so we count. */
struct reader {
    struct config *config;
    FILE *stream;
    const char *name;
    char *error;
    unsigned line;
    enum section section;
    uint64_t given; /* keys of the section that we have seen: bits by index in keys[] */
    unsigned lines[CONFIG_KEYS_MAX]; /* where each was given last, 0: nowhere */
    bool seen[CONFIG_SECTIONS_MAX];
    const struct key *key; /* that is being read */
    struct mention *mentions;
    size_t mention_count;
    int failure; /* the first: -EINVAL, -ENOMEM */
};

/* Says what is wrong, if nothing was before. Returns -EINVAL, or the failure there is. */
int config_fail(struct reader *reader, unsigned line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Of a key; that of the end of the file if it was not given. */
unsigned config_line_of(const struct reader *reader, enum section section, const char *name);

/* After the last line: what no key alone can tell. */
int config_check_all(struct reader *reader);

#endif
