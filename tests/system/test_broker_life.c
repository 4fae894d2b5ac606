/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deaths, listings, leaks and the end of the broker, by the raw protocol, against a real vchand. */
#include "tests/system/broker_fixture.h"

#define PAIRS 5000

static struct broker_process broker;

static int start(void **state)
{
    (void)state;
    broker_start(&broker, "[broker]\nregion-size = 64M\n[domain web]\nid = 7\nquota = 1M\n");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    broker_stop(&broker);
    return 0;
}

static void await_no_channels(struct proto_broker_info *info)
{
    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += 2) {
        broker_figures(&broker, info);
        if (info->channels == 0)
            return;
        pause_ms(2);
    }
    fail_msg("channels are left");
}

/* A process that opens a channel and then waits to be killed. */
static pid_t fork_end(uint32_t domain, uint32_t peer, uint32_t port, uint32_t mode)
{
    int said[2];
    char byte;

    assert_int_equal(pipe(said), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct client client;
        struct opened opened;
        client_join(&client, &broker, domain);
        if (client_open_mode(&client, peer, port, mode, &opened) == 0 &&
            write(said[1], "x", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    close(said[1]);
    assert_int_equal(read(said[0], &byte, 1), 1);
    close(said[0]);
    return pid;
}

static void killed_server_is_seen_by_its_client(void **state)
{
    struct proto_broker_info info;
    struct client client;
    struct opened opened;

    (void)state;
    pid_t pid = fork_end(1, 2, 200, PROTO_OPEN_SERVER);
    client_join(&client, &broker, 2);
    assert_int_equal(client_open_mode(&client, 1, 200, PROTO_OPEN_CLIENT, &opened), 0);
    kill(pid, SIGKILL);
    await_wake(opened.wait_fd);
    assert_int_equal(order_load_acquire(&opened.page->channel.gone), LAYOUT_GONE_SERVER);
    assert_int_equal(opened.page->ring[LAYOUT_SERVER_SENDS].producer_sleep.closed, 1);
    assert_int_equal(opened.page->ring[LAYOUT_CLIENT_SENDS].consumer_sleep.closed, 1);
    wait_exit(pid);
    opened_drop(&opened);
    client_leave(&client);
    await_no_channels(&info);
    assert_int_equal(info.free_bytes, info.data_bytes);
}

static void killed_client_is_seen_by_its_server_whose_port_stays_taken(void **state)
{
    struct proto_broker_info info;
    struct client server, second;
    struct opened opened, none;

    (void)state;
    client_join(&server, &broker, 1);
    client_join(&second, &broker, 1);
    assert_int_equal(client_open_mode(&server, 2, 201, PROTO_OPEN_SERVER, &opened), 0);
    pid_t pid = fork_end(2, 1, 201, PROTO_OPEN_CLIENT);
    await_wake(opened.wait_fd);
    kill(pid, SIGKILL);
    await_wake(opened.wait_fd);
    assert_int_equal(order_load_acquire(&opened.page->channel.gone), LAYOUT_GONE_CLIENT);
    assert_int_equal(client_open_mode(&second, 2, 201, PROTO_OPEN_SERVER, &none), -EADDRINUSE);
    wait_exit(pid);
    opened_drop(&opened);
    client_leave(&server);
    client_leave(&second);
    await_no_channels(&info);
}

static void port_of_a_killed_server_is_free_at_once(void **state)
{
    struct client server;
    struct opened opened;

    (void)state;
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork_end(1, 2, 202, PROTO_OPEN_SERVER);
        client_join(&server, &broker, 1);
        kill(pid, SIGKILL);
        wait_exit(pid);
        assert_int_equal(client_open_mode(&server, 2, 202, PROTO_OPEN_SERVER, &opened), 0);
        opened_drop(&opened);
        client_leave(&server);
    }
}

static void both_ends_killed_leave_nothing(void **state)
{
    struct proto_broker_info info;

    (void)state;
    pid_t server = fork_end(1, 2, 203, PROTO_OPEN_SERVER);
    pid_t client = fork_end(2, 1, 203, PROTO_OPEN_CLIENT);
    kill(server, SIGKILL);
    kill(client, SIGKILL);
    wait_exit(server);
    wait_exit(client);
    await_no_channels(&info);
    assert_int_equal(info.free_bytes, info.data_bytes);
}

static void broken_peer_ends_the_channel_with_a_reason_and_nobody_else_notices(void **state)
{
    const struct proto_event_broken event = {
        .ring = 1, .reason = -EPROTO, .text = "head runs ahead of tail\n"};
    struct client server, client, bystander;
    struct opened at_server, at_client, at_bystander;

    (void)state;
    client_join(&server, &broker, 1);
    client_join(&client, &broker, 2);
    client_join(&bystander, &broker, 1);
    assert_int_equal(client_open_mode(&bystander, 2, 205, PROTO_OPEN_SERVER, &at_bystander), 0);
    assert_int_equal(client_open_mode(&server, 2, 204, PROTO_OPEN_SERVER, &at_server), 0);
    assert_int_equal(client_open_mode(&client, 1, 204, PROTO_OPEN_CLIENT, &at_client), 0);
    await_wake(at_server.wait_fd);
    assert_int_equal(
        proto_send(server.socket, PROTO_EVENT_BROKEN, 0, &event, sizeof(event), NULL, 0, NULL, 0),
        0);
    await_wake(at_client.wait_fd);
    assert_int_equal(order_load_acquire(&at_client.page->channel.state), LAYOUT_CHANNEL_CLOSED);
    assert_int_equal(at_client.page->channel.reason, EPROTO);
    assert_true(
        log_has(&broker, "ring 1 is broken: head runs ahead of tail?; closing the channel"));
    assert_int_equal(at_bystander.page->channel.state, LAYOUT_CHANNEL_WAITING);
    opened_drop(&at_server);
    opened_drop(&at_client);
    opened_drop(&at_bystander);
    client_leave(&server);
    client_leave(&client);
    client_leave(&bystander);
}

/* All items of a listing, page by page; returns how many. */
static unsigned list_all(struct client *client, uint16_t id, uint32_t channel, void *items,
                         size_t item_bytes, unsigned max)
{
    struct proto_list request = {.channel = channel};
    struct proto_message message;
    unsigned count = 0;

    do {
        assert_int_equal(client_call(client, id, &request, sizeof(request), &message), 0);
        const struct proto_list_reply *reply = BODY_OF(&message);
        assert_int_equal(reply->item_bytes, item_bytes);
        assert_int_equal(message.header.size, sizeof(struct proto_error) + sizeof(*reply) +
                                                  reply->count * reply->item_bytes);
        assert_true(count + reply->count <= max);
        memcpy((uint8_t *)items + count * item_bytes, reply + 1, reply->count * item_bytes);
        count += reply->count;
        assert_true(reply->next == 0 || reply->next > request.cursor);
        request.cursor = reply->next;
    } while (request.cursor);
    return count;
}

#define CHANNELS 400

static void listings_are_whole_over_many_pages_and_show_strangers_only_their_own(void **state)
{
    static struct proto_channel_info channels[CHANNELS + 10];
    static struct proto_ring_info rings[2 * CHANNELS + 10];
    static struct proto_extent_info extents[4 * CHANNELS + 10];
    static struct client servers[CHANNELS];
    struct proto_domain_info domains[10];
    struct client asker, stranger;
    struct opened opened;
    uint64_t bytes = 0, next = 0;

    (void)state;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        client_join(&servers[i], &broker, 1);
        assert_int_equal(
            client_open_mode(&servers[i], i % 4 == 0 ? 3 : 2, 3000 + i, PROTO_OPEN_SERVER, &opened),
            0);
        opened_drop(&opened);
    }
    client_join(&asker, &broker, 0);
    client_join(&stranger, &broker, 3);
    assert_int_equal(list_all(&asker, PROTO_LIST_CHANNELS, PROTO_ANY, channels, sizeof(*channels),
                              CHANNELS + 10),
                     CHANNELS);
    for (unsigned i = 1; i < CHANNELS; i++)
        assert_true(channels[i].channel > channels[i - 1].channel);
    assert_int_equal(
        list_all(&asker, PROTO_LIST_RINGS, PROTO_ANY, rings, sizeof(*rings), 2 * CHANNELS + 10),
        2 * CHANNELS);
    assert_int_equal(rings[1].sender_domain, rings[0].receiver_domain);
    assert_int_equal(rings[0].size_bytes, 4096);
    assert_int_equal(
        list_all(&asker, PROTO_LIST_RINGS, channels[5].channel, rings, sizeof(*rings), 10), 2);
    assert_int_equal(list_all(&asker, PROTO_LIST_CHANNELS, 100000, channels, sizeof(*channels), 10),
                     0);
    unsigned count = list_all(&asker, PROTO_LIST_EXTENTS, PROTO_ANY, extents, sizeof(*extents),
                              4 * CHANNELS + 10);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(extents[i].offset_bytes, next);
        next += extents[i].size_bytes;
        bytes += extents[i].kind == PROTO_EXTENT_RING ? extents[i].size_bytes : 0;
    }
    assert_int_equal(bytes, 2 * CHANNELS * 4096);
    assert_int_equal(
        list_all(&stranger, PROTO_LIST_CHANNELS, PROTO_ANY, channels, sizeof(*channels), CHANNELS),
        CHANNELS / 4);
    assert_int_equal(list_all(&asker, PROTO_LIST_DOMAINS, PROTO_ANY, domains, sizeof(*domains), 10),
                     4);
    assert_int_equal(domains[1].domain, 1);
    assert_int_equal(domains[1].channels, CHANNELS);
    assert_int_equal(domains[1].bytes_held, CHANNELS * 4096);
    assert_string_equal(domains[3].name, "web");
    assert_int_equal(domains[3].state, PROTO_DOMAIN_CONFIGURED);
    assert_int_equal(domains[3].quota_bytes, 1 << 20);
    for (unsigned i = 0; i < CHANNELS; i++)
        client_leave(&servers[i]);
    client_leave(&asker);
    client_leave(&stranger);
}

static void quota_can_be_set_by_the_host(void **state)
{
    struct proto_domain_set set = {.domain = 9, .quota_bytes = 8192};
    struct proto_channel_open request = open_request(2, 206, PROTO_OPEN_SERVER);
    struct proto_message message;
    struct client host, server;
    struct opened opened;

    (void)state;
    client_join(&host, &broker, 0);
    client_join(&server, &broker, 9);
    assert_int_equal(client_call(&host, PROTO_DOMAIN_SET, &set, sizeof(set), &message), 0);
    request.send_min = 16384;
    assert_int_equal(client_open(&server, &request, &opened), -ENOSPC);
    assert_explained(&server, "domain 9 holds 0B of its quota of 8K, and a ring of 16K is wanted");
    set.quota_bytes = 4095; /* once meant no limit */
    assert_int_equal(client_call(&host, PROTO_DOMAIN_SET, &set, sizeof(set), &message), -EINVAL);
    assert_explained(&host, "a quota is in whole blocks of 4096 bytes, and 4095 bytes are not; 0 "
                            "is for no limit");
    set.quota_bytes = 4097;
    assert_int_equal(client_call(&host, PROTO_DOMAIN_SET, &set, sizeof(set), &message), -EINVAL);
    set.quota_bytes = 0;
    assert_int_equal(client_call(&host, PROTO_DOMAIN_SET, &set, sizeof(set), &message), 0);
    assert_int_equal(client_open(&server, &request, &opened), 0);
    set.domain = 999;
    assert_int_equal(client_call(&host, PROTO_DOMAIN_SET, &set, sizeof(set), &message), -ENOENT);
    opened_drop(&opened);
    client_leave(&host);
    client_leave(&server);
}

/* The broker frees what it closes after its reply: so a moment may pass. */
static void assert_descriptors_come_down_to(unsigned wanted)
{
    unsigned count = 0;

    for (int waited_ms = 0; waited_ms < 2000; waited_ms += 5) {
        count = count_descriptors(broker.pid);
        if (count <= wanted)
            return;
        pause_ms(5);
    }
    fail_msg("%u descriptors, there were %u", count, wanted);
}

static void thousands_of_opens_and_closes_leak_nothing(void **state)
{
    struct proto_broker_info before, after;
    struct client server, client;
    struct opened at_server, at_client;

    (void)state;
    await_no_channels(&before);
    const unsigned descriptors = count_descriptors(broker.pid);
    for (uint32_t i = 0; i < PAIRS; i++) {
        client_join(&server, &broker, i % 3);
        client_join(&client, &broker, i % 5);
        assert_int_equal(client_open_mode(&server, i % 5, i, PROTO_OPEN_SERVER, &at_server), 0);
        if (i % 7 > 0) {
            assert_int_equal(client_open_mode(&client, i % 3, i, PROTO_OPEN_CLIENT, &at_client), 0);
            opened_drop(&at_client);
        }
        if (i % 2)
            assert_int_equal(client_close(&server), 0);
        opened_drop(&at_server);
        client_leave(i % 4 ? &server : &client);
        client_leave(i % 4 ? &client : &server);
    }
    await_no_channels(&after);
    assert_int_equal(after.opens - before.opens, after.closes - before.closes);
    assert_true(after.opens - before.opens >= PAIRS);
    assert_int_equal(after.free_bytes, after.data_bytes);
    /* Pages go back to the host when no thread of the broker looks at them any more; the header
     * stays. */
    for (int waited_ms = 0; after.resident_bytes > LAYOUT_BLOCK_BYTES + 64 * LAYOUT_PEER_BYTES &&
                            waited_ms < PATIENCE_MS;
         waited_ms += 10) {
        pause_ms(10);
        broker_figures(&broker, &after);
    }
    assert_int_equal(after.resident_bytes, LAYOUT_BLOCK_BYTES + 64 * LAYOUT_PEER_BYTES);
    assert_int_equal(after.domains, before.domains);
    assert_descriptors_come_down_to(descriptors);
}

static void shutdown_tells_both_ends_and_leaves_the_page_readable(void **state)
{
    struct broker_process other;
    struct client server, client, waiter;
    struct opened at_server, at_client;
    const struct proto_channel_open request = open_request(1, 208, PROTO_OPEN_CLIENT);
    struct proto_message message;

    (void)state;
    broker_start(&other, NULL);
    client_join(&server, &other, 1);
    client_join(&client, &other, 2);
    client_join(&waiter, &other, 2);
    assert_int_equal(client_open_mode(&server, 2, 207, PROTO_OPEN_SERVER, &at_server), 0);
    assert_int_equal(client_open_mode(&client, 1, 207, PROTO_OPEN_CLIENT, &at_client), 0);
    await_wake(at_server.wait_fd);
    client_send(&waiter, PROTO_CHANNEL_OPEN, &request, sizeof(request));
    broker_stop(&other);
    await_wake(at_server.wait_fd);
    await_wake(at_client.wait_fd);
    assert_int_equal(at_client.page->channel.state, LAYOUT_CHANNEL_CLOSED);
    assert_int_equal(at_client.page->channel.gone, LAYOUT_GONE_SERVER | LAYOUT_GONE_CLIENT);
    assert_int_equal(at_client.page->channel.reason, 0);
    assert_int_equal(at_client.page->channel.port, 207);
    assert_int_equal(client_receive(&waiter, &message), 0);
    opened_drop(&at_server);
    opened_drop(&at_client);
    client_leave(&server);
    client_leave(&client);
    client_leave(&waiter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_server_is_seen_by_its_client),
        cmocka_unit_test(killed_client_is_seen_by_its_server_whose_port_stays_taken),
        cmocka_unit_test(port_of_a_killed_server_is_free_at_once),
        cmocka_unit_test(both_ends_killed_leave_nothing),
        cmocka_unit_test(broken_peer_ends_the_channel_with_a_reason_and_nobody_else_notices),
        cmocka_unit_test(listings_are_whole_over_many_pages_and_show_strangers_only_their_own),
        cmocka_unit_test(quota_can_be_set_by_the_host),
        cmocka_unit_test(thousands_of_opens_and_closes_leak_nothing),
        cmocka_unit_test(shutdown_tells_both_ends_and_leaves_the_page_readable),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
