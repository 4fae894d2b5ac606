/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/ctl/table.h - rows of text in aligned columns.
 *
 *   RING  SENDER    SIZE
 *   0.0   web     64 KiB
 *
 * Cells are added row by row, from left to right. A failed allocation is remembered and reported by
 * table_print.
 */
#ifndef VCHAN_CLIENT_CTL_TABLE_H
#define VCHAN_CLIENT_CTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum table_align { TABLE_LEFT, TABLE_RIGHT };

struct table_column {
    const char *title;
    enum table_align align;
};

struct table {
    const struct table_column *columns; /* the caller's, for as long as the table lives */
    size_t column_count;
    char **cells;
    size_t cell_count;
    size_t cell_capacity;
    bool failed;
};

void table_init(struct table *table, const struct table_column *columns, size_t column_count);
void table_deinit(struct table *table);

/* The next cell. An empty text is shown as "-". */
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Writes titles (bold: with the terminal's bold) and rows. 0, or -ENOMEM when a cell could not be
 * kept. */
int table_print(const struct table *table, FILE *stream, bool bold);

#endif
