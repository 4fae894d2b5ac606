/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* REBALANCE, RING_SET and LIST_HISTORY, by the raw protocol, against a real vchand. */
#include "tests/system/broker_fixture.h"

static struct broker_process broker;
static struct client host, server, client;
static struct opened at_server, at_client;

static int start(void **state)
{
    struct proto_channel_open request = open_request(2, 300, PROTO_OPEN_SERVER);

    (void)state;
    broker_start(&broker, "[broker]\nregion-size = 16M\n");
    client_join(&host, &broker, 0);
    client_join(&server, &broker, 1);
    client_join(&client, &broker, 2);
    request.send_min = 8192;
    assert_int_equal(client_open(&server, &request, &at_server), 0);
    assert_int_equal(client_open_mode(&client, 1, 300, PROTO_OPEN_CLIENT, &at_client), 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    opened_drop(&at_server);
    opened_drop(&at_client);
    client_leave(&host);
    client_leave(&server);
    client_leave(&client);
    broker_stop(&broker);
    return 0;
}

static int ring_set(const struct proto_ring_set *request)
{
    struct proto_message message;

    return client_call(&host, PROTO_RING_SET, request, sizeof(*request), &message);
}

static void read_ring_of(uint32_t channel, unsigned ring, struct proto_ring_info *info)
{
    const struct proto_list request = {.channel = channel};
    struct proto_message message;

    assert_int_equal(client_call(&host, PROTO_LIST_RINGS, &request, sizeof(request), &message), 0);
    const struct proto_list_reply *reply = BODY_OF(&message);
    assert_int_equal(reply->count, 2);
    memcpy(info, (const struct proto_ring_info *)(const void *)(reply + 1) + ring, sizeof(*info));
}

static void read_ring(unsigned ring, struct proto_ring_info *info)
{
    read_ring_of(at_server.reply.channel, ring, info);
}

/* Waits until ring 0 has that size and nothing of it moves. */
static void await_size(uint32_t channel, uint64_t bytes, struct proto_ring_info *info)
{
    int waited_ms = 0;

    for (;; pause_ms(1)) {
        read_ring_of(channel, 0, info);
        if (info->size_bytes == bytes && info->old_size_bytes == 0)
            return;
        if (waited_ms++ >= PATIENCE_MS)
            fail_msg("the ring has %llu bytes, not %llu", (unsigned long long)info->size_bytes,
                     (unsigned long long)bytes);
    }
}

static void idle_ring_takes_the_size_that_is_set_and_gives_the_old_extent_back(void **state)
{
    const struct proto_ring_set request = {.channel = at_server.reply.channel,
                                           .ring = 1,
                                           .fields = PROTO_SET_SIZE,
                                           .size_bytes = 65536};
    struct proto_ring_info info;
    int waited_ms = 0;

    (void)state;
    assert_int_equal(ring_set(&request), 0);
    do {
        read_ring(1, &info);
        assert_true(waited_ms++ < PATIENCE_MS);
        pause_ms(1);
    } while (info.size_bytes != 65536 || info.old_size_bytes > 0);
    assert_int_equal(info.resizes, 1);
    assert_int_equal(info.generation, 2);
    assert_int_equal(order_load_acquire(&at_client.page->ring[1].geometry.generation), 2);
}

/* A ring whose extent claimed more than its blocks once took its neighbour's first bytes along. */
static void odd_maximum_of_a_client_reaches_into_no_neighbour(void **state)
{
    struct proto_channel_open request = open_request(4, 301, PROTO_OPEN_SERVER);
    struct client late_server, late_client;
    struct opened served, joined;
    struct proto_ring_info info;
    char bytes[4096], found[4096];

    (void)state;
    client_join(&late_server, &broker, 3);
    client_join(&late_client, &broker, 4);
    assert_int_equal(client_open(&late_server, &request, &served), 0);
    const uint32_t channel = served.reply.channel;
    struct layout_ring *ring = &served.page->ring[0];
    order_store_release(&ring->producer.tail, 100); /* unread: the growth cannot finish */
    struct proto_ring_set set = {
        .channel = channel, .fields = PROTO_SET_SIZE, .size_bytes = 65536};
    assert_int_equal(ring_set(&set), 0);
    for (int waited_ms = 0;; pause_ms(1)) {
        read_ring_of(channel, 0, &info);
        if (info.size_bytes == 65536)
            break;
        assert_true(waited_ms++ < PATIENCE_MS);
    }
    request = open_request(3, 301, PROTO_OPEN_CLIENT);
    request.receive_max = 5000;
    assert_int_equal(client_open(&late_client, &request, &joined), 0);
    order_store_release(&ring->consumer.head, 100);
    await_size(channel, 4096, &info);
    assert_int_equal(info.max_bytes, 4096);

    const off_t behind = (off_t)(served.reply.data_offset + info.offset_bytes + info.size_bytes);
    memset(bytes, 'x', sizeof(bytes));
    assert_int_equal(pwrite(served.memory, bytes, sizeof(bytes), behind), sizeof(bytes));
    set = (struct proto_ring_set){.channel = channel,
                                  .fields = PROTO_SET_SIZE | PROTO_SET_MAX,
                                  .size_bytes = 32768,
                                  .max_bytes = 65535};
    assert_int_equal(ring_set(&set), 0);
    await_size(channel, 32768, &info);
    assert_int_equal(info.max_bytes, 61440);
    assert_int_equal(pread(served.memory, found, sizeof(found), behind), sizeof(found));
    assert_memory_equal(found, bytes, sizeof(bytes));
    opened_drop(&served);
    opened_drop(&joined);
    client_leave(&late_server);
    client_leave(&late_client);
}

static void maxima_of_a_server_are_whole_blocks_and_not_below_the_minimum(void **state)
{
    struct proto_channel_open request = open_request(4, 302, PROTO_OPEN_SERVER);
    struct client late_server;
    struct opened served;
    struct proto_ring_info info;

    (void)state;
    client_join(&late_server, &broker, 3);
    request.send_max = 100001;
    request.receive_min = 8192;
    request.receive_max = 1;
    assert_int_equal(client_open(&late_server, &request, &served), 0);
    read_ring_of(served.reply.channel, 0, &info);
    assert_int_equal(info.max_bytes, 98304);
    read_ring_of(served.reply.channel, 1, &info);
    assert_int_equal(info.max_bytes, 8192);
    opened_drop(&served);
    client_leave(&late_server);
}

static void limits_and_weight_can_be_set(void **state)
{
    const struct proto_ring_set request = {.channel = at_server.reply.channel,
                                           .incarnation = at_server.reply.incarnation,
                                           .fields = PROTO_SET_MIN | PROTO_SET_MAX |
                                                     PROTO_SET_WEIGHT,
                                           .min_bytes = 16384,
                                           .max_bytes = 1 << 20,
                                           .weight = 500};
    struct proto_ring_info info;

    (void)state;
    assert_int_equal(ring_set(&request), 0);
    read_ring(0, &info);
    assert_int_equal(info.min_bytes, 16384);
    assert_int_equal(info.max_bytes, 1 << 20);
    assert_int_equal(info.weight, 500);
}

static void rings_that_are_not_there_and_sizes_that_cannot_be_are_refused(void **state)
{
    struct proto_ring_set request = {
        .channel = 4000, .fields = PROTO_SET_SIZE, .size_bytes = 65536};
    struct proto_message message;

    (void)state;
    assert_int_equal(ring_set(&request), -ENOENT);
    assert_explained(&host, "there is no channel 4000");
    request.channel = at_server.reply.channel;
    request.incarnation = at_server.reply.incarnation + 1;
    assert_int_equal(ring_set(&request), -ENOENT);
    request.incarnation = 0;
    request.size_bytes = 2 << 20; /* above the maximum that was set */
    assert_int_equal(ring_set(&request), -EINVAL);
    request.fields = PROTO_SET_MIN;
    request.min_bytes = 4096; /* less than the server asked for */
    assert_int_equal(ring_set(&request), -EINVAL);
    request.fields = 0;
    assert_int_equal(ring_set(&request), -EINVAL);
    assert_int_equal(client_call(&server, PROTO_RING_SET, &request, sizeof(request), &message),
                     -EPERM);
}

static void no_room_for_a_resize_says_who_holds_the_memory(void **state)
{
    struct proto_channel_open request = open_request(4, 303, PROTO_OPEN_SERVER);
    struct proto_ring_set set = {.fields = PROTO_SET_SIZE, .size_bytes = 12 << 20};
    struct proto_domain_set quota = {.domain = 3, .quota_bytes = 8192};
    struct proto_message message;
    struct client late_server;
    struct opened served;

    (void)state;
    client_join(&late_server, &broker, 3);
    request.send_min = 4 << 20;
    assert_int_equal(client_open(&late_server, &request, &served), 0);
    set.channel = served.reply.channel;
    assert_int_equal(ring_set(&set), -ENOSPC);
    assert_explained(&host, "zone default has no room for a ring of 12M: ");
    assert_explained(&host, " in one piece; most is held by domain 3 4M, domain ");
    assert_int_equal(client_call(&host, PROTO_DOMAIN_SET, &quota, sizeof(quota), &message), 0);
    set.size_bytes = 5 << 20;
    assert_int_equal(ring_set(&set), -ENOSPC);
    assert_explained(&host, "domain 3 holds 4M of its quota of 8K, and a ring of 5M is wanted");
    quota.quota_bytes = 0;
    assert_int_equal(client_call(&host, PROTO_DOMAIN_SET, &quota, sizeof(quota), &message), 0);
    opened_drop(&served);
    client_leave(&late_server);
}

static void rebalance_answers_and_a_dry_run_leaves_no_trace(void **state)
{
    const struct proto_rebalance request = {.flags = PROTO_REBALANCE_DRY_RUN};
    const struct proto_list list = {.channel = PROTO_ANY};
    struct proto_message message;

    (void)state;
    assert_int_equal(client_call(&host, PROTO_LIST_HISTORY, &list, sizeof(list), &message), 0);
    const uint32_t before = ((const struct proto_list_reply *)BODY_OF(&message))->count;
    assert_true(before >= 1); /* the resize by command */
    assert_int_equal(client_call(&host, PROTO_REBALANCE, &request, sizeof(request), &message), 0);
    const struct proto_list_reply *reply = BODY_OF(&message);
    assert_int_equal(reply->item_bytes, sizeof(struct proto_decision));
    assert_int_equal(client_call(&host, PROTO_LIST_HISTORY, &list, sizeof(list), &message), 0);
    assert_int_equal(((const struct proto_list_reply *)BODY_OF(&message))->count, before);
}

static void who_asks_for_a_round_and_goes_disturbs_nobody(void **state)
{
    const struct proto_rebalance request = {0};
    struct proto_message message;
    struct client asker;

    (void)state;
    for (int i = 0; i < 50; i++) {
        client_join(&asker, &broker, 0);
        client_send(&asker, PROTO_REBALANCE, &request, sizeof(request));
        client_leave(&asker);
    }
    assert_int_equal(client_call(&host, PROTO_REBALANCE, &request, sizeof(request), &message), 0);
}

static void end_that_reports_pressure_and_doorbells_is_heard(void **state)
{
    const struct proto_event_ring event = {.ring = 1};
    struct proto_broker_info before, after;
    int waited_ms = 0;

    (void)state;
    broker_figures(&broker, &before);
    assert_int_equal(
        proto_send(client.socket, PROTO_EVENT_PRESSURE, 0, &event, sizeof(event), NULL, 0, NULL, 0),
        0);
    assert_int_equal(proto_send(client.socket, PROTO_EVENT_DOORBELLS, 0, &event, sizeof(event),
                                NULL, 0, NULL, 0),
                     0);
    do {
        broker_figures(&broker, &after);
        assert_true(waited_ms++ < PATIENCE_MS);
        pause_ms(1);
    } while (after.rounds == before.rounds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_ring_takes_the_size_that_is_set_and_gives_the_old_extent_back),
        cmocka_unit_test(odd_maximum_of_a_client_reaches_into_no_neighbour),
        cmocka_unit_test(maxima_of_a_server_are_whole_blocks_and_not_below_the_minimum),
        cmocka_unit_test(limits_and_weight_can_be_set),
        cmocka_unit_test(rings_that_are_not_there_and_sizes_that_cannot_be_are_refused),
        cmocka_unit_test(no_room_for_a_resize_says_who_holds_the_memory),
        cmocka_unit_test(rebalance_answers_and_a_dry_run_leaves_no_trace),
        cmocka_unit_test(who_asks_for_a_round_and_goes_disturbs_nobody),
        cmocka_unit_test(end_that_reports_pressure_and_doorbells_is_heard),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
