/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Channels whose ends are in guests, against a real vchand: who is told what, who is woken by what,
 * and what becomes of them when a guest goes. The VM is played by tests/system/fake_guest.h.
 */
#include "tests/system/fake_guest.h"

static struct broker_process broker;
static struct fake_guest web, db;
static uint32_t next_port = 100;

static int start(void **state)
{
    (void)state;
    broker_start(&broker, FAKE_CONFIG);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    broker_stop(&broker);
    return 0;
}

/* How many channels there are, whoever's. */
static uint32_t channels(void)
{
    struct proto_broker_info info;

    broker_figures(&broker, &info);
    return info.channels;
}

static void await_no_channels(void)
{
    for (unsigned waited_ms = 0; channels() > 0; waited_ms += 5) {
        assert_true(waited_ms < PATIENCE_MS);
        pause_ms(5);
    }
}

static int boot_web(void **state)
{
    (void)state;
    fake_boot(&web, &broker, "web");
    return 0;
}

static int kill_web(void **state)
{
    (void)state;
    fake_detach(&web);
    await_no_channels();
    return 0;
}

static int boot_both(void **state)
{
    boot_web(state);
    fake_boot(&db, &broker, "db");
    fake_news(&web);
    return 0;
}

static int kill_both(void **state)
{
    fake_detach(&db);
    return kill_web(state);
}

/* A program on the host. */
struct host_end {
    struct client client;
    struct opened opened;
    struct fake_end end;
};

static void host_end_start(struct host_end *host)
{
    end_of_client(&host->end, &host->opened);
}

static void host_serve(struct host_end *host, uint32_t peer, uint32_t port)
{
    client_join(&host->client, &broker, 0);
    assert_int_equal(client_open_mode(&host->client, peer, port, PROTO_OPEN_SERVER, &host->opened),
                     0);
    host_end_start(host);
}

static void host_drop(struct host_end *host)
{
    client_leave(&host->client);
    end_stop(&host->end);
    opened_drop(&host->opened);
}

static void exchange(struct fake_end *a, struct fake_end *b)
{
    char text[16];

    for (unsigned i = 0; i < 50; i++) {
        end_send(a, "ping", 4);
        assert_int_equal(end_receive(b, text, sizeof(text)), 4);
        assert_memory_equal(text, "ping", 4);
        end_send(b, "pong!", 5);
        assert_int_equal(end_receive(a, text, sizeof(text)), 5);
        assert_memory_equal(text, "pong!", 5);
    }
}

/* The sleeper is woken by the other end's doorbell, and not by what it would find anyhow. */
static void assert_wakes(struct fake_end *sleeper, struct fake_end *waker)
{
    struct pollfd readable = {.fd = sleeper->wait_fd, .events = POLLIN};
    uint64_t count;
    char byte;

    while (poll(&readable, 1, 0) == 1)
        assert_int_equal(read(sleeper->wait_fd, &count, sizeof(count)), sizeof(count));
    assert_true(ring_consumer_arm(&sleeper->in, 1));
    end_send(waker, "!", 1);
    await_wake(sleeper->wait_fd);
    ring_consumer_disarm(&sleeper->in);
    assert_int_equal(end_receive(sleeper, &byte, 1), 1);
}

static void a_host_server_and_a_guest_exchange_data(void **state)
{
    struct fake_session session;
    struct fake_end guest_end;
    struct host_end host;

    (void)state;
    host_serve(&host, WEB, next_port);
    const struct layout_channel *line = &host.end.page->channel;
    assert_int_equal(line->fence_sleep, 1);
    assert_int_equal(line->server_doorbell >> 16, LAYOUT_PEER_HOST);
    assert_int_equal(line->client_doorbell >> 16, web.id);
    assert_int_equal(host.end.reply.vector, 0);
    session_join(&session, &web);
    assert_int_equal(session_open_channel(&session, 0, next_port++, PROTO_OPEN_CLIENT, &guest_end),
                     0);
    assert_int_equal(line->client_doorbell & 0xffff, guest_end.reply.vector);
    assert_int_equal(guest_end.reply.incarnation, host.end.reply.incarnation);
    assert_memory_equal(guest_end.reply.zone_uuid, fake_header(&web)->zone_uuid, 16);
    assert_int_equal(line->client_pid, 4000 + session.number);
    exchange(&host.end, &guest_end);
    assert_wakes(&host.end, &guest_end);
    assert_wakes(&guest_end, &host.end);
    end_stop(&guest_end);
    host_drop(&host);
}

static void a_guest_serves_a_host_client_that_waits(void **state)
{
    const struct proto_channel_open request = open_request(WEB, next_port, PROTO_OPEN_CLIENT);
    struct proto_message message;
    struct fake_session session;
    struct fake_end guest_end;
    struct host_end host;

    (void)state;
    client_join(&host.client, &broker, 0);
    client_send(&host.client, PROTO_CHANNEL_OPEN, &request, sizeof(request));
    assert_true(client_is_quiet(&host.client, 20));
    session_join(&session, &web);
    assert_int_equal(session_open_channel(&session, 0, next_port++, PROTO_OPEN_SERVER, &guest_end),
                     0);
    assert_int_equal(client_receive(&host.client, &message), 1);
    assert_int_equal(reply_error(&message), 0);
    opened_take(&host.opened, &message);
    host_end_start(&host);
    exchange(&guest_end, &host.end);
    assert_wakes(&host.end, &guest_end);
    assert_wakes(&guest_end, &host.end);
    end_stop(&guest_end);
    host_drop(&host);
}

static void two_guests_ring_each_other_directly(void **state)
{
    struct fake_session server, client;
    struct fake_end server_end, client_end;

    (void)state;
    session_join(&server, &web);
    session_join(&client, &db);
    assert_int_equal(session_open_channel(&server, DB, next_port, PROTO_OPEN_SERVER, &server_end),
                     0);
    assert_int_equal(server_end.doorbell >> 16, db.id);
    assert_int_equal(
        session_open_channel(&client, WEB, next_port++, PROTO_OPEN_CLIENT, &client_end), 0);
    assert_int_equal(client_end.doorbell >> 16, web.id);
    assert_int_equal(client_end.doorbell & 0xffff, server_end.reply.vector);
    exchange(&server_end, &client_end);
    assert_wakes(&server_end, &client_end);
    assert_wakes(&client_end, &server_end);
    end_stop(&server_end);
    end_stop(&client_end);
}

/* Whoever rings does so once; if its QEMU drops that, nobody else does. */
static void a_ring_that_qemu_dropped_as_it_did_not_know_the_peer_yet_is_made_up_for(void **state)
{
    struct fake_session server, client;
    struct fake_end server_end, client_end;
    struct pollfd rung = {.events = POLLIN};
    char text[8];

    (void)state;
    web.late = true;
    fake_boot(&db, &broker, "db");
    session_join(&server, &web);
    session_join(&client, &db);
    assert_int_equal(session_open_channel(&server, DB, next_port, PROTO_OPEN_SERVER, &server_end),
                     0);
    assert_int_equal(
        session_open_channel(&client, WEB, next_port++, PROTO_OPEN_CLIENT, &client_end), 0);
    assert_true(ring_consumer_arm(&client_end.in, 1));
    end_send(&server_end, "lost", 4);
    rung.fd = client_end.wait_fd;
    assert_int_equal(poll(&rung, 1, 200), 0); /* not while there is no use in it */
    web.late = false;
    fake_news(&web);
    await_wake(client_end.wait_fd);
    ring_consumer_disarm(&client_end.in);
    assert_int_equal(end_receive(&client_end, text, sizeof(text)), 4);
    end_stop(&server_end);
    end_stop(&client_end);
    fake_detach(&db);
}

static void who_cannot_be_rung_by_a_device_with_fewer_vectors_is_told_so(void **state)
{
    struct fake_session servers[2];
    struct fake_end end;
    struct proto_agent_hello_reply reply;
    char text[PROTO_TEXT_BYTES];

    (void)state;
    fake_attach(&db, &broker, "db", 4);
    fake_agent_connect(&db);
    fake_agent_hello(&db, 2, &reply);
    session_join(&servers[0], &web);
    session_join(&servers[1], &web);
    assert_int_equal(
        session_open_channel(&servers[0], DB, next_port++, PROTO_OPEN_SERVER, &end), 0);
    assert_int_equal(end.reply.vector, 1);
    end_stop(&end);
    assert_int_equal(
        session_open_channel(&servers[1], DB, next_port++, PROTO_OPEN_SERVER, &end), -ENOSPC);
    session_explanation(&servers[1], text);
    assert_non_null(strstr(text, "different numbers of vectors"));
    fake_detach(&db);
}

static void two_ends_can_be_in_one_guest(void **state)
{
    struct fake_session server, client;
    struct fake_end server_end, client_end;

    (void)state;
    session_join(&server, &web);
    session_join(&client, &web);
    assert_int_equal(session_open_channel(&server, WEB, next_port, PROTO_OPEN_SERVER, &server_end),
                     0);
    assert_int_equal(
        session_open_channel(&client, WEB, next_port++, PROTO_OPEN_CLIENT, &client_end), 0);
    assert_int_not_equal(server_end.reply.vector, client_end.reply.vector);
    exchange(&server_end, &client_end);
    end_stop(&server_end);
    end_stop(&client_end);
}

#define MANY 5u

/* Four vectors: the mailbox's, two of their own, and one for the rest. */
static void ends_share_a_vector_when_there_is_none_left(void **state)
{
    struct fake_session sessions[MANY];
    struct fake_end guest_ends[MANY];
    struct host_end hosts[MANY];
    uint32_t host_vectors = 0, guest_vectors = 0, shared = 0;

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        host_serve(&hosts[i], WEB, next_port);
        session_join(&sessions[i], &web);
        assert_int_equal(
            session_open_channel(&sessions[i], 0, next_port++, PROTO_OPEN_CLIENT, &guest_ends[i]),
            0);
        host_vectors |= 1u << (guest_ends[i].doorbell & 0xffff);
        guest_vectors |= 1u << guest_ends[i].reply.vector;
        shared += guest_ends[i].reply.vector == 3;
    }
    assert_int_equal(host_vectors, 1u << 1 | 1u << 2 | 1u << 3);
    assert_int_equal(guest_vectors, 1u << 1 | 1u << 2 | 1u << 3);
    assert_int_equal(shared, MANY - 2);
    for (unsigned i = 0; i < MANY; i++)
        assert_wakes(&hosts[i].end, &guest_ends[i]);
    /* One that goes gives its own vector back, though the other end is still there. */
    const uint32_t freed = guest_ends[0].reply.vector;
    struct host_end next;
    char byte;
    session_leave(&sessions[0]);
    end_stop(&guest_ends[0]);
    assert_int_equal(end_receive(&hosts[0].end, &byte, 1), 0);
    host_serve(&next, WEB, next_port);
    session_join(&sessions[0], &web);
    assert_int_equal(
        session_open_channel(&sessions[0], 0, next_port++, PROTO_OPEN_CLIENT, &guest_ends[0]), 0);
    assert_int_equal(guest_ends[0].reply.vector, freed);
    assert_wakes(&next.end, &guest_ends[0]);
    host_drop(&next);
    for (unsigned i = 0; i < MANY; i++) {
        end_stop(&guest_ends[i]);
        host_drop(&hosts[i]);
    }
}

/* What was sent, and then the end. */
static void assert_drains(struct fake_end *end, const char *sent)
{
    char text[64] = "";
    size_t n = 0, more;

    while ((more = end_receive(end, text + n, sizeof(text) - n)) > 0)
        n += more;
    assert_int_equal(n, strlen(sent));
    assert_memory_equal(text, sent, n);
}

static void a_host_end_reads_what_a_dead_guest_sent_and_then_the_end(void **state)
{
    struct fake_session session;
    struct fake_end guest_end;
    struct host_end host;

    (void)state;
    boot_web(state);
    host_serve(&host, WEB, next_port);
    session_join(&session, &web);
    assert_int_equal(session_open_channel(&session, 0, next_port++, PROTO_OPEN_CLIENT, &guest_end),
                     0);
    end_send(&guest_end, "last words", 10);
    end_stop(&guest_end);
    fake_detach(&web);
    assert_drains(&host.end, "last words");
    host_drop(&host);
    await_no_channels();
}

static void the_other_guest_reads_what_a_dead_guest_sent_and_then_the_end(void **state)
{
    struct fake_session server, client;
    struct fake_end server_end, client_end;

    boot_both(state);
    session_join(&server, &web);
    session_join(&client, &db);
    assert_int_equal(session_open_channel(&server, DB, next_port, PROTO_OPEN_SERVER, &server_end),
                     0);
    assert_int_equal(
        session_open_channel(&client, WEB, next_port++, PROTO_OPEN_CLIENT, &client_end), 0);
    end_send(&client_end, "bye", 3);
    end_stop(&client_end);
    fake_detach(&db);
    assert_drains(&server_end, "bye");
    end_stop(&server_end);
    kill_web(state);
}

static void an_agent_that_restarts_ends_its_programs_channels(void **state)
{
    struct proto_agent_hello_reply reply;
    struct fake_session session;
    struct fake_end guest_end;
    struct host_end host;

    (void)state;
    host_serve(&host, WEB, next_port);
    session_join(&session, &web);
    assert_int_equal(session_open_channel(&session, 0, next_port++, PROTO_OPEN_CLIENT, &guest_end),
                     0);
    end_send(&guest_end, "so far", 6);
    end_stop(&guest_end);
    fake_agent_connect(&web);
    assert_drains(&host.end, "so far");
    fake_agent_hello(&web, 4, &reply);
    host_drop(&host);
}

static void a_server_that_waits_for_a_guest_sees_it_go(void **state)
{
    struct host_end host;
    char byte;

    boot_web(state);
    host_serve(&host, WEB, next_port++);
    fake_detach(&web);
    assert_int_equal(end_receive(&host.end, &byte, 1), 0);
    assert_int_equal(host.end.page->channel.state, LAYOUT_CHANNEL_CLOSED);
    host_drop(&host);
    await_no_channels();
}

static void a_client_that_waits_for_a_guest_is_told_that_it_went(void **state)
{
    const struct proto_channel_open request = open_request(WEB, next_port++, PROTO_OPEN_CLIENT);
    struct proto_message message;
    struct client client;

    boot_web(state);
    client_join(&client, &broker, 0);
    client_send(&client, PROTO_CHANNEL_OPEN, &request, sizeof(request));
    assert_true(client_is_quiet(&client, 20));
    fake_detach(&web);
    assert_int_equal(client_receive(&client, &message), 1);
    assert_int_equal(reply_error(&message), -EHOSTDOWN);
    assert_explained(&client, "(web) does not run");
    /* It is as one that has not asked. */
    assert_int_equal(client_close(&client), -ENOTCONN);
    client_leave(&client);
}

static void nothing_is_opened_to_a_guest_without_an_agent(void **state)
{
    struct opened opened;
    struct client client;

    (void)state;
    client_join(&client, &broker, 0);
    assert_int_equal(client_open_mode(&client, WEB, 1, PROTO_OPEN_SERVER, &opened), -EHOSTDOWN);
    assert_explained(&client, "(web) does not run");
    fake_attach(&web, &broker, "web", 4);
    assert_int_equal(client_open_mode(&client, WEB, 1, PROTO_OPEN_SERVER, &opened), -EHOSTDOWN);
    assert_explained(&client, "no vchan-agent");
    fake_agent_connect(&web);
    assert_int_equal(client_open_mode(&client, WEB, 1, PROTO_OPEN_CLIENT, &opened), -EHOSTDOWN);
    fake_detach(&web);
    client_leave(&client);
}

static void a_vm_is_reached_in_a_zone_where_it_is_attached(void **state)
{
    static const char config[] =
        FAKE_CONFIG "[zone one]\nmembers = 20, 21\nregion-size = 64M\n"
                    "[zone default]\nmembers = 20, 21\nregion-size = 64M\n";
    struct broker_process two;
    struct fake_session session;
    struct fake_end guest_end;
    struct opened opened;
    struct client client;

    (void)state;
    broker_start(&two, config);
    fake_boot(&web, &two, "web");
    session_join(&session, &web);
    client_join(&client, &two, 0);
    assert_int_equal(client_open_mode(&client, WEB, 5, PROTO_OPEN_SERVER, &opened), 0);
    assert_memory_equal(opened.reply.zone_uuid, fake_header(&web)->zone_uuid, 16);
    assert_int_equal(session_open_channel(&session, 0, 5, PROTO_OPEN_CLIENT, &guest_end), 0);
    end_stop(&guest_end);
    opened_drop(&opened);
    client_leave(&client);
    fake_detach(&web);
    broker_stop(&two);
}

static void a_server_from_before_the_vm_is_passed_over(void **state)
{
    static const char config[] = "[guests]\nvectors = 4\n[domain web]\nid = 20\n";
    const struct proto_channel_open request = open_request(0, 9, PROTO_OPEN_CLIENT);
    struct proto_message message;
    struct broker_process lax;
    struct fake_session session;
    struct fake_end guest_end;
    struct client client, local;
    struct opened opened;

    (void)state;
    broker_start(&lax, config); /* 20 is local, too, while no VM has it */
    client_join(&local, &lax, WEB);
    client_join(&client, &lax, 0);
    assert_int_equal(client_open_mode(&client, WEB, 9, PROTO_OPEN_SERVER, &opened), 0);
    fake_boot(&web, &lax, "web");
    session_join(&session, &web);
    uint32_t seq = session_send(&session, PROTO_CHANNEL_OPEN, &request, sizeof(request));
    await_wake(opened.wait_fd);
    assert_int_equal(opened.page->channel.state, LAYOUT_CHANNEL_CLOSED);
    opened_drop(&opened);
    assert_int_equal(client_close(&client), 0);
    assert_int_equal(client_open_mode(&client, WEB, 9, PROTO_OPEN_SERVER, &opened), 0);
    assert_int_equal(session_await(&session, PROTO_CHANNEL_OPEN, seq, &message), 0);
    end_of_session(&guest_end, &web, &message);
    end_stop(&guest_end);
    opened_drop(&opened);
    /* Who played it goes on with what he has, but gets nothing new. */
    assert_int_equal(client_open_mode(&local, 0, 10, PROTO_OPEN_SERVER, &opened), -EPERM);
    assert_explained(&local, "has become a VM");
    client_leave(&local);
    client_leave(&client);
    fake_detach(&web);
    broker_stop(&lax);
}

static void channels_between_local_ends_need_no_guest(void **state)
{
    struct host_end host;

    (void)state;
    host_serve(&host, 3, next_port++);
    assert_int_equal(host.end.page->channel.server_doorbell, LAYOUT_NO_DOORBELL);
    assert_int_equal(host.end.page->channel.client_doorbell, LAYOUT_NO_DOORBELL);
    host_drop(&host);
    await_no_channels();
}

#define WITH(boot, kill, test) cmocka_unit_test_setup_teardown(test, boot, kill)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH(boot_web, kill_web, a_host_server_and_a_guest_exchange_data),
        WITH(boot_web, kill_web, a_guest_serves_a_host_client_that_waits),
        WITH(boot_both, kill_both, two_guests_ring_each_other_directly),
        WITH(boot_web, kill_web,
             a_ring_that_qemu_dropped_as_it_did_not_know_the_peer_yet_is_made_up_for),
        WITH(boot_web, kill_web, who_cannot_be_rung_by_a_device_with_fewer_vectors_is_told_so),
        WITH(boot_web, kill_web, two_ends_can_be_in_one_guest),
        WITH(boot_web, kill_web, ends_share_a_vector_when_there_is_none_left),
        cmocka_unit_test(a_host_end_reads_what_a_dead_guest_sent_and_then_the_end),
        cmocka_unit_test(the_other_guest_reads_what_a_dead_guest_sent_and_then_the_end),
        WITH(boot_web, kill_web, an_agent_that_restarts_ends_its_programs_channels),
        cmocka_unit_test(a_server_that_waits_for_a_guest_sees_it_go),
        cmocka_unit_test(a_client_that_waits_for_a_guest_is_told_that_it_went),
        cmocka_unit_test(nothing_is_opened_to_a_guest_without_an_agent),
        cmocka_unit_test(a_vm_is_reached_in_a_zone_where_it_is_attached),
        cmocka_unit_test(a_server_from_before_the_vm_is_passed_over),
        cmocka_unit_test(channels_between_local_ends_need_no_guest),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
