/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The rates and the order of vchanctl top. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/ctl/top_rows.h"

#define SECOND_NS 1000000000ull
#define RINGS_MAX 8

static struct proto_ring_info ring(uint32_t channel, uint32_t index, uint64_t bytes_sent)
{
    return (struct proto_ring_info){
        .channel = channel, .ring = index, .incarnation = 1, .bytes_sent = bytes_sent};
}

static void rates_are_a_seconds_worth(void **state)
{
    struct proto_ring_info before[] = {ring(1, 0, 1000), ring(1, 1, 0)};
    struct proto_ring_info now[] = {ring(1, 0, 5000), ring(1, 1, 10)};
    struct top_row rows[2];

    (void)state;
    before[0].stalls = 2;
    now[0].stalls = 12;
    now[0].stall_ns = SECOND_NS;
    now[1].operations_sent = 6;
    top_rows_fill(rows, now, 2, before, 2, 2 * SECOND_NS);
    assert_true(rows[0].known);
    assert_int_equal(rows[0].bytes_per_second, 2000);
    assert_true(rows[0].stalls_per_second > 4.99 && rows[0].stalls_per_second < 5.01);
    assert_int_equal(rows[0].stall_permille, 500);
    assert_int_equal(rows[1].bytes_per_second, 5);
    assert_int_equal(rows[1].operations_per_second, 3);
}

static void a_ring_that_is_new_or_opened_anew_has_no_rates(void **state)
{
    struct proto_ring_info before[] = {ring(1, 0, 1000), ring(3, 0, 7)};
    struct proto_ring_info now[] = {ring(1, 0, 5000), ring(2, 0, 10), ring(3, 0, 17)};
    struct top_row rows[3];

    (void)state;
    now[0].incarnation = 2;
    top_rows_fill(rows, now, 3, before, 2, SECOND_NS);
    assert_false(rows[0].known);
    assert_false(rows[1].known);
    assert_true(rows[2].known);
    assert_int_equal(rows[2].bytes_per_second, 10);
}

static void without_time_between_there_are_no_rates(void **state)
{
    struct proto_ring_info now[] = {ring(1, 0, 5000)};
    struct top_row rows[1];

    (void)state;
    top_rows_fill(rows, now, 1, now, 1, 0);
    assert_false(rows[0].known);
}

static void a_counter_that_goes_back_is_a_rate_of_zero(void **state)
{
    struct proto_ring_info before[] = {ring(1, 0, 5000)}, now[] = {ring(1, 0, 1)};
    struct top_row rows[1];

    (void)state;
    before[0].stall_ns = 9;
    top_rows_fill(rows, now, 1, before, 1, SECOND_NS);
    assert_int_equal(rows[0].bytes_per_second, 0);
    assert_int_equal(rows[0].stall_permille, 0);
}

static void a_stall_that_does_not_end_is_all_of_the_time(void **state)
{
    struct proto_ring_info before[] = {ring(1, 0, 0)}, now[] = {ring(1, 0, 0)};
    struct top_row rows[1];

    (void)state;
    now[0].flags = PROTO_RING_STALLED;
    top_rows_fill(rows, now, 1, before, 1, SECOND_NS);
    assert_int_equal(rows[0].stall_permille, 0); /* it has just begun */
    before[0].flags = PROTO_RING_STALLED;
    top_rows_fill(rows, now, 1, before, 1, SECOND_NS);
    assert_int_equal(rows[0].stall_permille, 1000);
    now[0].stall_ns = 5 * SECOND_NS; /* a longer one than the interval has ended */
    top_rows_fill(rows, now, 1, before, 1, SECOND_NS);
    assert_int_equal(rows[0].stall_permille, 1000);
}

/* The channels of the rows, in the order in which they are picked. */
static void assert_order(const struct proto_ring_info *rings, size_t count, uint32_t domain,
                         enum top_key key, bool reverse, const char *expected)
{
    struct top_row rows[RINGS_MAX];
    const struct top_row *picked[RINGS_MAX];
    char order[RINGS_MAX + 1] = "";

    top_rows_fill(rows, rings, count, NULL, 0, 0);
    size_t n = top_rows_pick(rows, count, domain, key, reverse, picked);
    for (size_t i = 0; i < n; i++)
        order[i] = (char)('0' + picked[i]->ring->channel);
    assert_string_equal(order, expected);
}

static void rings_are_sorted_by_what_is_asked_for(void **state)
{
    struct proto_ring_info rings[] = {ring(1, 0, 10), ring(2, 0, 30), ring(3, 0, 20)};

    (void)state;
    rings[0].size_bytes = 300;
    rings[1].size_bytes = 100;
    rings[2].size_bytes = 200;
    rings[0].bytes_held = 1;
    rings[1].bytes_held = 2;
    rings[2].bytes_held = 3;
    rings[1].stall_ns = 5;
    assert_order(rings, 3, PROTO_ANY, TOP_TRAFFIC, false, "231");
    assert_order(rings, 3, PROTO_ANY, TOP_SIZE, false, "132");
    assert_order(rings, 3, PROTO_ANY, TOP_HELD, false, "321");
    assert_order(rings, 3, PROTO_ANY, TOP_STALLS, false, "213");
    assert_order(rings, 3, PROTO_ANY, TOP_SIZE, true, "231");
}

static void equals_keep_their_order_both_ways(void **state)
{
    const struct proto_ring_info rings[] = {ring(1, 0, 7), ring(2, 0, 7), ring(3, 0, 7)};

    (void)state;
    assert_order(rings, 3, PROTO_ANY, TOP_TRAFFIC, false, "123");
    assert_order(rings, 3, PROTO_ANY, TOP_TRAFFIC, true, "123");
}

static void a_domain_has_the_rings_it_sends_or_receives_in(void **state)
{
    struct proto_ring_info rings[] = {ring(1, 0, 0), ring(2, 0, 0), ring(3, 0, 0)};

    (void)state;
    rings[0].sender_domain = 5;
    rings[2].receiver_domain = 5;
    assert_order(rings, 3, 5, TOP_TRAFFIC, false, "13");
    assert_order(rings, 3, 6, TOP_TRAFFIC, false, "");
}

static void sums_are_those_of_all_rings(void **state)
{
    struct proto_ring_info before[] = {ring(1, 0, 0), ring(2, 0, 0)};
    struct proto_ring_info now[] = {ring(1, 0, 100), ring(2, 0, 23)};
    struct top_row rows[2];

    (void)state;
    now[0].flags = PROTO_RING_STALLED | PROTO_RING_MOVING;
    now[1].size_bytes = 8192;
    top_rows_fill(rows, now, 2, before, 2, SECOND_NS);
    struct top_sums sums = top_rows_sum(rows, 2);
    assert_int_equal(sums.bytes_per_second, 123);
    assert_int_equal(sums.stalled, 1);
    assert_int_equal(sums.moving, 1);
    assert_int_equal(sums.largest_bytes, 8192);
}

static void keys_have_names(void **state)
{
    enum top_key key;

    (void)state;
    for (int i = 0; i < TOP_KEYS; i++) {
        assert_int_equal(top_key_parse(top_key_text((enum top_key)i), &key), 0);
        assert_int_equal(key, i);
    }
    assert_int_equal(top_key_parse("bytes", &key), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_a_seconds_worth),
        cmocka_unit_test(a_ring_that_is_new_or_opened_anew_has_no_rates),
        cmocka_unit_test(without_time_between_there_are_no_rates),
        cmocka_unit_test(a_counter_that_goes_back_is_a_rate_of_zero),
        cmocka_unit_test(a_stall_that_does_not_end_is_all_of_the_time),
        cmocka_unit_test(rings_are_sorted_by_what_is_asked_for),
        cmocka_unit_test(equals_keep_their_order_both_ways),
        cmocka_unit_test(a_domain_has_the_rings_it_sends_or_receives_in),
        cmocka_unit_test(sums_are_those_of_all_rings),
        cmocka_unit_test(keys_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
