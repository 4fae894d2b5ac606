/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/quantity.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define NS_PER_S 1000000000ull

/* More digits than this could overflow 64 bits in parse_fraction. */
#define FRACTION_DIGITS_MAX 6

/*
 * value in units of `unit`, rounded to tenths, without a ".0". What rounds up to `carry` whole
 * units would read better in the next unit: the caller is told (false) and tries that one.
 */
static bool scaled(struct quantity *q, uint64_t value, uint64_t unit, unsigned carry,
                   const char *suffix)
{
    uint64_t whole = value / unit;
    unsigned tenths = (unsigned)(((double)(value % unit) * 10.0) / (double)unit + 0.5);

    if (tenths == 10) {
        whole++;
        tenths = 0;
    }
    if (whole >= carry)
        return false;
    if (tenths == 0)
        snprintf(q->text, sizeof(q->text), "%llu%s", (unsigned long long)whole, suffix);
    else
        snprintf(q->text, sizeof(q->text), "%llu.%u%s", (unsigned long long)whole, tenths, suffix);
    return true;
}

struct quantity quantity_size(uint64_t bytes)
{
    static const char *const suffixes[] = {" KiB", " MiB", " GiB", " TiB", " PiB"};
    struct quantity q = {"0"};
    uint64_t unit = 1024;

    if (bytes == 0)
        return q;
    if (bytes < 1024) {
        snprintf(q.text, sizeof(q.text), "%u B", (unsigned)bytes);
        return q;
    }
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++, unit *= 1024)
        if (scaled(&q, bytes, unit, 1024, suffixes[i]))
            return q;
    scaled(&q, bytes, unit, 1024, " EiB");
    return q;
}

struct quantity quantity_count(uint64_t count)
{
    static const char *const suffixes[] = {"M", "G", "T", "P"};
    struct quantity q;
    uint64_t unit = 1000000;

    if (count < unit) {
        snprintf(q.text, sizeof(q.text), "%u", (unsigned)count);
        return q;
    }
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++, unit *= 1000)
        if (scaled(&q, count, unit, 1000, suffixes[i]))
            return q;
    scaled(&q, count, unit, 1000, "E");
    return q;
}

struct quantity quantity_duration(uint64_t duration_ns)
{
    struct quantity q = {"0"};
    unsigned long long seconds = duration_ns / NS_PER_S;

    if (duration_ns == 0)
        return q;
    if (duration_ns == UINT64_MAX)
        snprintf(q.text, sizeof(q.text), "never");
    else if (scaled(&q, duration_ns, 1, 1000, " ns") ||
             scaled(&q, duration_ns, 1000, 1000, " us") ||
             scaled(&q, duration_ns, 1000000, 1000, " ms") ||
             scaled(&q, duration_ns, NS_PER_S, 60, " s"))
        return q;
    else if (seconds < 3600) /* 59.97 s, which is no "59.9 s", counts as a minute */
        snprintf(q.text, sizeof(q.text), "%llum%02llus", seconds < 60 ? 1 : seconds / 60,
                 seconds < 60 ? 0 : seconds % 60);
    else if (seconds < 86400)
        snprintf(q.text, sizeof(q.text), "%lluh%02llum", seconds / 3600, seconds / 60 % 60);
    else
        snprintf(q.text, sizeof(q.text), "%llud%02lluh", seconds / 86400, seconds / 3600 % 24);
    return q;
}

static struct quantity time_text(uint64_t time_ns, bool utc)
{
    time_t seconds = (time_t)(time_ns / NS_PER_S);
    unsigned milliseconds = (unsigned)(time_ns % NS_PER_S / 1000000);
    struct quantity q = {"-"};
    struct tm tm;
    char day[24];

    if (!(utc ? gmtime_r(&seconds, &tm) : localtime_r(&seconds, &tm)) ||
        strftime(day, sizeof(day), utc ? "%Y-%m-%dT%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &tm) == 0)
        return q;
    snprintf(q.text, sizeof(q.text), "%s.%03u%s", day, milliseconds, utc ? "Z" : "");
    return q;
}

struct quantity quantity_time(uint64_t time_ns)
{
    return time_text(time_ns, false);
}

struct quantity quantity_time_utc(uint64_t time_ns)
{
    return time_text(time_ns, true);
}

/* The unit that a suffix names: 1 for none or "B"; 0: not a suffix. */
static uint64_t unit_of(const char *suffix)
{
    static const char letters[] = "kmgt";

    if (!*suffix || strcasecmp(suffix, "b") == 0)
        return 1;
    const char *letter = strchr(letters, tolower((unsigned char)*suffix));
    if (!letter || (suffix[1] && strcasecmp(suffix + 1, "ib") != 0))
        return 0;
    return 1ull << (10 * (letter - letters + 1));
}

static const char *parse_digits(const char *text, uint64_t *number)
{
    *number = 0;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(*number, 10u, number) ||
            __builtin_add_overflow(*number, (uint64_t)(*text - '0'), number))
            return NULL;
    return text;
}

/* The digits after the point as a count of 10^-digits. */
static const char *parse_fraction(const char *text, uint64_t *fraction, uint64_t *scale)
{
    int digits = 0;

    *fraction = 0;
    *scale = 1;
    for (; isdigit((unsigned char)*text); text++)
        if (digits++ < FRACTION_DIGITS_MAX) {
            *fraction = *fraction * 10 + (uint64_t)(*text - '0');
            *scale *= 10;
        }
    return digits > 0 ? text : NULL;
}

int quantity_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t whole, fraction = 0, scale = 1, unit;
    const char *rest;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    rest = parse_digits(text, &whole);
    if (!rest)
        return -ERANGE;
    if (*rest == '.') {
        rest = parse_fraction(rest + 1, &fraction, &scale);
        if (!rest)
            return -EINVAL;
    }
    if (*rest == ' ')
        rest++;
    unit = unit_of(rest);
    if (unit == 0)
        return -EINVAL;
    if (__builtin_mul_overflow(whole, unit, &whole) ||
        __builtin_add_overflow(whole, fraction * unit / scale, &whole))
        return -ERANGE;
    *bytes = whole;
    return 0;
}

int quantity_parse_number(const char *text, uint64_t max, uint64_t *number)
{
    uint64_t n;
    const char *rest;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    rest = parse_digits(text, &n);
    if (!rest)
        return -ERANGE;
    if (*rest)
        return -EINVAL;
    if (n > max)
        return -ERANGE;
    *number = n;
    return 0;
}

int quantity_parse_seconds(const char *text, unsigned *time_ms)
{
    uint64_t whole, fraction = 0, scale = 1;
    const char *rest;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    rest = parse_digits(text, &whole);
    if (!rest || whole > 86400)
        return -ERANGE;
    if (*rest == '.') {
        rest = parse_fraction(rest + 1, &fraction, &scale);
        if (!rest)
            return -EINVAL;
    }
    if (*rest)
        return -EINVAL;
    uint64_t total_ms = whole * 1000 + fraction * 1000 / scale;
    if (total_ms < 50 || total_ms > 86400u * 1000u)
        return -ERANGE;
    *time_ms = (unsigned)total_ms;
    return 0;
}
