/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/metrics_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 65536u

/* Of what is written at once: a name, or the labels. */
#define PIECE_BYTES_MAX 1024u

void metrics_text_init(struct metrics_text *text)
{
    *text = (struct metrics_text){0};
}

void metrics_text_deinit(struct metrics_text *text)
{
    free(text->text);
    *text = (struct metrics_text){0};
}

/* Room for one more piece. */
static bool reserve(struct metrics_text *text)
{
    const size_t capacity = text->capacity ? 2 * text->capacity : CAPACITY_FIRST;

    if (text->failed || text->capacity - text->bytes >= PIECE_BYTES_MAX)
        return !text->failed;
    char *grown = realloc(text->text, capacity);
    text->failed = grown == NULL;
    if (!grown)
        return false;
    text->text = grown;
    text->capacity = capacity;
    return true;
}

__attribute__((format(printf, 2, 3))) static void put(struct metrics_text *text, const char *format,
                                                      ...)
{
    va_list arguments;

    if (!reserve(text))
        return;
    va_start(arguments, format);
    int n = vsnprintf(text->text + text->bytes, PIECE_BYTES_MAX, format, arguments);
    va_end(arguments);
    text->failed = n < 0 || (unsigned)n >= PIECE_BYTES_MAX;
    text->bytes += text->failed ? 0 : (size_t)n;
}

/* Bytes of the UTF-8 character at text, 0 if it is none. */
static size_t character_bytes(const char *text)
{
    const unsigned char first = (unsigned char)text[0];
    const unsigned char second = (unsigned char)(first ? text[1] : 0);
    const size_t bytes = first < 0x80   ? 1
                         : first < 0xc2 ? 0
                         : first < 0xe0 ? 2
                         : first < 0xf0 ? 3
                         : first < 0xf5 ? 4
                                        : 0;

    for (size_t i = 1; i < bytes; i++)
        if (((unsigned char)text[i] & 0xc0u) != 0x80u)
            return 0;
    /* Too long for what they say, surrogates, beyond the last character. */
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
        return 0;
    return bytes;
}

/* With backslash, quotation mark and line feed escaped. Returns bytes written, at most max; 0 for
 * a text that does not fit, too. */
static size_t escape(const char *value, char *to, size_t max)
{
    size_t used = 0;

    while (*value) {
        const size_t bytes = character_bytes(value);
        if (used + 4 > max)
            return 0;
        if (*value == '\\' || *value == '"' || *value == '\n') {
            to[used++] = '\\';
            to[used++] = *value == '\n' ? 'n' : *value;
        } else if (bytes == 0) {
            to[used++] = '?';
        } else {
            memcpy(to + used, value, bytes);
            used += bytes;
        }
        value += bytes ? bytes : 1;
    }
    return used;
}

void metrics_label(struct metrics_labels *labels, const char *name, const char *value)
{
    char escaped[256];
    const size_t bytes = escape(value, escaped, sizeof(escaped));
    const size_t left = sizeof(labels->text) - labels->bytes;
    int n = snprintf(labels->text + labels->bytes, left, "%s%s=\"%.*s\"", labels->bytes ? "," : "",
                     name, (int)bytes, escaped);

    if (n > 0 && (size_t)n < left)
        labels->bytes += (size_t)n;
    else
        labels->text[labels->bytes] = '\0';
}

void metrics_label_number(struct metrics_labels *labels, const char *name, uint64_t value)
{
    char number[24];

    snprintf(number, sizeof(number), "%" PRIu64, value);
    metrics_label(labels, name, number);
}

void metrics_begin(struct metrics_text *text, const struct metrics_family *family)
{
    static const char *const types[] = {
        [METRICS_GAUGE] = "gauge", [METRICS_COUNTER] = "counter", [METRICS_INFO] = "info"};

    text->family = family;
    put(text, "# TYPE %s %s\n", family->name, types[family->type]);
    if (family->unit)
        put(text, "# UNIT %s %s\n", family->name, family->unit);
    put(text, "# HELP %s %s\n", family->name, family->help);
}

static void put_name(struct metrics_text *text, const struct metrics_labels *labels)
{
    static const char *const suffixes[] = {
        [METRICS_GAUGE] = "", [METRICS_COUNTER] = "_total", [METRICS_INFO] = "_info"};

    put(text, "%s%s", text->family->name, suffixes[text->family->type]);
    if (labels && labels->bytes)
        put(text, "{%s}", labels->text);
}

void metrics_number(struct metrics_text *text, const struct metrics_labels *labels, uint64_t value)
{
    put_name(text, labels);
    put(text, " %" PRIu64 "\n", value);
}

void metrics_seconds(struct metrics_text *text, const struct metrics_labels *labels,
                     uint64_t value_ns)
{
    put_name(text, labels);
    put(text, " %" PRIu64 ".%09" PRIu64 "\n", value_ns / 1000000000u, value_ns % 1000000000u);
}

void metrics_ratio(struct metrics_text *text, const struct metrics_labels *labels, double value)
{
    put_name(text, labels);
    put(text, " %.4f\n", value);
}

int metrics_end(struct metrics_text *text)
{
    put(text, "# EOF\n");
    return text->failed ? -ENOMEM : 0;
}
