/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/report.h - what a benchmark found out, said once: as text while it comes, or as one JSON
 * object at the end.
 *
 * Everything has a key, which is its name in the JSON and, unless a heading says otherwise, in the
 * text. Numbers that do not exist (NAN) are null, or "-".
 */
#ifndef VCHAN_BENCH_REPORT_H
#define VCHAN_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct report;

struct report *report_new(bool json);

/* Prints the JSON, if that is what was asked for, and frees. */
void report_free(struct report *report);

/* A named object in the one that is open. */
void report_open(struct report *report, const char *key);
void report_close(struct report *report);

void report_text(struct report *report, const char *key, const char *text);
/* digits: after the point. unit: "" or for the text only; the key names it too. */
void report_number(struct report *report, const char *key, double value, int digits,
                   const char *unit);
void report_flag(struct report *report, const char *key, bool value);

/* A line for readers of the text only. */
void report_say(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define REPORT_TEXT (-1)

struct report_column {
    const char *key;
    const char *heading;
    int width;
    int digits; /* or REPORT_TEXT */
};

struct report_cell {
    double number;
    const char *text;
};

/* An array of rows named key. columns live until the table's end; columns_count at most 32. */
void report_table(struct report *report, const char *key, const struct report_column *columns,
                  size_t columns_count);
void report_row(struct report *report, const struct report_cell *cells);
void report_table_end(struct report *report);

#endif
