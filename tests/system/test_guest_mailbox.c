/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest's mailbox and its sessions, against a real vchand: what an honest agent may rely on. The
 * VM is played by tests/system/fake_guest.h.
 */
#include "tests/system/fake_guest.h"

static struct broker_process broker;

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

/* One page of a list, as the host sees it. */
static unsigned list_items(uint16_t id, void *items, size_t item_bytes, unsigned max)
{
    const struct proto_list request = {.channel = PROTO_ANY};
    struct proto_message message;
    struct client client;

    client_join(&client, &broker, 0);
    assert_int_equal(client_call(&client, id, &request, sizeof(request), &message), 0);
    const struct proto_list_reply *reply = BODY_OF(&message);
    assert_int_equal(reply->item_bytes, item_bytes);
    assert_in_range(reply->count, 0, max);
    memcpy(items, reply + 1, reply->count * item_bytes);
    client_leave(&client);
    return reply->count;
}

static void an_agent_that_asks_gets_a_mailbox(void **state)
{
    struct proto_agent_hello_reply reply;
    struct proto_guest_info guests[4];
    struct fake_guest web;

    (void)state;
    fake_attach(&web, &broker, "web", 4);
    assert_int_equal(fake_peer(&web)->domain, WEB);
    assert_int_equal(list_items(PROTO_LIST_GUESTS, guests, sizeof(guests[0]), 4), 1);
    assert_int_equal(guests[0].state, PROTO_GUEST_CONNECTED);
    fake_agent_connect(&web);
    assert_int_equal(web.page->channel.state, LAYOUT_CHANNEL_CONNECTED);
    assert_int_equal(web.page->channel.incarnation, fake_peer(&web)->incarnation);
    assert_int_equal(web.page->channel.client_doorbell, web.id << 16);
    fake_agent_hello(&web, 3, &reply);
    assert_int_equal(reply.domain, WEB);
    assert_int_equal(reply.peer, web.id);
    assert_int_equal(reply.vectors, 3);
    assert_string_equal(reply.zone, "default");
    assert_int_equal(list_items(PROTO_LIST_GUESTS, guests, sizeof(guests[0]), 4), 1);
    assert_int_equal(guests[0].domain, WEB);
    assert_int_equal(guests[0].peer, web.id);
    assert_int_equal(guests[0].state, PROTO_GUEST_ATTACHED);
    assert_int_equal(guests[0].vectors, 3);
    assert_int_equal(guests[0].sessions, 1);
    assert_int_equal(guests[0].mailboxes, 1);
    assert_int_equal(guests[0].qemu_pid, getpid());
    assert_string_equal(guests[0].version, "fake");
    assert_string_equal(guests[0].zone_name, "default");
    fake_detach(&web);
    while (list_items(PROTO_LIST_GUESTS, guests, sizeof(guests[0]), 4) > 0)
        pause_ms(5);
}

static void listings_say_whose_a_mailbox_is(void **state)
{
    struct proto_extent_info extents[64];
    struct proto_domain_info domains[64];
    struct proto_broker_info before, after;
    struct fake_guest web;
    unsigned mailboxes = 0;

    (void)state;
    broker_figures(&broker, &before);
    fake_boot(&web, &broker, "web");
    unsigned count = list_items(PROTO_LIST_EXTENTS, extents, sizeof(extents[0]), 64);
    for (unsigned i = 0; i < count; i++)
        if (extents[i].kind == PROTO_EXTENT_MAILBOX) {
            mailboxes++;
            assert_int_equal(extents[i].owner_domain, WEB);
            assert_int_equal(extents[i].size_bytes, PROTO_MAILBOX_BYTES);
            assert_int_equal(extents[i].channel,
                             (fake_peer(&web)->page_offset - fake_header(&web)->control_offset) /
                                 LAYOUT_CHANNEL_PAGE_BYTES);
        }
    assert_int_equal(mailboxes, 2);
    count = list_items(PROTO_LIST_DOMAINS, domains, sizeof(domains[0]), 64);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(domains[i].guests, domains[i].domain == WEB);
        if (domains[i].domain == WEB)
            assert_int_equal(domains[i].state, PROTO_DOMAIN_RUNNING);
    }
    fake_detach(&web);
    do
        broker_figures(&broker, &after);
    while (after.free_bytes != before.free_bytes);
}

static void a_program_in_a_guest_is_of_that_domain_whatever_it_says(void **state)
{
    struct proto_hello_reply reply;
    struct fake_session session;
    struct fake_guest web;
    char why[PROTO_TEXT_BYTES];

    (void)state;
    fake_boot(&web, &broker, "web");
    session_open_number(&session, &web, 7);
    assert_int_equal(session_version(&session), 0);
    assert_int_equal(session_hello(&session, 3, &reply), -EPERM);
    session_explanation(&session, why);
    assert_non_null(strstr(why, "domain 20"));
    assert_int_equal(session_hello(&session, 0, &reply), 0);
    assert_int_equal(reply.domain, WEB);
    assert_string_equal(reply.name, "web");
    fake_detach(&web);
}

static void a_program_in_a_guest_administers_nothing(void **state)
{
    const struct proto_agent_hello agent = {.vectors = 4};
    const struct proto_list list = {.channel = PROTO_ANY};
    struct proto_message message;
    struct fake_session session;
    struct fake_guest web;

    (void)state;
    fake_boot(&web, &broker, "web");
    session_join(&session, &web);
    assert_int_equal(session_call(&session, PROTO_AGENT_HELLO, &agent, sizeof(agent), &message),
                     -EPERM);
    assert_int_equal(session_call(&session, PROTO_LIST_EXTENTS, &list, sizeof(list), &message),
                     -EPERM);
    assert_int_equal(session_call(&session, PROTO_LIST_GUESTS, &list, sizeof(list), &message),
                     -EPERM);
    assert_int_equal(session_call(&session, PROTO_LIST_CHANNELS, &list, sizeof(list), &message), 0);
    fake_detach(&web);
}

static void no_process_on_the_host_can_be_a_vm(void **state)
{
    struct fake_guest web;
    struct client client;

    (void)state;
    client_connect(&client, &broker);
    assert_int_equal(client_version(&client), 0);
    assert_int_equal(client_hello(&client, WEB), -EHOSTDOWN);
    fake_attach(&web, &broker, "web", 4);
    assert_int_equal(client_hello(&client, WEB), -EPERM);
    assert_explained(&client, "is a VM");
    client_leave(&client);
    fake_detach(&web);
}

#define SESSIONS 12u

static void sessions_do_not_mix(void **state)
{
    struct fake_session sessions[SESSIONS];
    struct proto_message message;
    uint32_t seqs[SESSIONS];
    struct fake_guest web;
    const struct proto_check known = {.id = PROTO_HELLO}, unknown = {.id = 1000};

    (void)state;
    fake_boot(&web, &broker, "web");
    for (unsigned i = 0; i < SESSIONS; i++)
        session_join(&sessions[i], &web);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < SESSIONS; i++)
            seqs[i] = session_send(&sessions[i], PROTO_CHECK_COMMAND, i % 2 ? &known : &unknown,
                                   sizeof(known));
        for (unsigned i = SESSIONS; i-- > 0;)
            assert_int_equal(session_await(&sessions[i], PROTO_CHECK_COMMAND, seqs[i], &message),
                             i % 2 ? 0 : -ENOSYS);
    }
    fake_detach(&web);
}

static void replies_that_the_ring_has_no_room_for_come_later(void **state)
{
    struct fake_session session;
    struct proto_message message;
    struct fake_guest web;
    uint32_t seqs[24];

    (void)state;
    fake_boot(&web, &broker, "web");
    session_join(&session, &web);
    for (unsigned i = 0; i < 24; i++) /* 4 KiB each: more than the ring holds */
        seqs[i] = session_send(&session, PROTO_EXPLAIN, NULL, 0);
    pause_ms(50);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(session_await(&session, PROTO_EXPLAIN, seqs[i], &message), 0);
    fake_detach(&web);
}

static void a_session_that_is_closed_can_be_opened_anew(void **state)
{
    struct proto_guest_info guests[4];
    struct proto_hello_reply reply;
    struct fake_session session;
    struct fake_guest web;

    (void)state;
    fake_boot(&web, &broker, "web");
    for (unsigned i = 0; i < 100; i++) {
        session_open_number(&session, &web, PROTO_SESSION_MAX);
        assert_int_equal(session_version(&session), 0);
        assert_int_equal(session_hello(&session, WEB, &reply), 0);
        session_leave(&session);
    }
    do
        assert_int_equal(list_items(PROTO_LIST_GUESTS, guests, sizeof(guests[0]), 4), 1);
    while (guests[0].sessions > 1);
    fake_detach(&web);
}

static void a_session_whose_client_misbehaves_is_closed_alone(void **state)
{
    struct proto_header wrong = {.id = PROTO_EXPLAIN, .seq = 1000};
    struct fake_session bad, good;
    struct proto_message message;
    struct fake_frame frame;
    struct fake_guest web;

    (void)state;
    fake_boot(&web, &broker, "web");
    session_join(&bad, &web);
    session_join(&good, &web);
    fake_send(&web, PROTO_FRAME_DATA, bad.number, &wrong, sizeof(wrong));
    fake_receive_of(&web, bad.number, &frame);
    assert_int_equal(frame.head.kind, PROTO_FRAME_CLOSE);
    /* What was on its way means nothing, and harms nobody. */
    fake_send(&web, PROTO_FRAME_DATA, bad.number, &wrong, sizeof(wrong));
    session_leave(&bad);
    assert_int_equal(session_call(&good, PROTO_EXPLAIN, NULL, 0, &message), 0);
    fake_detach(&web);
}

static void an_agent_that_asks_anew_has_no_session_left(void **state)
{
    struct proto_guest_info guests[4];
    struct proto_agent_hello_reply reply;
    struct fake_session session;
    struct fake_guest web;

    (void)state;
    fake_boot(&web, &broker, "web");
    for (unsigned i = 0; i < 5; i++)
        session_join(&session, &web);
    volatile uint32_t *state_word = &web.page->channel.state;
    assert_int_equal(*state_word, LAYOUT_CHANNEL_CONNECTED);
    fake_agent_connect(&web);
    assert_int_equal(list_items(PROTO_LIST_GUESTS, guests, sizeof(guests[0]), 4), 1);
    assert_int_equal(guests[0].state, PROTO_GUEST_CONNECTED);
    assert_int_equal(guests[0].sessions, 0);
    assert_int_equal(guests[0].mailboxes, 2);
    fake_agent_hello(&web, 4, &reply);
    session_join(&session, &web);
    fake_detach(&web);
}

static void a_closed_mailbox_ends_and_says_so(void **state)
{
    struct fake_session session;
    struct fake_guest web;

    (void)state;
    fake_boot(&web, &broker, "web");
    session_join(&session, &web);
    ring_producer_close(&web.to_broker);
    fake_ring_broker(&web);
    fake_await_no_mailbox(&web);
    assert_false(log_has(&broker, "mailbox is broken"));
    fake_agent_connect(&web);
    fake_detach(&web);
}

static void a_guest_has_so_many_sessions_and_no_more(void **state)
{
    struct broker_process small;
    struct fake_session session;
    struct fake_frame frame;
    struct fake_guest web;

    (void)state;
    broker_start(&small, "[broker]\nconnections = 64\n" FAKE_CONFIG);
    fake_boot(&web, &small, "web");
    for (unsigned i = 1; i < 16; i++)
        session_join(&session, &web);
    session_open_number(&session, &web, web.next_session);
    session_send(&session, PROTO_EXPLAIN, NULL, 0); /* one that is served would answer */
    fake_receive_of(&web, session.number, &frame);
    assert_int_equal(frame.head.kind, PROTO_FRAME_CLOSE);
    /* One goes, one may come. */
    session = (struct fake_session){.guest = &web, .number = 1};
    session_leave(&session);
    session_join(&session, &web);
    fake_detach(&web);
    broker_stop(&small);
}

/* All but the one that asks have gone. */
static void await_quiet(struct proto_broker_info *info)
{
    for (unsigned waited_ms = 0;; waited_ms += 5) {
        broker_figures(&broker, info);
        if (info->connections == 1)
            return;
        assert_true(waited_ms < PATIENCE_MS);
        pause_ms(5);
    }
}

static void guests_that_come_and_go_leave_nothing_behind(void **state)
{
    struct proto_broker_info before, after;
    struct fake_session session;
    struct fake_guest web;
    unsigned descriptors = 0;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        if (i == 2) {
            await_quiet(&before);
            descriptors = count_descriptors(broker.pid);
        }
        fake_boot(&web, &broker, "web");
        session_join(&session, &web);
        fake_detach(&web);
    }
    /* At once, and not when something else happens: a handshake takes CROWD_HANDSHAKE_MS. */
    for (unsigned waited_ms = 0; count_descriptors(broker.pid) > descriptors; waited_ms += 5) {
        assert_true(waited_ms < 2000);
        pause_ms(5);
    }
    await_quiet(&after);
    assert_int_equal(after.free_bytes, before.free_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_agent_that_asks_gets_a_mailbox),
        cmocka_unit_test(listings_say_whose_a_mailbox_is),
        cmocka_unit_test(a_program_in_a_guest_is_of_that_domain_whatever_it_says),
        cmocka_unit_test(a_program_in_a_guest_administers_nothing),
        cmocka_unit_test(no_process_on_the_host_can_be_a_vm),
        cmocka_unit_test(sessions_do_not_mix),
        cmocka_unit_test(replies_that_the_ring_has_no_room_for_come_later),
        cmocka_unit_test(a_session_that_is_closed_can_be_opened_anew),
        cmocka_unit_test(a_session_whose_client_misbehaves_is_closed_alone),
        cmocka_unit_test(an_agent_that_asks_anew_has_no_session_left),
        cmocka_unit_test(a_closed_mailbox_ends_and_says_so),
        cmocka_unit_test(a_guest_has_so_many_sessions_and_no_more),
        cmocka_unit_test(guests_that_come_and_go_leave_nothing_behind),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
