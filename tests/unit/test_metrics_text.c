/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* OpenMetrics, to the byte. tests/system/test_metrics.py reads what a broker makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "broker/metrics_text.h"

static const struct metrics_family gauge = {"a_bytes", METRICS_GAUGE, "bytes", "A."};
static const struct metrics_family counter = {"b", METRICS_COUNTER, NULL, "B."};
static const struct metrics_family info = {"c", METRICS_INFO, NULL, "C."};

static void families_have_their_lines_and_suffixes(void **state)
{
    struct metrics_labels labels = {0};
    struct metrics_text text;

    (void)state;
    metrics_text_init(&text);
    metrics_begin(&text, &gauge);
    metrics_number(&text, NULL, UINT64_MAX);
    metrics_begin(&text, &counter);
    metrics_label(&labels, "x", "one");
    metrics_label_number(&labels, "y", 2);
    metrics_seconds(&text, &labels, 1500000000);
    metrics_begin(&text, &info);
    metrics_ratio(&text, NULL, 0.25);
    assert_int_equal(metrics_end(&text), 0);
    assert_string_equal(text.text, "# TYPE a_bytes gauge\n"
                                   "# UNIT a_bytes bytes\n"
                                   "# HELP a_bytes A.\n"
                                   "a_bytes 18446744073709551615\n"
                                   "# TYPE b counter\n"
                                   "# HELP b B.\n"
                                   "b_total{x=\"one\",y=\"2\"} 1.500000000\n"
                                   "# TYPE c info\n"
                                   "# HELP c C.\n"
                                   "c_info 0.2500\n"
                                   "# EOF\n");
    assert_int_equal(text.bytes, strlen(text.text));
    metrics_text_deinit(&text);
}

static void assert_label(const char *value, const char *expected)
{
    struct metrics_labels labels = {0};

    metrics_label(&labels, "l", value);
    assert_string_equal(labels.text, expected);
    assert_int_equal(labels.bytes, strlen(expected));
}

static void values_of_labels_are_escaped(void **state)
{
    (void)state;
    assert_label("", "l=\"\"");
    assert_label("web-1.example", "l=\"web-1.example\"");
    assert_label("a\"b\\c\nd", "l=\"a\\\"b\\\\c\\nd\"");
    assert_label("d\xc3\xb8m \xe2\x82\xac \xf0\x9f\x90\xa7",
                 "l=\"d\xc3\xb8m \xe2\x82\xac \xf0\x9f\x90\xa7\"");
}

static void what_is_not_utf8_is_replaced(void **state)
{
    (void)state;
    assert_label("a\xff z", "l=\"a? z\"");
    assert_label("\xc3", "l=\"?\"");                /* cut off */
    assert_label("\xc0\xaf", "l=\"??\"");           /* too long for what it says */
    assert_label("\xed\xa0\x80", "l=\"???\"");      /* a surrogate */
    assert_label("\xf4\x90\x80\x80", "l=\"????\""); /* beyond the last character */
    assert_label("\x80x", "l=\"?x\"");
}

static void a_label_without_room_is_left_out_whole(void **state)
{
    struct metrics_labels labels = {0};
    char name[201];

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (int i = 0; i < 10; i++)
        metrics_label(&labels, "l", name);
    assert_int_equal(labels.bytes, strlen(labels.text));
    assert_true(labels.bytes < sizeof(labels.text));
    assert_string_equal(labels.text + labels.bytes - 2, "n\"");
    assert_int_equal(labels.bytes, 3 * (200 + 4) + 2);
}

static void many_lines_fit(void **state)
{
    struct metrics_text text;

    (void)state;
    metrics_text_init(&text);
    metrics_begin(&text, &gauge);
    const size_t before = text.bytes;
    for (uint64_t i = 0; i < 100000; i++)
        metrics_number(&text, NULL, 7);
    assert_int_equal(metrics_end(&text), 0);
    assert_int_equal(text.bytes, before + 100000 * strlen("a_bytes 7\n") + strlen("# EOF\n"));
    metrics_text_deinit(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families_have_their_lines_and_suffixes),
        cmocka_unit_test(values_of_labels_are_escaped),
        cmocka_unit_test(what_is_not_utf8_is_replaced),
        cmocka_unit_test(a_label_without_room_is_left_out_whole),
        cmocka_unit_test(many_lines_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
