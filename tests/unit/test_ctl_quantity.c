/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "client/ctl/quantity.h"

#define assert_text(quantity, text_) assert_string_equal((quantity).text, (text_))

static void sizes_are_shown_with_at_most_one_decimal(void **state)
{
    (void)state;
    assert_text(quantity_size(0), "0");
    assert_text(quantity_size(1), "1 B");
    assert_text(quantity_size(1023), "1023 B");
    assert_text(quantity_size(1024), "1 KiB");
    assert_text(quantity_size(4096), "4 KiB");
    assert_text(quantity_size(1536 * 1024), "1.5 MiB");
    assert_text(quantity_size(5ull << 40), "5 TiB");
}

static void a_size_that_rounds_up_to_1024_takes_the_next_unit(void **state)
{
    (void)state;
    assert_text(quantity_size(1024 * 1024 - 1), "1 MiB");
    assert_text(quantity_size(1024 * 1024 - 64 * 1024), "960 KiB");
    assert_text(quantity_size(UINT64_MAX), "16 EiB");
}

static void durations_change_unit_with_length(void **state)
{
    (void)state;
    assert_text(quantity_duration(0), "0");
    assert_text(quantity_duration(850), "850 ns");
    assert_text(quantity_duration(12345), "12.3 us");
    assert_text(quantity_duration(999999), "1 ms");
    assert_text(quantity_duration(1500000000), "1.5 s");
    assert_text(quantity_duration(59999999999), "1m00s");
    assert_text(quantity_duration(245ull * 1000000000), "4m05s");
    assert_text(quantity_duration((3ull * 3600 + 12 * 60) * 1000000000), "3h12m");
    assert_text(quantity_duration((5ull * 86400 + 3 * 3600) * 1000000000), "5d03h");
}

static void an_hour_less_a_moment_is_shown_as_minutes(void **state)
{
    (void)state;
    assert_text(quantity_duration(3599400000000), "59m59s");
    assert_text(quantity_duration(3599900000000), "59m59s");
}

static void the_largest_duration_means_never(void **state)
{
    (void)state;
    assert_text(quantity_duration(UINT64_MAX), "never");
}

static void counts_keep_their_digits_below_a_million(void **state)
{
    (void)state;
    assert_text(quantity_count(0), "0");
    assert_text(quantity_count(999999), "999999");
    assert_text(quantity_count(1000000), "1M");
    assert_text(quantity_count(1234567), "1.2M");
    assert_text(quantity_count(999950000), "1G");
    assert_text(quantity_count(UINT64_MAX), "18.4E");
}

static void times_have_milliseconds_and_a_zone(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    assert_text(quantity_time_utc(1000000000123456789ull), "2001-09-09T01:46:40.123Z");
    assert_text(quantity_time(1000000000123456789ull), "2001-09-09 01:46:40.123");
}

static void sizes_are_read_with_binary_suffixes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"0", 0},
        {"4096", 4096},
        {"17b", 17},
        {"64K", 65536},
        {"64k", 65536},
        {"64KiB", 65536},
        {"64kib", 65536},
        {"64 KiB", 65536},
        {"1.5M", 1572864},
        {"2G", 2ull << 30},
        {"1TiB", 1ull << 40},
        {"0.0000009K", 0},
        {"18446744073709551615", UINT64_MAX},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 1;
        assert_int_equal(quantity_parse_size(cases[i].text, &bytes), 0);
        assert_true(bytes == cases[i].bytes);
    }
}

static void what_is_shown_can_be_read_again(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 44; shift++) {
        uint64_t bytes;
        assert_int_equal(quantity_parse_size(quantity_size(1ull << shift).text, &bytes), 0);
        assert_true(bytes == 1ull << shift);
    }
}

static void what_is_no_size_is_refused(void **state)
{
    static const char *const cases[] = {"",     "K",    "-1",    "+1",    " 1",  "1x",
                                        "1KB",  "1Kb",  "1KiBs", "1..5M", "1.M", "1.5.M",
                                        "0x10", "1  K", "1,5M",  "1P"};
    uint64_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(quantity_parse_size(cases[i], &bytes), -EINVAL);
}

static void sizes_past_64_bits_are_out_of_range(void **state)
{
    uint64_t bytes;

    (void)state;
    assert_int_equal(quantity_parse_size("18446744073709551616", &bytes), -ERANGE);
    assert_int_equal(quantity_parse_size("16777216T", &bytes), -ERANGE);
    assert_int_equal(quantity_parse_size("99999999999999999999999K", &bytes), -ERANGE);
}

static void numbers_are_digits_up_to_the_maximum(void **state)
{
    uint64_t number;

    (void)state;
    assert_int_equal(quantity_parse_number("1000", 1000, &number), 0);
    assert_true(number == 1000);
    assert_int_equal(quantity_parse_number("1001", 1000, &number), -ERANGE);
    assert_int_equal(quantity_parse_number("99999999999999999999", UINT64_MAX, &number), -ERANGE);
    assert_int_equal(quantity_parse_number("1 ", 1000, &number), -EINVAL);
    assert_int_equal(quantity_parse_number("", 1000, &number), -EINVAL);
    assert_int_equal(quantity_parse_number("-1", 1000, &number), -EINVAL);
}

static void seconds_become_milliseconds(void **state)
{
    unsigned time_ms;

    (void)state;
    assert_int_equal(quantity_parse_seconds("2", &time_ms), 0);
    assert_int_equal(time_ms, 2000);
    assert_int_equal(quantity_parse_seconds("0.05", &time_ms), 0);
    assert_int_equal(time_ms, 50);
    assert_int_equal(quantity_parse_seconds("86400", &time_ms), 0);
    assert_int_equal(quantity_parse_seconds("0.049", &time_ms), -ERANGE);
    assert_int_equal(quantity_parse_seconds("86400.1", &time_ms), -ERANGE);
    assert_int_equal(quantity_parse_seconds("99999999999999999999", &time_ms), -ERANGE);
    assert_int_equal(quantity_parse_seconds("1s", &time_ms), -EINVAL);
    assert_int_equal(quantity_parse_seconds("", &time_ms), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_shown_with_at_most_one_decimal),
        cmocka_unit_test(a_size_that_rounds_up_to_1024_takes_the_next_unit),
        cmocka_unit_test(durations_change_unit_with_length),
        cmocka_unit_test(an_hour_less_a_moment_is_shown_as_minutes),
        cmocka_unit_test(the_largest_duration_means_never),
        cmocka_unit_test(counts_keep_their_digits_below_a_million),
        cmocka_unit_test(times_have_milliseconds_and_a_zone),
        cmocka_unit_test(sizes_are_read_with_binary_suffixes),
        cmocka_unit_test(what_is_shown_can_be_read_again),
        cmocka_unit_test(what_is_no_size_is_refused),
        cmocka_unit_test(sizes_past_64_bits_are_out_of_range),
        cmocka_unit_test(numbers_are_digits_up_to_the_maximum),
        cmocka_unit_test(seconds_become_milliseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
