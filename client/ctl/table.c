/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl/table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/text.h"

void table_init(struct table *table, const struct table_column *columns, size_t column_count)
{
    *table = (struct table){.columns = columns, .column_count = column_count};
}

void table_deinit(struct table *table)
{
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){0};
}

static bool table_reserve(struct table *table)
{
    if (table->cell_count < table->cell_capacity)
        return true;
    size_t capacity = table->cell_capacity ? 2 * table->cell_capacity : 256;
    char **cells = reallocarray(table->cells, capacity, sizeof(*cells));
    if (!cells)
        return false;
    table->cells = cells;
    table->cell_capacity = capacity;
    return true;
}

void table_add(struct table *table, const char *format, ...)
{
    char *cell;
    va_list arguments;
    int n = -1;

    if (table->failed || !table_reserve(table)) {
        table->failed = true;
        return;
    }
    va_start(arguments, format);
    n = vasprintf(&cell, format, arguments);
    va_end(arguments);
    if (n < 0) {
        table->failed = true;
        return;
    }
    if (n == 0) {
        free(cell);
        cell = strdup("-");
        if (!cell) {
            table->failed = true;
            return;
        }
    }
    table->cells[table->cell_count++] = cell;
}

static size_t column_width(const struct table *table, size_t column)
{
    size_t width = text_columns(table->columns[column].title);

    for (size_t i = column; i < table->cell_count; i += table->column_count) {
        size_t columns = text_columns(table->cells[i]);
        if (columns > width)
            width = columns;
    }
    return width;
}

/* The last column is not padded: no line ends with spaces. */
static void print_cell(const struct table *table, size_t column, const char *text, size_t width,
                       FILE *stream)
{
    int padding = (int)(width - text_columns(text));

    if (column > 0)
        fputs("  ", stream);
    if (table->columns[column].align == TABLE_RIGHT)
        fprintf(stream, "%*s%s", padding, "", text);
    else if (column + 1 < table->column_count)
        fprintf(stream, "%s%*s", text, padding, "");
    else
        fputs(text, stream);
}

int table_print(const struct table *table, FILE *stream, bool bold)
{
    size_t *widths = calloc(table->column_count, sizeof(*widths));

    if (table->failed || !widths) {
        free(widths);
        return -ENOMEM;
    }
    for (size_t i = 0; i < table->column_count; i++)
        widths[i] = column_width(table, i);
    fputs(bold ? "\033[1m" : "", stream);
    for (size_t i = 0; i < table->column_count; i++)
        print_cell(table, i, table->columns[i].title, widths[i], stream);
    fputs(bold ? "\033[0m\n" : "\n", stream);
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t column = i % table->column_count;
        print_cell(table, column, table->cells[i], widths[column], stream);
        if (column + 1 == table->column_count)
            fputc('\n', stream);
    }
    free(widths);
    return 0;
}
