/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening and closing channels, by the raw protocol, against a real vchand. */
#include "tests/system/broker_fixture.h"

#define KIB 1024u
#define MIB (1024u * KIB)

static struct broker_process broker;

static int start(void **state)
{
    (void)state;
    broker_start(&broker, "[broker]\nregion-size = 16M\nchannels = 64\n[domain machine]\nid = 700\n"
                          "[domain poor]\nid = 20\nquota = 16K\n");
    return 0;
}

static int stop(void **state)
{
    (void)state;
    broker_stop(&broker);
    return 0;
}

/* Every test gives back what it took. */
static int nothing_is_left(void **state)
{
    struct proto_broker_info info;
    int waited_ms = 0;

    (void)state;
    do {
        pause_ms(2);
        broker_figures(&broker, &info);
    } while (info.channels > 0 && (waited_ms += 2) < PATIENCE_MS);
    assert_int_equal(info.channels, 0);
    assert_int_equal(info.free_bytes, info.data_bytes);
    return 0;
}

static void server_is_answered_at_once_and_waits(void **state)
{
    struct client server;
    struct opened opened;

    (void)state;
    client_join(&server, &broker, 1);
    assert_int_equal(client_open_mode(&server, 2, 100, PROTO_OPEN_SERVER, &opened), 0);
    assert_int_equal(opened.reply.role, PROTO_OPEN_SERVER);
    assert_int_equal(opened.reply.receive_min, 4096);
    assert_int_equal(opened.reply.send_min, 4096);
    assert_int_equal(opened.reply.region_bytes, 16 * MIB);
    assert_int_equal(opened.page->channel.state, LAYOUT_CHANNEL_WAITING);
    assert_int_equal(opened.page->channel.server_domain, 1);
    assert_int_equal(opened.page->channel.client_domain, 2);
    assert_int_equal(opened.page->channel.port, 100);
    assert_int_equal(opened.page->channel.server_pid, getpid());
    assert_int_equal(opened.page->channel.incarnation, opened.reply.incarnation);
    for (unsigned ring = 0; ring < 2; ring++) {
        const struct layout_geometry *geometry = &opened.page->ring[ring].geometry;
        assert_int_equal(geometry->generation, 1);
        assert_int_equal(geometry->extent[1].size, 4096);
        assert_true(geometry->extent[1].offset >= opened.reply.data_offset);
    }
    opened_drop(&opened);
    client_leave(&server);
}

static void memfd_is_sealed(void **state)
{
    struct client server;
    struct opened opened;

    (void)state;
    client_join(&server, &broker, 1);
    assert_int_equal(client_open_mode(&server, 2, 101, PROTO_OPEN_SERVER, &opened), 0);
    assert_int_equal(fcntl(opened.memory, F_GET_SEALS) &
                         (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
                     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    assert_int_equal(ftruncate(opened.memory, 0), -1);
    opened_drop(&opened);
    client_leave(&server);
}

static void minima_are_rounded_up_to_a_power_of_two_of_the_right_ring(void **state)
{
    struct proto_channel_open request = open_request(2, 102, PROTO_OPEN_SERVER);
    struct client server;
    struct opened opened;

    (void)state;
    client_join(&server, &broker, 1);
    request.receive_min = 5000;
    request.send_min = 65537;
    assert_int_equal(client_open(&server, &request, &opened), 0);
    assert_int_equal(opened.reply.receive_min, 8192);
    assert_int_equal(opened.reply.send_min, 131072);
    assert_int_equal(opened.page->ring[LAYOUT_SERVER_SENDS].geometry.extent[1].size, 131072);
    assert_int_equal(opened.page->ring[LAYOUT_CLIENT_SENDS].geometry.extent[1].size, 8192);
    opened_drop(&opened);
    client_leave(&server);
}

static void client_connects_to_a_waiting_server_and_they_can_wake_each_other(void **state)
{
    struct client server, client;
    struct opened at_server, at_client;

    (void)state;
    client_join(&server, &broker, 1);
    client_join(&client, &broker, 2);
    assert_int_equal(client_open_mode(&server, 2, 103, PROTO_OPEN_SERVER, &at_server), 0);
    assert_int_equal(client_open_mode(&client, 1, 103, PROTO_OPEN_CLIENT, &at_client), 0);
    assert_int_equal(at_client.reply.role, PROTO_OPEN_CLIENT);
    assert_int_equal(at_client.reply.channel, at_server.reply.channel);
    assert_int_equal(at_server.page->channel.state, LAYOUT_CHANNEL_CONNECTED);
    assert_int_equal(at_server.page->channel.client_pid, getpid());
    await_wake(at_server.wait_fd); /* by the broker: its client has come */
    const uint64_t one = 1;
    assert_int_equal(write(at_server.wake_fd, &one, sizeof(one)), sizeof(one));
    await_wake(at_client.wait_fd);
    assert_int_equal(write(at_client.wake_fd, &one, sizeof(one)), sizeof(one));
    await_wake(at_server.wait_fd);
    opened_drop(&at_server);
    opened_drop(&at_client);
    client_leave(&server);
    client_leave(&client);
}

static void one_process_may_hold_both_ends_of_one_domain(void **state)
{
    struct client server, client;
    struct opened at_server, at_client;

    (void)state;
    client_join(&server, &broker, 0);
    client_join(&client, &broker, 0);
    assert_int_equal(client_open_mode(&server, 0, 104, PROTO_OPEN_SERVER, &at_server), 0);
    assert_int_equal(client_open_mode(&client, 0, 104, PROTO_OPEN_CLIENT, &at_client), 0);
    assert_int_equal(at_server.page->channel.state, LAYOUT_CHANNEL_CONNECTED);
    opened_drop(&at_server);
    opened_drop(&at_client);
    client_leave(&server);
    client_leave(&client);
}

static void second_server_gets_eaddrinuse_whether_the_first_waits_or_is_connected(void **state)
{
    struct client server, client, second;
    struct opened at_server, at_client, at_second;

    (void)state;
    client_join(&server, &broker, 1);
    client_join(&client, &broker, 2);
    client_join(&second, &broker, 1);
    assert_int_equal(client_open_mode(&server, 2, 105, PROTO_OPEN_SERVER, &at_server), 0);
    assert_int_equal(client_open_mode(&second, 2, 105, PROTO_OPEN_SERVER, &at_second), -EADDRINUSE);
    assert_explained(&second, "port 105 for domain 2 is served by pid");
    assert_int_equal(client_open_mode(&client, 1, 105, PROTO_OPEN_CLIENT, &at_client), 0);
    assert_int_equal(client_open_mode(&second, 2, 105, PROTO_OPEN_SERVER, &at_second), -EADDRINUSE);
    opened_drop(&at_server);
    opened_drop(&at_client);
    client_leave(&server);
    client_leave(&client);
    client_leave(&second);
}

static void refusals_have_their_errno_and_a_sentence(void **state)
{
    struct proto_channel_open request = open_request(2, 106, PROTO_OPEN_CLIENT);
    struct client client;
    struct opened opened;

    (void)state;
    client_join(&client, &broker, 1);
    request.flags = PROTO_OPEN_NONBLOCK;
    assert_int_equal(client_open(&client, &request, &opened), -ENXIO);
    assert_explained(&client, "no server of domain 2 waits on port 106");
    assert_int_equal(client_open_mode(&client, 999, 106, PROTO_OPEN_SERVER, &opened), -ENOENT);
    assert_explained(&client, "there is no domain 999");
    assert_int_equal(client_open_mode(&client, 700, 106, PROTO_OPEN_CLIENT, &opened), -EHOSTDOWN);
    assert_explained(&client, "domain 700 (machine) does not run");
    assert_int_equal(client_close(&client), -ENOTCONN);
    assert_int_equal(client_open_mode(&client, 2, 106, PROTO_OPEN_SERVER, &opened), 0);
    opened_drop(&opened);
    assert_int_equal(client_open_mode(&client, 2, 107, PROTO_OPEN_SERVER, &opened), -EBUSY);
    client_leave(&client);
}

static void full_region_gives_enospc_and_names_the_holders(void **state)
{
    struct proto_channel_open request = open_request(2, 108, PROTO_OPEN_SERVER);
    struct client server, second;
    struct opened opened, none;

    (void)state;
    client_join(&server, &broker, 5);
    client_join(&second, &broker, 6);
    request.send_min = 8 * MIB;
    assert_int_equal(client_open(&server, &request, &opened), 0);
    assert_int_equal(client_open(&second, &request, &none), -ENOSPC);
    assert_explained(&second, "domain 5 8M");
    request.send_min = 1ull << 40;
    assert_int_equal(client_open(&second, &request, &none), -ENOSPC);
    request.send_min = UINT64_MAX;
    assert_int_equal(client_open(&second, &request, &none), -ENOSPC);
    opened_drop(&opened);
    client_leave(&server);
    client_leave(&second);
}

static void quota_is_the_senders_and_ends_in_enospc(void **state)
{
    struct proto_channel_open request = open_request(2, 109, PROTO_OPEN_SERVER);
    struct client server, other;
    struct opened opened, none;

    (void)state;
    client_join(&server, &broker, 20);
    client_join(&other, &broker, 3);
    request.send_min = 32 * KIB;
    assert_int_equal(client_open(&server, &request, &none), -ENOSPC);
    assert_explained(&server, "its quota of 16K");
    request.send_min = 0;
    request.receive_min = 64 * KIB; /* domain 2's to pay for */
    assert_int_equal(client_open(&server, &request, &opened), 0);
    request = open_request(20, 110, PROTO_OPEN_SERVER);
    request.receive_min = 16 * KIB; /* domain 20's: 4 KiB are in use */
    assert_int_equal(client_open(&other, &request, &none), -ENOSPC);
    opened_drop(&opened);
    client_leave(&server);
    client_leave(&other);
}

/* What the first of the two rings had for a moment is not what somebody holds. */
static void rings_that_only_together_do_not_fit_are_named_together(void **state)
{
    struct proto_channel_open request = open_request(2, 112, PROTO_OPEN_SERVER);
    struct client server, holder;
    struct opened opened, none;
    struct proto_broker_info info;
    char expected[PROTO_TEXT_BYTES];

    (void)state;
    client_join(&server, &broker, 1);
    client_join(&holder, &broker, 5);
    request.send_min = request.receive_min = 8 * MIB;
    assert_int_equal(client_open(&server, &request, &none), -ENOSPC);
    assert_explained(&server, "zone default has no room for rings of 8M and 8M: ");
    assert_explained(&server, "; most is held by nobody");
    request.port = 113;
    request.send_min = MIB;
    request.receive_min = 0;
    assert_int_equal(client_open(&holder, &request, &opened), 0);
    request.port = 112;
    request.send_min = request.receive_min = 8 * MIB;
    assert_int_equal(client_open(&server, &request, &none), -ENOSPC);
    broker_figures(&broker, &info);
    snprintf(expected, sizeof(expected),
             "zone default has no room for rings of 8M and 8M: %.1fM is free, at most %.1fM in one "
             "piece; most is held by domain 5 1M, domain 2 4K",
             (double)info.free_bytes / MIB, (double)info.largest_free_bytes / MIB);
    assert_explained(&server, expected);
    opened_drop(&opened);
    client_leave(&server);
    client_leave(&holder);
}

static void quota_that_two_rings_of_one_domain_exceed_names_both(void **state)
{
    struct proto_channel_open request = open_request(20, 114, PROTO_OPEN_SERVER);
    struct client server;
    struct opened none;

    (void)state;
    client_join(&server, &broker, 20);
    request.send_min = 16 * KIB;
    assert_int_equal(client_open(&server, &request, &none), -ENOSPC);
    assert_explained(&server,
                     "domain 20 holds 0B of its quota of 16K, and rings of 16K and 4K are wanted");
    request.peer_domain = 2;
    request.send_min = 32 * KIB;
    assert_int_equal(client_open(&server, &request, &none), -ENOSPC);
    assert_explained(&server,
                     "domain 20 holds 0B of its quota of 16K, and a ring of 32K is wanted");
    client_leave(&server);
}

static void channel_pages_run_out_with_enospc(void **state)
{
    struct client servers[65];
    struct opened opened;

    (void)state;
    for (uint32_t i = 0; i < 65; i++) {
        client_join(&servers[i], &broker, 1);
        int r = client_open_mode(&servers[i], 2, 2000 + i, PROTO_OPEN_SERVER, &opened);
        assert_int_equal(r, i < 64 ? 0 : -ENOSPC);
        if (r == 0)
            opened_drop(&opened);
    }
    assert_explained(&servers[64], "all 64 channels");
    for (unsigned i = 0; i < 65; i++)
        client_leave(&servers[i]);
}

/* Takes a deferred reply to an open. */
static void take_open(struct client *client, uint32_t seq, struct opened *opened)
{
    struct proto_message message;

    assert_int_equal(client_receive(client, &message), 1);
    assert_int_equal(message.header.id, PROTO_CHANNEL_OPEN);
    assert_int_equal(message.header.seq, seq);
    assert_int_equal(reply_error(&message), 0);
    opened_take(opened, &message);
}

static void clients_wait_for_servers_first_come_first_served(void **state)
{
    const struct proto_channel_open request = open_request(1, 111, PROTO_OPEN_CLIENT);
    struct client clients[3], server;
    struct opened at_server, at_client;
    uint32_t seqs[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        client_join(&clients[i], &broker, 2);
        seqs[i] = client_send(&clients[i], PROTO_CHANNEL_OPEN, &request, sizeof(request));
        assert_true(client_is_quiet(&clients[i], 20));
    }
    client_leave(&clients[1]); /* gives up: it is passed over */
    for (int i = 0; i < 3; i += 2) {
        client_join(&server, &broker, 1);
        assert_int_equal(client_open_mode(&server, 2, 111, PROTO_OPEN_SERVER, &at_server), 0);
        take_open(&clients[i], seqs[i], &at_client);
        assert_int_equal(at_client.reply.channel, at_server.reply.channel);
        assert_int_equal(at_server.page->channel.state, LAYOUT_CHANNEL_CONNECTED);
        if (i == 0)
            assert_true(client_is_quiet(&clients[2], 20));
        opened_drop(&at_server);
        opened_drop(&at_client);
        client_leave(&server);
        client_leave(&clients[i]);
    }
}

static void other_commands_are_answered_while_an_open_waits(void **state)
{
    const struct proto_channel_open request = open_request(1, 112, PROTO_OPEN_CLIENT);
    struct proto_message message;
    struct client client;

    (void)state;
    client_join(&client, &broker, 2);
    const uint32_t seq = client_send(&client, PROTO_CHANNEL_OPEN, &request, sizeof(request));
    assert_int_equal(client_call(&client, PROTO_BROKER_INFO, NULL, 0, &message), 0);
    const uint32_t close_seq = client_send(&client, PROTO_CHANNEL_CLOSE, NULL, 0);
    assert_int_equal(client_receive(&client, &message), 1);
    assert_int_equal(message.header.seq, seq);
    assert_int_equal(reply_error(&message), -ECANCELED);
    assert_int_equal(client_receive(&client, &message), 1);
    assert_int_equal(message.header.seq, close_seq);
    assert_int_equal(reply_error(&message), 0);
    client_leave(&client);
}

static void rendezvous_makes_the_first_a_server_and_the_second_its_client(void **state)
{
    struct client first, second;
    struct opened at_first, at_second;

    (void)state;
    for (uint32_t peer = 1; peer <= 2; peer++) { /* with another domain, and within one */
        client_join(&first, &broker, 1);
        client_join(&second, &broker, peer);
        assert_int_equal(client_open_mode(&first, peer, 113, PROTO_OPEN_RENDEZVOUS, &at_first), 0);
        assert_int_equal(at_first.reply.role, PROTO_OPEN_SERVER);
        assert_int_equal(client_open_mode(&second, 1, 113, PROTO_OPEN_RENDEZVOUS, &at_second), 0);
        assert_int_equal(at_second.reply.role, PROTO_OPEN_CLIENT);
        assert_int_equal(at_second.reply.channel, at_first.reply.channel);
        opened_drop(&at_first);
        opened_drop(&at_second);
        client_leave(&first);
        client_leave(&second);
        nothing_is_left(NULL);
    }
}

static void rendezvous_of_a_third_gets_eaddrinuse(void **state)
{
    struct client first, second;
    struct opened opened, none;

    (void)state;
    client_join(&first, &broker, 1);
    client_join(&second, &broker, 1);
    assert_int_equal(client_open_mode(&first, 2, 114, PROTO_OPEN_RENDEZVOUS, &opened), 0);
    assert_int_equal(client_open_mode(&second, 2, 114, PROTO_OPEN_RENDEZVOUS, &none), -EADDRINUSE);
    opened_drop(&opened);
    client_leave(&first);
    client_leave(&second);
}

static void rendezvous_serves_a_client_that_waits(void **state)
{
    const struct proto_channel_open request = open_request(1, 115, PROTO_OPEN_CLIENT);
    struct client client, comer;
    struct opened at_client, at_comer;

    (void)state;
    client_join(&client, &broker, 2);
    client_join(&comer, &broker, 1);
    const uint32_t seq = client_send(&client, PROTO_CHANNEL_OPEN, &request, sizeof(request));
    assert_true(client_is_quiet(&client, 20));
    assert_int_equal(client_open_mode(&comer, 2, 115, PROTO_OPEN_RENDEZVOUS, &at_comer), 0);
    assert_int_equal(at_comer.reply.role, PROTO_OPEN_SERVER);
    take_open(&client, seq, &at_client);
    assert_int_equal(at_comer.page->channel.state, LAYOUT_CHANNEL_CONNECTED);
    opened_drop(&at_client);
    opened_drop(&at_comer);
    client_leave(&client);
    client_leave(&comer);
}

static void port_can_be_served_anew_while_the_old_client_drains(void **state)
{
    struct client server, client, heir;
    struct opened at_server, at_client, at_heir;

    (void)state;
    client_join(&server, &broker, 1);
    client_join(&client, &broker, 2);
    client_join(&heir, &broker, 1);
    assert_int_equal(client_open_mode(&server, 2, 116, PROTO_OPEN_SERVER, &at_server), 0);
    assert_int_equal(client_open_mode(&client, 1, 116, PROTO_OPEN_CLIENT, &at_client), 0);
    assert_int_equal(client_close(&server), 0);
    assert_int_equal(order_load_acquire(&at_client.page->channel.gone), LAYOUT_GONE_SERVER);
    await_wake(at_client.wait_fd);
    assert_int_equal(at_client.page->ring[LAYOUT_SERVER_SENDS].producer_sleep.closed, 1);
    assert_int_equal(at_client.page->ring[LAYOUT_CLIENT_SENDS].consumer_sleep.closed, 1);
    assert_int_equal(at_client.page->ring[LAYOUT_SERVER_SENDS].consumer_sleep.closed, 0);
    assert_int_equal(client_open_mode(&heir, 2, 116, PROTO_OPEN_SERVER, &at_heir), 0);
    assert_int_not_equal(at_heir.reply.channel, at_client.reply.channel);
    assert_int_equal(at_client.page->channel.state, LAYOUT_CHANNEL_CONNECTED);
    opened_drop(&at_server);
    opened_drop(&at_client);
    opened_drop(&at_heir);
    client_leave(&server);
    client_leave(&client);
    client_leave(&heir);
}

static void waiting_server_that_closes_frees_the_channel(void **state)
{
    struct proto_broker_info info;
    struct client server;
    struct opened opened;

    (void)state;
    client_join(&server, &broker, 1);
    for (int i = 0; i < 3; i++) { /* a connection may open again after a close */
        assert_int_equal(client_open_mode(&server, 2, 117, PROTO_OPEN_SERVER, &opened), 0);
        opened_drop(&opened);
        assert_int_equal(client_close(&server), 0);
        broker_figures(&broker, &info);
        assert_int_equal(info.channels, 0);
    }
    client_leave(&server);
}

static void fence_is_on_unless_both_ends_register(void **state)
{
    const struct proto_hello registered = {.domain = 1, .flags = PROTO_HELLO_BARRIER};
    struct proto_message message;
    struct client server, client;
    struct opened opened, none;

    (void)state;
    client_connect(&server, &broker);
    assert_int_equal(client_version(&server), 0);
    assert_int_equal(client_call(&server, PROTO_HELLO, &registered, sizeof(registered), &message),
                     0);
    assert_int_equal(client_open_mode(&server, 2, 118, PROTO_OPEN_SERVER, &opened), 0);
    if (opened.page->channel.fence_sleep == 0) { /* the kernel may not have membarrier */
        client_join(&client, &broker, 2);
        assert_int_equal(client_open_mode(&client, 1, 118, PROTO_OPEN_CLIENT, &none), -EPERM);
        assert_explained(&client, "membarrier");
        client_leave(&client);
    }
    opened_drop(&opened);
    client_leave(&server);
    client_join(&server, &broker, 1);
    assert_int_equal(client_open_mode(&server, 2, 118, PROTO_OPEN_SERVER, &opened), 0);
    assert_int_equal(opened.page->channel.fence_sleep, 1);
    opened_drop(&opened);
    client_leave(&server);
}

static void domains_without_a_common_zone_get_eperm_and_numbers_are_unique(void **state)
{
    struct broker_process other;
    struct client one, two, host;
    struct opened at_one, at_two, none;

    (void)state;
    broker_start(&other, "[zone left]\nmembers = 1\nregion-size = 4M\nchannels = 16\n"
                         "[zone right]\nmembers = 2\nregion-size = 8M\nchannels = 16\n");
    client_join(&one, &other, 1);
    client_join(&two, &other, 2);
    client_join(&host, &other, 0);
    assert_int_equal(client_open_mode(&one, 2, 119, PROTO_OPEN_SERVER, &none), -EPERM);
    assert_explained(&one, "domains 1 and 2 have no zone in common");
    assert_int_equal(client_open_mode(&one, 0, 119, PROTO_OPEN_SERVER, &at_one), 0);
    assert_int_equal(client_open_mode(&two, 0, 119, PROTO_OPEN_SERVER, &at_two), 0);
    assert_int_equal(at_one.reply.region_bytes, 4 * MIB);
    assert_int_equal(at_two.reply.region_bytes, 8 * MIB);
    assert_int_not_equal(at_one.reply.channel, at_two.reply.channel);
    opened_drop(&at_one);
    opened_drop(&at_two);
    client_leave(&one);
    client_leave(&two);
    client_leave(&host);
    broker_stop(&other);
}

#define CASE(test) cmocka_unit_test_teardown(test, nothing_is_left)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(server_is_answered_at_once_and_waits),
        CASE(memfd_is_sealed),
        CASE(minima_are_rounded_up_to_a_power_of_two_of_the_right_ring),
        CASE(client_connects_to_a_waiting_server_and_they_can_wake_each_other),
        CASE(one_process_may_hold_both_ends_of_one_domain),
        CASE(second_server_gets_eaddrinuse_whether_the_first_waits_or_is_connected),
        CASE(refusals_have_their_errno_and_a_sentence),
        CASE(full_region_gives_enospc_and_names_the_holders),
        CASE(quota_is_the_senders_and_ends_in_enospc),
        CASE(rings_that_only_together_do_not_fit_are_named_together),
        CASE(quota_that_two_rings_of_one_domain_exceed_names_both),
        CASE(channel_pages_run_out_with_enospc),
        CASE(clients_wait_for_servers_first_come_first_served),
        CASE(other_commands_are_answered_while_an_open_waits),
        CASE(rendezvous_makes_the_first_a_server_and_the_second_its_client),
        CASE(rendezvous_of_a_third_gets_eaddrinuse),
        CASE(rendezvous_serves_a_client_that_waits),
        CASE(port_can_be_served_anew_while_the_old_client_drains),
        CASE(waiting_server_that_closes_frees_the_channel),
        CASE(fence_is_on_unless_both_ends_register),
        CASE(domains_without_a_common_zone_get_eperm_and_numbers_are_unique),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start, stop);
}
