/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/report.h"

#include <json-c/json.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/children.h"

#define DEPTH_MAX 8

struct report {
    bool json;
    struct json_object *objects[DEPTH_MAX]; /* that are open, outermost first */
    int depth;                              /* of the innermost */
    struct json_object *rows;
    const struct report_column *columns;
    size_t columns_count;
};

struct report *report_new(bool json)
{
    struct report *report = calloc(1, sizeof(*report));

    if (!report)
        children_fail("out of memory");
    report->json = json;
    report->objects[0] = json_object_new_object();
    return report;
}

void report_free(struct report *report)
{
    if (report->json)
        printf("%s\n", json_object_to_json_string_ext(
                           report->objects[0], JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED));
    json_object_put(report->objects[0]);
    free(report);
}

static struct json_object *innermost(struct report *report)
{
    return report->objects[report->depth];
}

void report_open(struct report *report, const char *key)
{
    struct json_object *object = json_object_new_object();

    if (report->depth + 1 == DEPTH_MAX)
        children_fail("report: too deep at %s", key);
    json_object_object_add(innermost(report), key, object);
    report->objects[++report->depth] = object;
    report_say(report, "%s%s", report->depth > 1 ? "" : "== ", key);
}

void report_close(struct report *report)
{
    report->depth--;
    if (report->depth == 0)
        report_say(report, "%s", "");
}

void report_text(struct report *report, const char *key, const char *text)
{
    json_object_object_add(innermost(report), key, json_object_new_string(text));
    report_say(report, "  %-40s %s", key, text);
}

/* Numbers as they are meant to be read: 0.123456789012 helps nobody. */
static struct json_object *number_new(double value, int digits)
{
    char text[64];

    if (!isfinite(value))
        return NULL;
    if (digits == 0)
        return json_object_new_int64((int64_t)llround(value));
    snprintf(text, sizeof(text), "%.*f", digits, value);
    return json_object_new_double_s(value, text);
}

void report_number(struct report *report, const char *key, double value, int digits,
                   const char *unit)
{
    json_object_object_add(innermost(report), key, number_new(value, digits));
    if (isfinite(value))
        report_say(report, "  %-40s %.*f %s", key, digits, value, unit);
    else
        report_say(report, "  %-40s -", key);
}

void report_flag(struct report *report, const char *key, bool value)
{
    json_object_object_add(innermost(report), key, json_object_new_boolean(value));
    report_say(report, "  %-40s %s", key, value ? "yes" : "no");
}

void report_say(struct report *report, const char *format, ...)
{
    va_list arguments;

    if (report->json)
        return;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
}

void report_table(struct report *report, const char *key, const struct report_column *columns,
                  size_t columns_count)
{
    report->rows = json_object_new_array();
    report->columns = columns;
    report->columns_count = columns_count;
    json_object_object_add(innermost(report), key, report->rows);
    if (report->json)
        return;
    printf("%s\n", key);
    for (size_t i = 0; i < columns_count; i++)
        printf(" %*s", columns[i].width, columns[i].heading);
    printf("\n");
}

static void print_cell(const struct report_column *column, const struct report_cell *cell)
{
    if (column->digits == REPORT_TEXT)
        printf(" %*s", column->width, cell->text);
    else if (isfinite(cell->number))
        printf(" %*.*f", column->width, column->digits, cell->number);
    else
        printf(" %*s", column->width, "-");
}

void report_row(struct report *report, const struct report_cell *cells)
{
    struct json_object *row = json_object_new_object();

    for (size_t i = 0; i < report->columns_count; i++) {
        const struct report_column *column = &report->columns[i];
        json_object_object_add(row, column->key,
                               column->digits == REPORT_TEXT
                                   ? json_object_new_string(cells[i].text)
                                   : number_new(cells[i].number, column->digits));
        if (!report->json)
            print_cell(column, &cells[i]);
    }
    json_object_array_add(report->rows, row);
    if (!report->json) {
        printf("\n");
        fflush(stdout);
    }
}

void report_table_end(struct report *report)
{
    report->rows = NULL;
    report_say(report, "%s", "");
}
