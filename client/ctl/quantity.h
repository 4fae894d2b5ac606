/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/quantity.h - sizes, durations and counts as people read and type them.
 *
 * Pure functions. What is formatted comes back by value, so that it can stand in an argument list:
 * printf("%s", quantity_size(n).text).
 */
#ifndef VCHAN_CLIENT_CTL_QUANTITY_H
#define VCHAN_CLIENT_CTL_QUANTITY_H

#include <stdint.h>

struct quantity {
    char text[32];
};

/* "0", "512 B", "4 KiB", "1.5 MiB": at most one decimal, powers of 1024. */
struct quantity quantity_size(uint64_t bytes);

/* "0", "850 ns", "12.3 us", "1.5 s", "4m05s", "3h12m", "5d03h"; "never" for UINT64_MAX. */
struct quantity quantity_duration(uint64_t duration_ns);

/* Plain digits up to 999999, then "1.2M", "3.4G", ... in powers of 1000. */
struct quantity quantity_count(uint64_t count);

/* Seconds and milliseconds in local time: "2026-03-01 12:00:00.123". time_ns: CLOCK_REALTIME. */
struct quantity quantity_time(uint64_t time_ns);

/* The same in UTC as ISO 8601 has it: "2026-03-01T12:00:00.123Z". */
struct quantity quantity_time_utc(uint64_t time_ns);

/*
 * "4096", "64K", "64KiB", "1.5 MiB", "2G", "1T" to bytes; the suffix in either case, powers of
 * 1024. A fraction of a byte is cut off. -EINVAL: not a size; -ERANGE: more than 2^64 - 1.
 */
int quantity_parse_size(const char *text, uint64_t *bytes);

/* Decimal digits only, at most max. -EINVAL, -ERANGE. */
int quantity_parse_number(const char *text, uint64_t max, uint64_t *number);

/* "2", "0.5": seconds, from 0.05 to 86400, to milliseconds. -EINVAL, -ERANGE. */
int quantity_parse_seconds(const char *text, unsigned *time_ms);

#endif
