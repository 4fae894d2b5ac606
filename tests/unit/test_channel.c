/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The broker's channels: tables, ends, what a page says; and the queue of clients that wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "broker/channel.h"
#include "broker/waitlist.h"

static const struct channel_key key = {.server_domain = 1, .client_domain = 2, .port = 5000};
static const struct channel_wishes wishes = {
    .min_bytes = {4096, 8192}, .max_bytes = {65536, 65536}, .weight = 100, .fence_sleep = true};

/* The ends' connections: their addresses are all that channels look at. */
static char connections[2];
#define CONNECTION(end) ((struct connection *)(void *)&connections[end])

static struct channels channels;
static struct zone *zone;

static int make(void **state)
{
    struct domain_set everybody;

    (void)state;
    memset(&everybody, 0xff, sizeof(everybody));
    rcu_register_thread();
    int r = zone_new("test", 0, 10, &everybody, 1 << 20, 4, 0, &zone);
    return r < 0 ? r : channels_init(&channels, 14);
}

static int drop(void **state)
{
    (void)state;
    rcu_finish();
    channels_deinit(&channels);
    zone_free(zone);
    rcu_unregister_thread();
    return 0;
}

static struct channel *open_channel(void)
{
    struct channel *channel;
    unsigned ring;

    assert_int_equal(channel_new(&channels, zone, &key, &wishes, 1, &channel, &ring), 0);
    channel_attach(channel, CHANNEL_SERVER, CONNECTION(CHANNEL_SERVER), 11);
    return channel;
}

static bool is_rung(const struct channel *channel, unsigned end)
{
    struct pollfd readable = {.fd = channel->end[end].event_fd, .events = POLLIN};

    return poll(&readable, 1, 0) == 1;
}

static void close_end(struct channel *channel, unsigned end)
{
    if (channel_detach(channel, end))
        channel_free(channel);
}

static void assert_all_is_given_back(void)
{
    struct allocator_figures figures;
    const char *why;

    allocator_figures(zone->allocator, &figures);
    assert_int_equal(figures.used_blocks, 0);
    assert_int_equal(allocator_check(zone->allocator, &why), 0);
    assert_int_equal(zone->free_count, 4);
    assert_int_equal(channels.count, 0);
}

static void new_channel_waits_and_is_found_by_number_and_key(void **state)
{
    struct channel *channel = open_channel();

    (void)state;
    assert_true(channel->number >= 10);
    assert_ptr_equal(channels_find(&channels, channel->number), channel);
    assert_ptr_equal(channels_find_key(&channels, &key), channel);
    assert_int_equal(channel->page->channel.state, LAYOUT_CHANNEL_WAITING);
    assert_int_equal(channel->page->channel.server_pid, 11);
    assert_int_equal(channel->page->channel.fence_sleep, 1);
    close_end(channel, CHANNEL_SERVER);
    assert_null(channels_find_key(&channels, &key));
    assert_all_is_given_back();
}

static void readers_see_what_was_published_last(void **state)
{
    struct channel *channel = open_channel();

    (void)state;
    rcu_enter();
    assert_int_equal(channel_ring_view(channel, 0)->min_bytes, 4096);
    assert_int_equal(channel_ring_view(channel, 1)->current.size, 8192);
    rcu_leave();
    channel->ring[1].weight = 7;
    channel_ring_publish(channel, 1);
    rcu_enter();
    assert_int_equal(channel_ring_view(channel, 1)->weight, 7);
    rcu_leave();
    close_end(channel, CHANNEL_SERVER);
}

static void client_makes_it_connected_and_wakes_the_server(void **state)
{
    struct channel *channel = open_channel();

    (void)state;
    assert_false(is_rung(channel, CHANNEL_SERVER));
    channel_attach(channel, CHANNEL_CLIENT, CONNECTION(CHANNEL_CLIENT), 12);
    assert_int_equal(channel->page->channel.state, LAYOUT_CHANNEL_CONNECTED);
    assert_int_equal(channel->page->channel.client_pid, 12);
    assert_true(is_rung(channel, CHANNEL_SERVER));
    assert_false(is_rung(channel, CHANNEL_CLIENT));
    close_end(channel, CHANNEL_CLIENT);
    close_end(channel, CHANNEL_SERVER);
    assert_all_is_given_back();
}

static void end_that_goes_leaves_its_lines_closed_and_the_other_awake(void **state)
{
    struct channel *channel = open_channel();

    (void)state;
    channel_attach(channel, CHANNEL_CLIENT, CONNECTION(CHANNEL_CLIENT), 12);
    assert_int_equal(channel_ring_dead(channel, LAYOUT_SERVER_SENDS), 0);
    assert_false(channel_detach(channel, CHANNEL_SERVER));
    assert_int_equal(channel->page->channel.gone, LAYOUT_GONE_SERVER);
    assert_int_equal(channel->page->ring[LAYOUT_SERVER_SENDS].producer_sleep.closed, 1);
    assert_int_equal(channel->page->ring[LAYOUT_CLIENT_SENDS].consumer_sleep.closed, 1);
    assert_int_equal(channel->page->ring[LAYOUT_CLIENT_SENDS].producer_sleep.closed, 0);
    assert_int_equal(channel_ring_dead(channel, LAYOUT_SERVER_SENDS), RING_PRODUCER_DEAD);
    assert_int_equal(channel_ring_dead(channel, LAYOUT_CLIENT_SENDS), RING_CONSUMER_DEAD);
    assert_true(is_rung(channel, CHANNEL_CLIENT));
    /* The port is free; the channel is there until its client goes, too. */
    assert_null(channels_find_key(&channels, &key));
    assert_ptr_equal(channels_find(&channels, channel->number), channel);
    struct channel *heir = open_channel();
    assert_int_not_equal(heir->number, channel->number);
    close_end(channel, CHANNEL_CLIENT);
    close_end(heir, CHANNEL_SERVER);
    assert_all_is_given_back();
}

static void broken_channel_keeps_its_first_reason(void **state)
{
    struct channel *channel = open_channel();

    (void)state;
    channel_attach(channel, CHANNEL_CLIENT, CONNECTION(CHANNEL_CLIENT), 12);
    channel_close(channel, EPROTO, 0);
    channel_close(channel, EPIPE, 0);
    assert_int_equal(channel->page->channel.reason, EPROTO);
    assert_int_equal(channel->page->channel.state, LAYOUT_CHANNEL_CLOSED);
    assert_true(is_rung(channel, CHANNEL_CLIENT));
    close_end(channel, CHANNEL_SERVER);
    close_end(channel, CHANNEL_CLIENT);
    assert_all_is_given_back();
}

static void channel_that_finds_no_room_takes_nothing(void **state)
{
    struct channel_wishes large = wishes;
    struct channel *channel;
    unsigned ring;

    (void)state;
    large.min_bytes[1] = 1 << 20;
    assert_int_equal(channel_new(&channels, zone, &key, &large, 1, &channel, &ring), -ENOSPC);
    assert_int_equal(ring, 1);
    assert_all_is_given_back();
    assert_null(channels_find_key(&channels, &key));
}

static void freed_page_goes_back_to_the_host_after_the_grace_period(void **state)
{
    const uint64_t before = region_resident_bytes(&zone->region);

    (void)state;
    close_end(open_channel(), CHANNEL_SERVER);
    rcu_finish();
    channels_reap(&channels);
    assert_int_equal(region_resident_bytes(&zone->region), before);
}

static void abandoned_channel_leaves_its_page_to_the_ends(void **state)
{
    struct channel *channel = open_channel();
    struct layout_channel_page *page = channel->page;

    (void)state;
    channel_close(channel, 0, LAYOUT_GONE_SERVER);
    channel_abandon(channel);
    rcu_finish();
    channels_reap(&channels);
    assert_int_equal(page->channel.state, LAYOUT_CHANNEL_CLOSED);
    assert_int_equal(page->channel.gone, LAYOUT_GONE_SERVER);
}

static void waiters_are_found_in_the_order_they_came(void **state)
{
    static struct waitlist list;
    struct waiter waiters[4] = {0};
    const struct channel_key other = {.server_domain = 1, .client_domain = 2, .port = 5001};

    (void)state;
    waitlist_init(&list);
    waitlist_add(&list, &waiters[0], &key);
    waitlist_add(&list, &waiters[1], &other);
    waitlist_add(&list, &waiters[2], &key);
    waitlist_add(&list, &waiters[3], &key);
    assert_ptr_equal(waitlist_first(&list, &key), &waiters[0]);
    waitlist_remove(&waiters[2]);
    waitlist_remove(&waiters[2]);
    waitlist_remove(&waiters[0]);
    assert_ptr_equal(waitlist_first(&list, &key), &waiters[3]);
    waitlist_remove(&waiters[3]);
    assert_null(waitlist_first(&list, &key));
    assert_ptr_equal(waitlist_first(&list, &other), &waiters[1]);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, make, drop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(new_channel_waits_and_is_found_by_number_and_key),
        CASE(readers_see_what_was_published_last),
        CASE(client_makes_it_connected_and_wakes_the_server),
        CASE(end_that_goes_leaves_its_lines_closed_and_the_other_awake),
        CASE(broken_channel_keeps_its_first_reason),
        CASE(channel_that_finds_no_room_takes_nothing),
        CASE(freed_page_goes_back_to_the_host_after_the_grace_period),
        CASE(abandoned_channel_leaves_its_page_to_the_ends),
        CASE(waiters_are_found_in_the_order_they_came),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
