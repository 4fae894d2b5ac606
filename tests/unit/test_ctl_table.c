/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The columns of vchanctl, and the text that may stand in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/table.h"
#include "client/ctl/text.h"

static const struct table_column columns[] = {
    {"NAME", TABLE_LEFT}, {"SIZE", TABLE_RIGHT}, {"WHY", TABLE_LEFT}};

static void assert_prints(const struct table *table, bool bold, const char *expected)
{
    char *printed = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&printed, &bytes);

    assert_non_null(stream);
    assert_int_equal(table_print(table, stream, bold), 0);
    fclose(stream);
    assert_string_equal(printed, expected);
    free(printed);
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, columns, 3);
    table_add(&table, "%s", "database");
    table_add(&table, "%d", 7);
    table_add(&table, "stalls");
    table_add(&table, "a");
    table_add(&table, "%d KiB", 1024);
    table_add(&table, "idle");
    assert_prints(&table, false,
                  "NAME          SIZE  WHY\n"
                  "database         7  stalls\n"
                  "a         1024 KiB  idle\n");
    table_deinit(&table);
}

static void an_empty_cell_is_a_dash(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, columns, 3);
    table_add(&table, "%s", "");
    table_add(&table, "1");
    table_add(&table, "%s", "");
    assert_prints(&table, false, "NAME  SIZE  WHY\n-        1  -\n");
    table_deinit(&table);
}

static void a_table_without_rows_has_its_titles(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, columns, 3);
    assert_prints(&table, false, "NAME  SIZE  WHY\n");
    assert_prints(&table, true, "\033[1mNAME  SIZE  WHY\033[0m\n");
    table_deinit(&table);
}

static void characters_count_as_columns_not_bytes(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, columns, 3);
    table_add(&table, "\xc3\xbc\xc3\xb6\xc3\xa4\xc3\x9f\xc3\xa9");
    table_add(&table, "1");
    table_add(&table, "x");
    assert_prints(&table, false,
                  "NAME   SIZE  WHY\n"
                  "\xc3\xbc\xc3\xb6\xc3\xa4\xc3\x9f\xc3\xa9     1  x\n");
    table_deinit(&table);
}

static void many_cells_are_kept(void **state)
{
    struct table table;

    (void)state;
    table_init(&table, columns, 3);
    for (int i = 0; i < 3000; i++)
        table_add(&table, "%d", i);
    assert_int_equal(table.cell_count, 3000);
    assert_string_equal(table.cells[2999], "2999");
    assert_false(table.failed);
    table_deinit(&table);
}

static void assert_cleaned(const char *dirty, const char *clean)
{
    char text[64];

    snprintf(text, sizeof(text), "%s", dirty);
    text_clean(text, sizeof(text));
    assert_string_equal(text, clean);
}

static void control_characters_never_reach_the_terminal(void **state)
{
    (void)state;
    assert_cleaned("web", "web");
    assert_cleaned("a\033[2Jb", "a?[2Jb");
    assert_cleaned("a\nb\tc\x7f", "a?b?c?");
    assert_cleaned("a\xc2\x9b"
                   "1m",
                   "a??1m"); /* C1 CSI */
}

static void what_is_not_utf8_is_replaced(void **state)
{
    (void)state;
    assert_cleaned("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
    assert_cleaned("\xe2\x82\xac \xf0\x9f\x98\x80", "\xe2\x82\xac \xf0\x9f\x98\x80");
    assert_cleaned("a\xff", "a?");
    assert_cleaned("\xc0\xaf", "??");           /* overlong */
    assert_cleaned("\xed\xa0\x80", "???");      /* surrogate */
    assert_cleaned("\xf4\x90\x80\x80", "????"); /* past U+10FFFF */
    assert_cleaned("\xe2\x82", "??");           /* cut off */
}

static void a_text_without_an_end_is_ended(void **state)
{
    char text[4] = {'a', 'b', 'c', 'd'};

    (void)state;
    text_clean(text, sizeof(text));
    assert_string_equal(text, "abc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
        cmocka_unit_test(an_empty_cell_is_a_dash),
        cmocka_unit_test(a_table_without_rows_has_its_titles),
        cmocka_unit_test(characters_count_as_columns_not_bytes),
        cmocka_unit_test(many_cells_are_kept),
        cmocka_unit_test(control_characters_never_reach_the_terminal),
        cmocka_unit_test(what_is_not_utf8_is_replaced),
        cmocka_unit_test(a_text_without_an_end_is_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
