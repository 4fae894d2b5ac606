/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int config_parse_number(const char *text, uint64_t *value)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno || *end ? -EINVAL : 0;
}

int config_parse_size(const char *text, uint64_t *bytes)
{
    static const char suffixes[] = "KMGT";
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    *bytes = strtoull(text, &end, 10);
    if (errno)
        return -EINVAL;
    if (*end == 0)
        return 0;
    const char *suffix = strchr(suffixes, toupper((unsigned char)*end));
    if (!suffix || end[1] != 0)
        return -EINVAL;
    unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
    if (*bytes > UINT64_MAX >> shift)
        return -EINVAL;
    *bytes <<= shift;
    return 0;
}

static bool is_separator(char c)
{
    return c == ',' || isspace((unsigned char)c);
}

static const char *skip_separators(const char *text)
{
    while (is_separator(*text))
        text++;
    return text;
}

/* One number; *text moves behind it. */
static int take_domain(const char **text, uint32_t *domain)
{
    char *end;

    if (!isdigit((unsigned char)**text))
        return -EINVAL;
    errno = 0;
    unsigned long value = strtoul(*text, &end, 10);
    if (errno || value > PROTO_DOMAIN_MAX)
        return -EINVAL;
    *domain = (uint32_t)value;
    *text = end;
    return 0;
}

/* "5" or "5-9"; *text moves behind it. */
static int take_range(const char **text, struct domain_set *set)
{
    uint32_t first, last;

    if (take_domain(text, &first) < 0)
        return -EINVAL;
    last = first;
    if (**text == '-') {
        ++*text;
        if (take_domain(text, &last) < 0 || last < first)
            return -EINVAL;
    }
    if (**text && !is_separator(**text))
        return -EINVAL;
    for (uint32_t domain = first; domain <= last; domain++)
        domain_set_add(set, domain);
    return 0;
}

int config_parse_domains(const char *text, struct domain_set *set, config_name_taker take,
                         void *context)
{
    char name[PROTO_NAME_BYTES];

    for (text = skip_separators(text); *text; text = skip_separators(text)) {
        int r;
        if (isdigit((unsigned char)*text) || !take) {
            r = take_range(&text, set);
        } else {
            size_t length = 0;
            while (text[length] && !is_separator(text[length]))
                length++;
            if (length >= sizeof(name))
                return -EINVAL;
            memcpy(name, text, length);
            name[length] = 0;
            text += length;
            r = take(context, name);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int config_parse_uuid(const char *text, uint8_t uuid[16])
{
    for (unsigned i = 0; i < 16; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
            return -EINVAL;
        int high = hex_digit(text[0]);
        int low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return -EINVAL;
        uuid[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return *text ? -EINVAL : 0;
}

int config_parse_boolean(const char *text, bool *value)
{
    static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false",
                                                                                "off", "0"};

    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(text, yes[i]) != 0 && strcmp(text, no[i]) != 0)
            continue;
        *value = strcmp(text, yes[i]) == 0;
        return 0;
    }
    return -EINVAL;
}

int config_parse_mode(const char *text, uint64_t *mode)
{
    char *end;

    if (text[0] < '0' || text[0] > '7')
        return -EINVAL;
    errno = 0;
    *mode = strtoull(text, &end, 8);
    return errno || *end ? -EINVAL : 0;
}

int config_parse_word(const char *text, char *word)
{
    size_t length = strlen(text);

    if (length == 0 || length >= CONFIG_WORD_BYTES)
        return -EINVAL;
    memcpy(word, text, length + 1);
    return 0;
}

int config_parse_path(const char *text, char *path)
{
    size_t length = strlen(text);

    if (length >= CONFIG_PATH_BYTES || (text[0] != '/' && strcmp(text, "no") != 0))
        return -EINVAL;
    memcpy(path, text, length + 1);
    return 0;
}

int config_parse_loopback(const char *text, char *address)
{
    static const char *const hosts[] = {"127.0.0.1:", "[::1]:"};
    uint64_t port;

    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        size_t length = strlen(hosts[i]);
        if (strncmp(text, hosts[i], length) == 0 &&
            config_parse_number(text + length, &port) == 0 && port >= 1 && port <= 65535)
            return config_parse_word(text, address);
    }
    return -EINVAL;
}
