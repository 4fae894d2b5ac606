/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config_reader.h"
#include "broker/log.h"

static const struct {
    const char *name;
    bool named; /* "[domain web]" */
} sections[] = {
    [SECTION_BROKER] = {"broker", false},
    [SECTION_LOCAL] = {"local", false},
    [SECTION_REBALANCE] = {"rebalance", false},
    [SECTION_METRICS] = {"metrics", false},
    [SECTION_GUESTS] = {"guests", false},
    [SECTION_DOMAIN] = {"domain", true},
    [SECTION_ZONE] = {"zone", true},
};
#define SECTION_COUNT (sizeof(sections) / sizeof(sections[0]))

#define BROKER(field) offsetof(struct config, field)
#define DOMAIN(field) offsetof(struct config_domain, field)
#define ZONE(field) offsetof(struct config_zone, field)
#define POLICY(name, field, min, max) \
    { \
        SECTION_REBALANCE, name, KIND_NUMBER, BROKER(policy.field), min, max, NULL \
    }
#define POLICY_SIZE(name, field, min, max) \
    { \
        SECTION_REBALANCE, name, KIND_SIZE, BROKER(policy.field), min, max, NULL \
    }
#define HOUR_MS 3600000u

static const struct key keys[] = {
    {SECTION_BROKER, "region-size", KIND_SIZE, BROKER(region_bytes), 1 << 20, 1ull << 46,
     "a power of two from 1M to 64T, such as 256M"},
    {SECTION_BROKER, "channels", KIND_NUMBER, BROKER(channels), 1, 1 << 20, "1 to 1048576"},
    {SECTION_BROKER, "connections", KIND_NUMBER, BROKER(connections), 1, 1 << 20, "1 to 1048576"},
    {SECTION_BROKER, "log-level", KIND_LEVEL, BROKER(log_level), 0, 0,
     "error, warning, notice, info or debug"},
    {SECTION_BROKER, "socket-mode", KIND_MODE, BROKER(socket_mode), 0, 0777,
     "an octal mode from 0000 to 0777"},
    {SECTION_BROKER, "socket-group", KIND_WORD, BROKER(socket_group), 0, 0, "the name of a group"},
    {SECTION_BROKER, "policy", KIND_POLICY, BROKER(policy_name), 0, 0, NULL},
    {SECTION_BROKER, "sandbox", KIND_BOOLEAN, BROKER(sandbox), 0, 0, "yes or no"},
    {SECTION_REBALANCE, "ring-default-max", KIND_BLOCKS, BROKER(ring_max_bytes), 4096, 1ull << 46,
     "bytes, such as 16M, in whole blocks of 4K, at least one"},
    /* The ranges are those of policy_config_check, which has the last word. */
    POLICY("period-ms", period_ms, 10, 60000),
    POLICY("notifications", notifications, 0, UINT32_MAX),
    POLICY("dwell-ms", dwell_ms, 0, HOUR_MS),
    POLICY("grow-dwell-ms", grow_dwell_ms, 0, HOUR_MS),
    POLICY("stall-permille", stall_permille, 1, 1000),
    POLICY("grow-percent", grow_percent, 101, 1600),
    POLICY("pressure-percent", pressure_percent, 101, 1600),
    POLICY("shrink-percent", shrink_percent, 1, 50),
    POLICY("hysteresis-percent", hysteresis_percent, 0, 90),
    POLICY("calm-ms", calm_ms, 100, HOUR_MS),
    POLICY("idle-ms", idle_ms, 100, HOUR_MS),
    POLICY("unread-ms", unread_ms, 100, HOUR_MS),
    POLICY("horizon-ms", horizon_ms, 1, HOUR_MS),
    POLICY_SIZE("cache-bytes", cache_bytes, 4096, 1ull << 48),
    POLICY("alpha-percent", alpha_percent, 1, 10000),
    POLICY("reserve-permille", reserve_permille, 0, 900),
    POLICY("moves-max", moves_max, 1, 4096),
    POLICY_SIZE("move-bytes-max", move_bytes_max, 4096, 1ull << 48),
    POLICY("inactive-ms", inactive_ms, 0, HOUR_MS),
    {SECTION_LOCAL, "enable", KIND_BOOLEAN, BROKER(local_enable), 0, 0, "yes or no"},
    {SECTION_LOCAL, "domains", KIND_DOMAINS, BROKER(local_domains), 0, 0,
     "numbers, ranges and names of domains, such as 0-255, web"},
    {SECTION_METRICS, "socket", KIND_PATH, BROKER(metrics_socket), 0, 0,
     "an absolute path of at most 107 characters, or no"},
    {SECTION_METRICS, "http", KIND_LOOPBACK, BROKER(metrics_http), 0, 0,
     "a loopback address with a port, such as 127.0.0.1:9777 or [::1]:9777"},
    {SECTION_GUESTS, "vectors", KIND_NUMBER, BROKER(guest_vectors), 2, 64, "2 to 64"},
    {SECTION_GUESTS, "first-id", KIND_NUMBER, BROKER(guest_first_id), 1, PROTO_DOMAIN_MAX,
     "1 to 32751"},
    {SECTION_GUESTS, "socket-mode", KIND_MODE, BROKER(guest_socket_mode), 0, 0777,
     "an octal mode from 0000 to 0777"},
    {SECTION_GUESTS, "socket-group", KIND_WORD, BROKER(guest_socket_group), 0, 0,
     "the name of a group"},
    {SECTION_DOMAIN, "id", KIND_NUMBER, DOMAIN(id), 0, PROTO_DOMAIN_MAX, "0 to 32751"},
    {SECTION_DOMAIN, "quota", KIND_BLOCKS, DOMAIN(quota_bytes), 0, 1ull << 46,
     "bytes, such as 64M, in whole blocks of 4K; 0 for no limit"},
    {SECTION_DOMAIN, "uuid", KIND_UUID, DOMAIN(uuid), 0, 0,
     "a UUID, such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
    {SECTION_ZONE, "members", KIND_DOMAINS, ZONE(members), 0, 0,
     "numbers, ranges and names of domains, such as 1-9, web"},
    {SECTION_ZONE, "region-size", KIND_SIZE, ZONE(region_bytes), 1 << 20, 1ull << 46,
     "a power of two from 1M to 64T, such as 256M"},
    {SECTION_ZONE, "channels", KIND_NUMBER, ZONE(channels), 1, 1 << 20, "1 to 1048576"},
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))
static_assert(KEY_COUNT <= CONFIG_KEYS_MAX, "reader.given has a bit for each key");

/* Only the first error is kept: what comes after it may be its consequence. */
int config_fail(struct reader *reader, unsigned line, const char *format, ...)
{
    va_list arguments;
    int n;

    if (reader->failure)
        return reader->failure;
    reader->failure = -EINVAL;
    n = snprintf(reader->error, CONFIG_ERROR_BYTES, "%s:%u: ", reader->name, line);
    if (n > 0 && (size_t)n < CONFIG_ERROR_BYTES) {
        va_start(arguments, format);
        vsnprintf(reader->error + n, CONFIG_ERROR_BYTES - (size_t)n, format, arguments);
        va_end(arguments);
    }
    return -EINVAL;
}

static int parse_number_in_range(const struct key *key, const char *text, uint64_t *value)
{
    uint64_t parsed;
    int r = key->kind == KIND_SIZE || key->kind == KIND_BLOCKS ? config_parse_size(text, &parsed)
            : key->kind == KIND_MODE                           ? config_parse_mode(text, &parsed)
                                                               : config_parse_number(text, &parsed);

    if (r < 0 || parsed < key->min || parsed > key->max ||
        (key->kind == KIND_BLOCKS && !zone_is_whole(parsed)))
        return -EINVAL;
    *value = parsed;
    return 0;
}

static int parse_level(const char *text, uint64_t *level)
{
    int r = log_level_parse(text);

    if (r < 0)
        return r;
    *level = (uint64_t)r;
    return 0;
}

/* Domains can be named where numbers can, and names go into paths. */
static bool is_name(const char *name)
{
    size_t length = strlen(name);

    if (length == 0 || length >= PROTO_NAME_BYTES || isdigit((unsigned char)name[0]) ||
        name[0] == '.')
        return false;
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
            return false;
    return true;
}

/* A config_name_taker of the reader. */
static int mention_domain(void *context, const char *name)
{
    struct reader *reader = context;

    if (!is_name(name))
        return -EINVAL;
    void *grown =
        realloc(reader->mentions, (reader->mention_count + 1) * sizeof(*reader->mentions));
    if (!grown)
        return reader->failure = -ENOMEM;
    reader->mentions = grown;
    struct mention *mention = &reader->mentions[reader->mention_count++];
    *mention = (struct mention){.key = reader->key, .line = reader->line};
    if (reader->section == SECTION_ZONE)
        mention->zone = reader->config->zone_count - 1;
    snprintf(mention->name, sizeof(mention->name), "%s", name);
    return 0;
}

static int parse_value(struct reader *reader, const char *text, void *field)
{
    const struct key *key = reader->key;

    switch (key->kind) {
    case KIND_NUMBER:
    case KIND_SIZE:
    case KIND_BLOCKS:
    case KIND_MODE:
        return parse_number_in_range(key, text, field);
    case KIND_BOOLEAN:
        return config_parse_boolean(text, field);
    case KIND_LEVEL:
        return parse_level(text, field);
    case KIND_WORD:
        return config_parse_word(text, field);
    case KIND_PATH:
        return config_parse_path(text, field);
    case KIND_LOOPBACK:
        return config_parse_loopback(text, field);
    case KIND_POLICY:
        return policy_find(text) ? config_parse_word(text, field) : -EINVAL;
    case KIND_DOMAINS:
        memset(field, 0, sizeof(struct domain_set));
        return config_parse_domains(text, field, mention_domain, reader);
    case KIND_UUID:
        return config_parse_uuid(text, field);
    }
    return -EINVAL;
}

/* What the keys of the current section fill. */
static void *section_object(const struct reader *reader)
{
    struct config *config = reader->config;

    switch (reader->section) {
    case SECTION_DOMAIN:
        return &config->domains[config->domain_count - 1];
    case SECTION_ZONE:
        return &config->zones[config->zone_count - 1];
    default:
        return config;
    }
}

/* "a, b, c": the keys of a section, for messages. */
static void list_keys(enum section section, char *text, size_t bytes)
{
    size_t used = 0;

    text[0] = 0;
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (keys[i].section != section || used >= bytes)
            continue;
        int n = snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", keys[i].name);
        used += n > 0 ? (size_t)n : 0;
    }
}

static int fail_value(struct reader *reader, const char *value)
{
    const struct key *key = reader->key;
    const char *allowed = key->kind == KIND_POLICY ? policy_names() : key->allowed;

    if (allowed)
        return config_fail(reader, reader->line, "%s: \"%.64s\" is not allowed; it takes %s",
                           key->name, value, allowed);
    return config_fail(reader, reader->line,
                       "%s: \"%.64s\" is not allowed; it takes a number from %" PRIu64
                       " to %" PRIu64,
                       key->name, value, key->min, key->max);
}

/* inih found "name = value". 1 to go on, 0 for an error, as it wants. */
static int take_value(void *context, const char *section_untracked, const char *name,
                      const char *value)
{
    struct reader *reader = context;
    char allowed[512];

    (void)section_untracked; /* cut to 49 characters; take_section has seen all of it */
    if (reader->failure)
        return 0;
    if (reader->section == SECTION_NONE)
        return config_fail(reader, reader->line, "%.64s: it stands before the first section",
                           name) == 0;
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (keys[i].section != reader->section || strcmp(keys[i].name, name) != 0)
            continue;
        if (reader->given & (uint64_t)1 << i)
            return config_fail(reader, reader->line, "%s: it is given twice in this section",
                               name) == 0;
        reader->given |= (uint64_t)1 << i;
        reader->lines[i] = reader->line;
        reader->key = &keys[i];
        if (parse_value(reader, value, (uint8_t *)section_object(reader) + keys[i].offset) < 0)
            return fail_value(reader, value) == 0;
        return 1;
    }
    list_keys(reader->section, allowed, sizeof(allowed));
    return config_fail(reader, reader->line, "%.64s: there is no such key in [%s]; it takes %s",
                       name, sections[reader->section].name, allowed) == 0;
}

static int add_domain(struct reader *reader, const char *name)
{
    struct config *config = reader->config;

    for (size_t i = 0; i < config->domain_count; i++)
        if (strcmp(config->domains[i].name, name) == 0)
            return config_fail(reader, reader->line, "[domain %s]: line %u has it already", name,
                               config->domains[i].line);
    void *grown = realloc(config->domains, (config->domain_count + 1) * sizeof(*config->domains));
    if (!grown)
        return reader->failure = -ENOMEM;
    config->domains = grown;
    struct config_domain *domain = &config->domains[config->domain_count++];
    *domain = (struct config_domain){.id = CONFIG_UNSET, .line = reader->line};
    snprintf(domain->name, sizeof(domain->name), "%s", name);
    return 0;
}

static int add_zone(struct reader *reader, const char *name)
{
    struct config *config = reader->config;

    for (size_t i = 0; i < config->zone_count; i++)
        if (strcmp(config->zones[i].name, name) == 0)
            return config_fail(reader, reader->line, "[zone %s]: line %u has it already", name,
                               config->zones[i].line);
    void *grown = realloc(config->zones, (config->zone_count + 1) * sizeof(*config->zones));
    if (!grown)
        return reader->failure = -ENOMEM;
    config->zones = grown;
    struct config_zone *zone = &config->zones[config->zone_count++];
    *zone = (struct config_zone){
        .region_bytes = CONFIG_UNSET, .channels = CONFIG_UNSET, .line = reader->line};
    snprintf(zone->name, sizeof(zone->name), "%s", name);
    return 0;
}

/* What stands between the brackets. */
static int take_section(struct reader *reader, char *text)
{
    char *name = strchr(text, ' ');

    if (name) {
        *name++ = 0;
        name += strspn(name, " \t");
    }
    reader->given = 0;
    for (size_t i = 1; i < SECTION_COUNT; i++) {
        if (strcmp(sections[i].name, text) != 0)
            continue;
        reader->section = (enum section)i;
        if (sections[i].named && (!name || !is_name(name)))
            return config_fail(
                reader, reader->line,
                "[%s NAME]: a name is needed, of letters, digits, '.', '_' and '-', that "
                "begins with none of '.' and a digit",
                text);
        if (!sections[i].named && (name || reader->seen[i]))
            return config_fail(reader, reader->line, "[%s]: %s", text,
                               name ? "it takes no name" : "it is there twice");
        reader->seen[i] = true;
        if (i == SECTION_DOMAIN)
            return add_domain(reader, name);
        return i == SECTION_ZONE ? add_zone(reader, name) : 0;
    }
    return config_fail(
        reader, reader->line,
        "[%.64s]: there is no such section; there are broker, local, rebalance, metrics, "
        "guests, domain NAME and zone NAME",
        text);
}

/* Reads a line for inih, as fgets would. Its own notion of sections and continued lines is not
 * used. */
static char *take_line(char *line, int bytes, void *context)
{
    struct reader *reader = context;

    if (reader->failure || !fgets(line, bytes, reader->stream))
        return NULL;
    reader->line++;
    size_t length = strlen(line);
    if (length == 0 || (line[length - 1] != '\n' && !feof(reader->stream))) {
        config_fail(reader, reader->line,
                    length == 0 || (int)length < bytes - 1
                        ? "there is a zero byte in it"
                        : "the line is longer than 190 characters");
        return NULL;
    }
    size_t indent = strspn(line, " \t");
    memmove(line, line + indent, length - indent + 1); /* or inih continues the value before */
    char *end = line[0] == '[' ? strchr(line, ']') : NULL;
    if (!end)
        return line;
    char text[256];
    snprintf(text, sizeof(text), "%.*s", (int)(end - line - 1), line + 1);
    take_section(reader, text);
    return line;
}

unsigned config_line_of(const struct reader *reader, enum section section, const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (keys[i].section == section && strcmp(keys[i].name, name) == 0 && reader->lines[i] > 0)
            return reader->lines[i];
    return reader->line;
}

int config_read_stream(struct config *config, FILE *stream, const char *name,
                       char error[CONFIG_ERROR_BYTES])
{
    struct reader reader = {.config = config, .stream = stream, .name = name, .error = error};

    int r = ini_parse_stream(take_line, &reader, take_value, &reader);
    if (r < 0 && !reader.failure)
        reader.failure = -ENOMEM;
    if (r > 0 && !reader.failure)
        config_fail(&reader, (unsigned)r,
                    "this is no [section], no \"key = value\" and no # comment");
    if (ferror(stream) && !reader.failure)
        config_fail(&reader, reader.line, "cannot be read: %s", strerror(errno));
    if (!reader.failure)
        config_check_all(&reader);
    free(reader.mentions);
    if (reader.failure == -ENOMEM)
        snprintf(error, CONFIG_ERROR_BYTES, "%s: out of memory", name);
    return reader.failure;
}

int config_read(struct config *config, const char *path, char error[CONFIG_ERROR_BYTES])
{
    FILE *stream = fopen(path, "re");

    if (!stream) {
        int r = -errno;
        snprintf(error, CONFIG_ERROR_BYTES, "%s: %s", path, strerror(-r));
        return r;
    }
    int r = config_read_stream(config, stream, path, error);
    fclose(stream);
    return r;
}

void config_init(struct config *config)
{
    *config = (struct config){
        .region_bytes = 256 << 20,
        .channels = CONFIG_UNSET,
        .connections = 8192,
        .log_level = LOG_INFO,
        .ring_max_bytes = 16 << 20,
        .socket_mode = 0660,
        .policy_name = "default",
        .sandbox = true,
        .local_enable = true,
        .guest_vectors = 16,
        .guest_first_id = 1000,
        .guest_socket_mode = 0660,
    };
    config_parse_domains("0-255", &config->local_domains, NULL, NULL);
    policy_config_init(&config->policy);
}

void config_deinit(struct config *config)
{
    free(config->domains);
    free(config->zones);
    config->domains = NULL;
    config->zones = NULL;
    config->domain_count = config->zone_count = 0;
}

uint32_t config_channels_for(uint64_t channels, uint64_t region_bytes)
{
    if (channels != CONFIG_UNSET)
        return (uint32_t)channels;
    /* Pages for a quarter of the region, as many as most will ever want. */
    uint64_t fit = region_bytes / 4 / LAYOUT_CHANNEL_PAGE_BYTES;
    return fit < 4096 ? (uint32_t)fit : 4096;
}
