/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ring/: one process plays producer, consumer and broker in turn. */
#include "tests/unit/ring_fixture.h"

#include <errno.h>

static void test_every_byte_of_a_block_is_usable(void **state)
{
    struct ring_fixture f;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 4096), 4096);
    assert_int_equal(fixture_write(&f, 1), -EAGAIN);
    assert_int_equal(fixture_read(&f, 4096), 4096);
    assert_int_equal(fixture_write(&f, 4096), 4096);
    assert_int_equal(fixture_read(&f, 8192), 4096);
    fixture_close(&f);
}

static void test_spans_are_contiguous_over_the_end(void **state)
{
    struct ring_fixture f;
    struct ring_span span;
    (void)state;
    fixture_open(&f, 0, 3); /* not a power of two */
    assert_int_equal(fixture_write(&f, 10000), 10000);
    assert_int_equal(fixture_read(&f, 10000), 10000);
    assert_int_equal(fixture_write(&f, 12288), 12288);
    assert_int_equal(ring_consumer_peek(&f.consumer, 12288, &span), 0);
    assert_int_equal(span.size, 12288);
    for (size_t i = 0; i < span.size; i++)
        assert_int_equal(span.data[i], fixture_byte(10000 + i));
    ring_consumer_release(&f.consumer, span.size);
    fixture_close(&f);
}

static void test_more_than_the_ring_holds_is_refused_at_once(void **state)
{
    struct ring_fixture f;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 4097), -EMSGSIZE);
    assert_int_equal(fixture_write(&f, 1), 1);
    fixture_close(&f);
}

static void test_a_span_given_back_publishes_nothing(void **state)
{
    struct ring_fixture f;
    struct ring_span span;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(ring_producer_reserve(&f.producer, 1, 100, &span), 0);
    assert_int_equal(f.page->ring[0].producer_status.mark & 1, 1);
    ring_producer_commit(&f.producer, 0);
    assert_int_equal(f.page->ring[0].producer_status.mark, 0);
    assert_int_equal(ring_consumer_peek(&f.consumer, 1, &span), -EAGAIN);
    fixture_close(&f);
}

static void test_a_grown_ring_delivers_old_bytes_then_new(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 4000), 4000);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 4));
    assert_int_equal(fixture_write(&f, 16384), 16384);
    assert_false(ring_geometry_followed(&f.geometry, &old));
    assert_int_equal(fixture_read(&f, 100), 100);
    assert_false(ring_geometry_followed(&f.geometry, &old));
    assert_int_equal(fixture_read(&f, 20384), 20284);
    assert_true(ring_geometry_followed(&f.geometry, &old));
    assert_int_equal(old.offset, fixture_blocks(0, 1).offset);
    assert_int_equal(old.size, 4096);
    fixture_close(&f);
}

static void test_a_producer_that_lags_behind_no_consumer_stays(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 10), 10);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 1));
    assert_int_equal(fixture_write(&f, 10), 10);
    assert_int_equal(ring_geometry_publish(&f.geometry, fixture_blocks(16, 1)), -EBUSY);
    assert_int_equal(fixture_read(&f, 15), 15);
    assert_true(ring_geometry_followed(&f.geometry, &old));
    ring_geometry_publish(&f.geometry, fixture_blocks(16, 1));
    assert_int_equal(fixture_write(&f, 10), 10);
    assert_int_equal(fixture_read(&f, 100), 15);
    assert_true(ring_geometry_followed(&f.geometry, &old));
    assert_int_equal(old.offset, fixture_blocks(8, 1).offset);
    fixture_close(&f);
}

static void test_an_idle_ring_gives_memory_back_without_its_ends(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 8);
    assert_int_equal(fixture_write(&f, 5000), 5000);
    assert_int_equal(fixture_read(&f, 5000), 5000);
    for (uint64_t i = 1; i < 6; i++) {
        ring_geometry_publish(&f.geometry, fixture_blocks(i * 8, i));
        assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
    }
    assert_int_equal(fixture_write(&f, 20000), 20000);
    assert_int_equal(fixture_read(&f, 30000), 20000);
    assert_int_equal(f.page->ring[0].producer.switch_count, 1);
    fixture_close(&f);
}

static void test_a_ring_moved_before_its_first_byte_works(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 1);
    for (uint64_t i = 1; i < 4; i++) {
        ring_geometry_publish(&f.geometry, fixture_blocks(i, 1));
        assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
    }
    assert_int_equal(fixture_write(&f, 4096), 4096);
    assert_int_equal(fixture_read(&f, 4096), 4096);
    fixture_close(&f);
}

static void test_bytes_that_are_left_keep_the_old_extent(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 1), 1);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 1));
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_PIN_DATA);
    assert_int_equal(fixture_read(&f, 1), 1);
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
    fixture_close(&f);
}

static void test_an_end_in_an_operation_pins(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    struct ring_span span;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(ring_producer_reserve(&f.producer, 1, 1, &span), 0);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 1));
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_PIN_PRODUCER);
    span.data[0] = fixture_byte(0);
    ring_producer_commit(&f.producer, 1);
    assert_int_equal(ring_consumer_peek(&f.consumer, 1, &span), 0);
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_PIN_DATA);
    ring_consumer_release(&f.consumer, 1);
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
    fixture_close(&f);
}

static void test_an_end_that_died_in_an_operation_does_not_pin(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    struct ring_span span;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 7), 7);
    assert_int_equal(ring_producer_reserve(&f.producer, 1, 1, &span), 0); /* and never comes back */
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 1));
    f.page->channel.gone = LAYOUT_GONE_SERVER;
    assert_int_equal(fixture_reclaim(&f, RING_PRODUCER_DEAD, &old), RING_PIN_DATA);
    assert_int_equal(fixture_read(&f, 10), 7);
    assert_int_equal(fixture_reclaim(&f, RING_PRODUCER_DEAD, &old), RING_NOT_PINNED);
    fixture_close(&f);
}

static void test_a_dead_consumer_frees_what_it_had_not_read(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 7), 7);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 1));
    assert_int_equal(fixture_write(&f, 7), 7);
    f.page->channel.gone = LAYOUT_GONE_CLIENT;
    assert_int_equal(fixture_reclaim(&f, RING_CONSUMER_DEAD, &old), RING_NOT_PINNED);
    assert_int_equal(fixture_write(&f, 7), -EPIPE);
    fixture_close(&f);
}

static void test_a_promise_survives_a_shrink(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 8);
    assert_int_equal(fixture_write(&f, 1), 1);
    assert_int_equal(fixture_read(&f, 1), 1);
    assert_int_equal(ring_producer_promise(&f.producer, 65536), 32768);
    assert_int_equal(ring_geometry_promised(&f.geometry), 32768);
    ring_geometry_publish(&f.geometry, fixture_blocks(16, 1));
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_PIN_PROMISE);
    assert_int_equal(fixture_write(&f, 30000), 30000);
    /* the promise is kept, what is left of it fits the new extent */
    assert_int_equal(fixture_write(&f, 2000), 2000);
    assert_int_equal(fixture_read(&f, 40000), 32000);
    assert_true(ring_geometry_followed(&f.geometry, &old));
    fixture_close(&f);
}

static void test_before_a_switch_only_the_floor_is_promised(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(ring_producer_promise(&f.producer, 65536), 4096);
    assert_int_equal(ring_producer_promise(&f.producer, 65536), 4096);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 8));
    assert_int_equal(ring_producer_promise(&f.producer, 65536), 4096);
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
    ring_geometry_publish(&f.geometry, fixture_blocks(16, 1));
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
    assert_int_equal(ring_producer_promise(&f.producer, 65536), 4096);
    assert_int_equal(fixture_write(&f, 4096), 4096);
    assert_int_equal(ring_producer_promise(&f.producer, 65536), 0);
    fixture_close(&f);
}

static void test_a_sleeper_is_rung_once_for_each_arming(void **state)
{
    struct ring_fixture f;
    struct ring_span span;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_true(ring_consumer_arm(&f.consumer, 1));
    assert_int_equal(ring_producer_reserve(&f.producer, 1, 1, &span), 0);
    assert_true(ring_producer_commit(&f.producer, 1));
    assert_int_equal(ring_producer_reserve(&f.producer, 1, 1, &span), 0);
    assert_false(ring_producer_commit(&f.producer, 1));
    ring_consumer_disarm(&f.consumer);
    assert_false(ring_consumer_arm(&f.consumer, 1)); /* there is data: do not sleep */
    ring_consumer_disarm(&f.consumer);
    assert_int_equal(ring_producer_reserve(&f.producer, 4094, 4094, &span), 0);
    assert_false(ring_producer_commit(&f.producer, 4094));
    assert_true(ring_producer_arm(&f.producer, 100));
    assert_int_equal(ring_consumer_peek(&f.consumer, 99, &span), 0);
    assert_false(ring_consumer_release(&f.consumer, 99)); /* not yet what it waits for */
    assert_int_equal(ring_consumer_peek(&f.consumer, 1, &span), 0);
    assert_true(ring_consumer_release(&f.consumer, 1));
    fixture_close(&f);
}

static void test_growing_wakes_a_producer_that_sleeps(void **state)
{
    struct ring_fixture f;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 4096), 4096);
    assert_true(ring_producer_arm(&f.producer, 1));
    assert_int_equal(ring_geometry_publish(&f.geometry, fixture_blocks(8, 2)), 1);
    assert_false(ring_producer_arm(&f.producer, 1)); /* the second look finds the new generation */
    ring_producer_disarm(&f.producer);
    assert_int_equal(fixture_write(&f, 8192), 8192);
    assert_int_equal(ring_geometry_publish(&f.geometry, fixture_blocks(16, 2)), -EBUSY);
    fixture_close(&f);
}

static void test_what_was_written_before_the_end_is_delivered(void **state)
{
    struct ring_fixture f;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 50), 50);
    ring_producer_close(&f.producer);
    assert_int_equal(fixture_read(&f, 20), 20);
    assert_int_equal(fixture_read(&f, 80), 30);
    assert_int_equal(fixture_read(&f, 1), -EPIPE);
    fixture_close(&f);
}

static void test_writing_to_a_closed_consumer_is_epipe(void **state)
{
    struct ring_fixture f;
    (void)state;
    fixture_open(&f, 0, 1);
    ring_consumer_close(&f.consumer);
    assert_int_equal(fixture_write(&f, 1), -EPIPE);
    assert_int_equal(ring_producer_promise(&f.producer, 4096), 0);
    fixture_close(&f);
}

static void test_a_promise_is_not_withdrawn_by_asking_for_less(void **state)
{
    struct ring_fixture f;
    (void)state;
    fixture_open(&f, 0, 8);
    assert_int_equal(fixture_write(&f, 1), 1);
    assert_int_equal(fixture_read(&f, 1), 1);
    assert_int_equal(ring_producer_promise(&f.producer, 65536), 32768);
    assert_int_equal(ring_producer_promise(&f.producer, 1), 1);
    ring_geometry_publish(&f.geometry, fixture_blocks(16, 1));
    assert_int_equal(fixture_write(&f, 32768), 32768);
    fixture_close(&f);
}

static void test_who_sleeps_for_much_holds_the_room_for_it_until_it_wakes(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    (void)state;
    fixture_open(&f, 0, 8);
    assert_int_equal(fixture_write(&f, 30000), 30000);
    assert_int_equal(fixture_write(&f, 20000), -EAGAIN);
    assert_int_equal(ring_geometry_promised(&f.geometry), 0); /* only asked */
    assert_true(ring_producer_arm(&f.producer, 20000));
    assert_int_equal(ring_geometry_promised(&f.geometry), 20000);
    ring_geometry_publish(&f.geometry, fixture_blocks(16, 1));
    assert_int_equal(fixture_read(&f, 30000), 30000);
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_PIN_PROMISE);
    ring_producer_disarm(&f.producer);
    assert_int_equal(ring_geometry_promised(&f.geometry), 0);
    assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
    fixture_close(&f);
}

static void test_more_than_this_extent_holds_waits_for_the_larger_one(void **state)
{
    struct ring_fixture f;
    struct ring_extent old;
    struct ring_span span;
    (void)state;
    fixture_open(&f, 0, 1);
    assert_int_equal(fixture_write(&f, 1), 1);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 1));
    /* in the second extent; the consumer has not looked */
    assert_int_equal(fixture_write(&f, 1), 1);
    assert_int_equal(fixture_write(&f, 8192), -EMSGSIZE);
    assert_int_equal(fixture_read(&f, 2), 2);
    assert_int_equal(ring_consumer_peek(&f.consumer, 8192, &span), -EMSGSIZE);
    assert_true(ring_geometry_followed(&f.geometry, &old));
    ring_geometry_publish(&f.geometry, fixture_blocks(16, 8));
    assert_int_equal(ring_consumer_peek(&f.consumer, 8192, &span), -EAGAIN);
    assert_int_equal(fixture_write(&f, 8192), 8192);
    assert_int_equal(ring_consumer_peek(&f.consumer, 8192, &span), 0);
    ring_consumer_release(&f.consumer, 8192);
    fixture_close(&f);
}

static void test_an_extent_that_changes_its_size_under_us_is_eproto(void **state)
{
    struct ring_fixture f;
    struct ring_span span;
    (void)state;
    fixture_open(&f, 0, 1);
    ring_geometry_publish(&f.geometry, fixture_blocks(8, 1));
    assert_int_equal(ring_producer_reserve(&f.producer, 1, 1, &span), 0);
    ring_producer_commit(&f.producer, 0); /* generation 2 stays mapped */
    f.page->ring[0].geometry.extent[0].size = 30 * LAYOUT_BLOCK_BYTES;
    assert_int_equal(ring_producer_reserve(&f.producer, 100000, 100000, &span), -EPROTO);
    fixture_close(&f);
}

static void test_a_consumer_that_goes_back_is_eproto(void **state)
{
    static const uint64_t lies[] = {UINT64_MAX, 1, 0};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct ring_fixture f;
        struct ring_extent old;
        fixture_open(&f, 0, 1);
        if (lies[i] == 0) {
            ring_geometry_publish(&f.geometry, fixture_blocks(1, 1));
            assert_int_equal(fixture_write(&f, 1), 1);
            assert_int_equal(fixture_read(&f, 1), 1);
            assert_true(ring_geometry_followed(&f.geometry, &old));
        }
        for (uint64_t block = 8; block < 11; block++) {
            ring_geometry_publish(&f.geometry, fixture_blocks(block, 1));
            assert_int_equal(fixture_reclaim(&f, 0, &old), RING_NOT_PINNED);
        }
        f.page->ring[0].consumer.followed = lies[i];
        assert_int_equal(fixture_write(&f, 100), -EPROTO);
        fixture_close(&f);
    }
}

static void test_counters_count(void **state)
{
    struct ring_fixture f;
    struct ring_sample sample;
    (void)state;
    fixture_open(&f, 0, 1);
    for (int i = 0; i < 5; i++)
        assert_int_equal(fixture_write(&f, 100), 100);
    assert_int_equal(fixture_read(&f, 200), 200);
    assert_int_equal(fixture_write(&f, 5000), -EMSGSIZE);
    assert_true(ring_producer_stall_begin(&f.producer));
    assert_false(ring_producer_stall_begin(&f.producer));
    ring_sample_take(f.geometry.shared, 4096, 0, &sample);
    assert_true(sample.stalled);
    ring_producer_stall_end(&f.producer);
    ring_sample_take(f.geometry.shared, 4096, 0, &sample);
    assert_false(sample.stalled);
    assert_int_equal(sample.sent_bytes, 500);
    assert_int_equal(sample.received_bytes, 200);
    assert_int_equal(sample.held_bytes, 300);
    assert_int_equal(sample.high_water_bytes, 500);
    assert_int_equal(sample.sent_operations, 5);
    assert_int_equal(sample.received_operations, 1);
    assert_int_equal(sample.stalls, 1);
    ring_sample_epoch(f.geometry.shared, 1);
    ring_sample_take(f.geometry.shared, 4096, 1, &sample);
    /* what is held now: the consumer has not looked yet */
    assert_int_equal(sample.high_water_bytes, 300);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_of_a_block_is_usable),
        cmocka_unit_test(test_spans_are_contiguous_over_the_end),
        cmocka_unit_test(test_more_than_the_ring_holds_is_refused_at_once),
        cmocka_unit_test(test_a_span_given_back_publishes_nothing),
        cmocka_unit_test(test_a_grown_ring_delivers_old_bytes_then_new),
        cmocka_unit_test(test_a_producer_that_lags_behind_no_consumer_stays),
        cmocka_unit_test(test_an_idle_ring_gives_memory_back_without_its_ends),
        cmocka_unit_test(test_a_ring_moved_before_its_first_byte_works),
        cmocka_unit_test(test_bytes_that_are_left_keep_the_old_extent),
        cmocka_unit_test(test_an_end_in_an_operation_pins),
        cmocka_unit_test(test_an_end_that_died_in_an_operation_does_not_pin),
        cmocka_unit_test(test_a_dead_consumer_frees_what_it_had_not_read),
        cmocka_unit_test(test_a_promise_survives_a_shrink),
        cmocka_unit_test(test_before_a_switch_only_the_floor_is_promised),
        cmocka_unit_test(test_a_sleeper_is_rung_once_for_each_arming),
        cmocka_unit_test(test_growing_wakes_a_producer_that_sleeps),
        cmocka_unit_test(test_what_was_written_before_the_end_is_delivered),
        cmocka_unit_test(test_writing_to_a_closed_consumer_is_epipe),
        cmocka_unit_test(test_a_promise_is_not_withdrawn_by_asking_for_less),
        cmocka_unit_test(test_who_sleeps_for_much_holds_the_room_for_it_until_it_wakes),
        cmocka_unit_test(test_more_than_this_extent_holds_waits_for_the_larger_one),
        cmocka_unit_test(test_an_extent_that_changes_its_size_under_us_is_eproto),
        cmocka_unit_test(test_a_consumer_that_goes_back_is_eproto),
        cmocka_unit_test(test_counters_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
