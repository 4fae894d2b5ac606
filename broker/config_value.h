/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/config_value.h - values as the configuration and the command line write them.
 *
 * Each takes the whole text, or returns -EINVAL.
 */
#ifndef VCHAN_BROKER_CONFIG_VALUE_H
#define VCHAN_BROKER_CONFIG_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/zone.h"

#define CONFIG_WORD_BYTES 64u
#define CONFIG_PATH_BYTES 108u /* what a sun_path holds */

int config_parse_number(const char *text, uint64_t *value);
/* 4096, 64K, 256M, 2G, 1T */
int config_parse_size(const char *text, uint64_t *bytes);
/* Octal. */
int config_parse_mode(const char *text, uint64_t *mode);
/* yes, true, on, 1; no, false, off, 0 */
int config_parse_boolean(const char *text, bool *value);
/* At least one character, and short; word has CONFIG_WORD_BYTES. */
int config_parse_word(const char *text, char *word);
/* An absolute path, or "no"; path has CONFIG_PATH_BYTES. */
int config_parse_path(const char *text, char *path);
/* 127.0.0.1:PORT or [::1]:PORT, PORT 1 to 65535; address has CONFIG_WORD_BYTES. */
int config_parse_loopback(const char *text, char *address);
/* Takes a name among numbers of domains, which may be that of a domain: -EINVAL if it cannot be. */
typedef int (*config_name_taker)(void *context, const char *name);

/* "0-255, web, 300": the numbers are added to the set, those before an error too; names go to take
 * (NULL: there may be none). */
int config_parse_domains(const char *text, struct domain_set *set, config_name_taker take,
                         void *context);
int config_parse_uuid(const char *text, uint8_t uuid[16]);

#endif
