/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registry of guests: numbers, eventfds, vectors; and what domains know of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/broker.h"
#include "ring/order.h"

#define VECTORS 4u
#define FULL 0xfffffffffffffffeull

static struct broker broker;
static struct zone *zones[2];

static int make(void **state)
{
    struct domain_set everybody;
    int r = 0;

    (void)state;
    rcu_register_thread();
    memset(&everybody, 0xff, sizeof(everybody));
    broker = (struct broker){.config = {.guest_vectors = VECTORS}};
    waitlist_init(&broker.waitlist);
    waitlist_init(&broker.waitlist);
    for (uint32_t i = 0; i < 2 && r == 0; i++)
        r = zone_new(i ? "two" : "one", i, i * 4, &everybody, 1 << 20, 4, 0, &zones[i]);
    if (r == 0)
        r = channels_init(&broker.channels, 8);
    if (r == 0)
        r = domains_init(&broker.domains);
    return r < 0 ? r : guests_init(&broker.guests, 2);
}

static int drop(void **state)
{
    (void)state;
    rcu_finish();
    guests_deinit(&broker.guests);
    domains_deinit(&broker.domains);
    channels_deinit(&broker.channels);
    for (uint32_t i = 0; i < 2; i++)
        zone_free(zones[i]);
    rcu_unregister_thread();
    return 0;
}

static struct guest *attach(uint32_t zone, uint32_t domain)
{
    struct guest *guest;

    assert_int_equal(guest_new(&broker, zones[zone], domain, 99, &guest), 0);
    return guest;
}

static bool is_rung(int event_fd)
{
    struct pollfd readable = {.fd = event_fd, .events = POLLIN};

    return poll(&readable, 1, 0) == 1;
}

static void guest_is_found_by_zone_domain_and_number(void **state)
{
    struct guest *guest = attach(0, 3);

    (void)state;
    assert_ptr_equal(guests_find(&broker.guests, zones[0], 3), guest);
    assert_null(guests_find(&broker.guests, zones[1], 3));
    assert_null(guests_find(&broker.guests, zones[0], 4));
    assert_ptr_equal(guests_find_domain(&broker.guests, 3), guest);
    assert_ptr_equal(guests_by_id(&broker.guests, zones[0], guest->id), guest);
    assert_int_equal(guest->id, 1);
    assert_int_equal(guest->vectors, VECTORS);
    assert_int_equal(guest->state, PROTO_GUEST_CONNECTED);
    assert_int_equal(broker.guests.count, 1);
    guest_free(guest);
    assert_null(guests_find(&broker.guests, zones[0], 3));
    assert_null(guests_by_id(&broker.guests, zones[0], 1));
    assert_int_equal(broker.guests.count, 0);
}

static void guests_are_listed_once_each(void **state)
{
    struct guest *guests[] = {attach(0, 3), attach(0, 4), attach(1, 3)};
    struct cds_lfht_iter iterator;
    unsigned seen = 0;

    (void)state;
    rcu_enter();
    for (struct guest *guest = guests_first(&broker.guests, &iterator); guest;
         guest = guests_next(&broker.guests, &iterator))
        for (unsigned i = 0; i < 3; i++)
            seen += guests[i] == guest ? 1u << (4 * i) : 0;
    rcu_leave();
    assert_int_equal(seen, 0x111);
    for (unsigned i = 0; i < 3; i++)
        guest_free(guests[i]);
}

static void domain_has_one_guest_in_a_zone(void **state)
{
    struct guest *guest = attach(0, 3), *second;

    (void)state;
    assert_int_equal(guest_new(&broker, zones[0], 3, 99, &second), -EBUSY);
    guest_free(attach(1, 3));
    guest_free(guest);
    guest_free(attach(0, 3));
}

static void domain_runs_while_a_guest_is_attached(void **state)
{
    const uint8_t uuid[16] = {0};

    (void)state;
    assert_int_equal(domains_configure(&broker.domains, 3, "web", uuid), 0);
    assert_int_equal(domains_check(&broker.domains, 3), -EHOSTDOWN);
    assert_false(domains_has_guest(&broker.domains, 3));
    struct guest *one = attach(0, 3), *two = attach(1, 3);
    assert_int_equal(domains_find(&broker.domains, 3)->guests, 2);
    guest_free(one);
    assert_int_equal(domains_check(&broker.domains, 3), 0);
    assert_true(domains_has_guest(&broker.domains, 3));
    guest_free(two);
    assert_int_equal(domains_check(&broker.domains, 3), -EHOSTDOWN);
    assert_false(domains_has_guest(&broker.domains, 3));
    /* One that nobody has configured goes with its guest. */
    guest_free(attach(0, 7));
    assert_null(domains_find(&broker.domains, 7));
}

static void number_rests_as_long_as_there_are_others(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 2; round++)
        for (uint32_t id = 1; id < REGION_PEERS; id++) {
            struct guest *guest = attach(0, 3);
            assert_int_equal(guest->id, id);
            guest_free(guest);
        }
    /* Two are taken, and the one that has rested longest is the next. */
    struct guest *first = attach(0, 3), *second = attach(0, 4);
    guest_free(first);
    struct guest *third = attach(0, 5);
    assert_int_equal(third->id, 3);
    guest_free(second);
    guest_free(third);
}

static void last_number_is_followed_by_none(void **state)
{
    struct guest *guests[REGION_PEERS - 1], *one_more;

    (void)state;
    for (uint32_t i = 0; i < REGION_PEERS - 1; i++)
        guests[i] = attach(0, 10 + i);
    assert_int_equal(guest_new(&broker, zones[0], 3, 99, &one_more), -ENOSPC);
    guest_free(attach(1, 3));
    guest_free(guests[20]);
    one_more = attach(0, 3);
    assert_int_equal(one_more->id, 21);
    guests[20] = one_more;
    for (uint32_t i = 0; i < REGION_PEERS - 1; i++)
        guest_free(guests[i]);
}

static void newcomer_finds_an_empty_entry_of_the_table_of_peers(void **state)
{
    struct layout_peer *peer = region_peer(&zones[0]->region, 1);

    (void)state;
    memset(peer, 0xa5, sizeof(*peer));
    struct guest *guest = attach(0, 3);
    assert_int_equal(peer->answered, 0);
    assert_int_equal(peer->request, 0);
    assert_int_equal(peer->domain, 3);
    assert_int_equal(peer->page_offset, 0);
    guest_free(guest);
}

static void vectors_between_wake_one_end_each_and_the_last_is_shared(void **state)
{
    struct guest *guest = attach(0, 3);
    struct guest_vector vectors[4];
    uint32_t doorbell;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(guest_vector_take(guest, false, NULL, &vectors[i], &doorbell), 0);
        uint32_t number = i < 2 ? i + 1 : 3;
        assert_int_equal(vectors[i].number, number);
        assert_int_equal(vectors[i].event_fd, guest->event[number]);
        assert_int_equal(doorbell, guest->id << 16 | number);
    }
    guest_vector_give(&vectors[0]);
    assert_null(vectors[0].guest);
    guest_vector_give(&vectors[0]); /* nothing */
    assert_int_equal(guest_vector_take(guest, false, NULL, &vectors[0], &doorbell), 0);
    assert_int_equal(vectors[0].number, 1);
    for (uint32_t i = 0; i < 4; i++)
        guest_vector_give(&vectors[i]);
    assert_int_equal(guest->vectors_used, 0);
    guest_free(guest);
}

static void hosts_ends_that_share_are_all_woken(void **state)
{
    struct guest *guest = attach(0, 3);
    struct guest_vector vectors[4];
    uint32_t doorbell;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(guest_vector_take(guest, true, NULL, &vectors[i], &doorbell), 0);
        assert_int_equal(doorbell, LAYOUT_PEER_HOST << 16 | (i < 2 ? i + 1 : 3));
    }
    assert_int_equal(vectors[0].event_fd, guest->host_event[1]);
    assert_int_not_equal(vectors[2].event_fd, guest->host_event[3]);
    assert_int_not_equal(vectors[2].event_fd, vectors[3].event_fd);
    guest_ring_shared(guest);
    assert_true(is_rung(vectors[2].event_fd) && is_rung(vectors[3].event_fd));
    assert_false(is_rung(vectors[0].event_fd) || is_rung(vectors[1].event_fd));
    guest_vector_give(&vectors[2]);
    guest_ring_shared(guest);
    for (uint32_t i = 0; i < 4; i++)
        guest_vector_give(&vectors[i]);
    assert_true(cds_list_empty(&guest->shared_ends));
    guest_free(guest);
}

static void vector_that_was_filled_up_is_emptied_for_its_next_owner(void **state)
{
    struct guest *guest = attach(0, 3);
    struct guest_vector vector;
    uint32_t doorbell;

    (void)state;
    assert_int_equal(fcntl(guest->host_event[1], F_SETFL, 0), 0);
    assert_int_equal(eventfd_write(guest->host_event[1], FULL), 0);
    assert_int_equal(guest_vector_take(guest, true, NULL, &vector, &doorbell), 0);
    assert_int_equal(vector.number, 1);
    assert_false(is_rung(vector.event_fd));
    guest_vector_give(&vector);
    guest_free(guest);
}

static void device_with_fewer_vectors_uses_no_more(void **state)
{
    struct guest *guest = attach(0, 3);
    struct guest_vector early, vectors[2];
    uint32_t doorbell;

    (void)state;
    assert_int_equal(guest_vector_take(guest, true, NULL, &early, &doorbell), 0);
    guest_use_vectors(guest, 100);
    assert_int_equal(guest->device_vectors, VECTORS);
    guest_use_vectors(guest, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(guest_vector_take(guest, i, NULL, &vectors[i], &doorbell), 0);
        assert_int_equal(vectors[i].number, 1);
        guest_vector_give(&vectors[i]);
    }
    guest_vector_give(&early);
    assert_int_equal(guest->host_vectors_used, 0);
    guest_use_vectors(guest, 1);
    assert_int_equal(guest_vector_take(guest, false, NULL, &early, &doorbell), 0);
    assert_int_equal(early.number, GUEST_VECTOR_MAILBOX);
    guest_vector_give(&early);
    guest_free(guest);
}

/* QEMU drops the eventfds of a peer that are more than its own device has vectors. */
static void vector_is_one_that_the_ringers_device_knows(void **state)
{
    struct guest *guest = attach(0, 3), *ringer = attach(0, 4);
    struct guest_vector vectors[3], none;
    uint32_t doorbell;

    (void)state;
    guest_use_vectors(ringer, 2);
    assert_int_equal(guest_vector_take(guest, false, ringer, &vectors[0], &doorbell), 0);
    assert_int_equal(vectors[0].number, 1);
    assert_int_equal(guest_vector_take(guest, false, ringer, &none, &doorbell), -ENOSR);
    assert_null(none.guest);
    assert_int_equal(guest_vector_take(guest, false, NULL, &vectors[1], &doorbell), 0);
    assert_int_equal(vectors[1].number, 2);
    ringer->flags = PROTO_AGENT_POLLS; /* it has said nothing about its device */
    assert_int_equal(guest_vector_take(guest, false, ringer, &vectors[2], &doorbell), 0);
    for (unsigned i = 0; i < 3; i++)
        guest_vector_give(&vectors[i]);
    guest_free(ringer);
    guest_free(guest);
}

static void ends_that_outlive_the_guest_can_be_woken(void **state)
{
    struct guest *guest = attach(0, 3);
    struct guest_vector own, shared, inside;
    uint32_t doorbell;

    (void)state;
    assert_int_equal(guest_vector_take(guest, true, NULL, &own, &doorbell), 0);
    assert_int_equal(guest_vector_take(guest, false, NULL, &inside, &doorbell), 0);
    guest_use_vectors(guest, 2);
    assert_int_equal(guest_vector_take(guest, true, NULL, &shared, &doorbell), 0);
    guest_free(guest);
    guest_free(attach(0, 3)); /* its descriptors would be the same numbers, were they closed */
    assert_true(doorbell_ring(&broker.channels.doorbell, own.event_fd) && is_rung(own.event_fd));
    assert_true(doorbell_ring(&broker.channels.doorbell, inside.event_fd));
    int borrowed = own.event_fd;
    guest_vector_give(&shared);
    guest_vector_give(&inside);
    assert_true(fcntl(borrowed, F_GETFD) >= 0);
    guest_vector_give(&own);
    assert_int_equal(fcntl(borrowed, F_GETFD), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(guest_is_found_by_zone_domain_and_number, make, drop),
        cmocka_unit_test_setup_teardown(guests_are_listed_once_each, make, drop),
        cmocka_unit_test_setup_teardown(domain_has_one_guest_in_a_zone, make, drop),
        cmocka_unit_test_setup_teardown(domain_runs_while_a_guest_is_attached, make, drop),
        cmocka_unit_test_setup_teardown(number_rests_as_long_as_there_are_others, make, drop),
        cmocka_unit_test_setup_teardown(last_number_is_followed_by_none, make, drop),
        cmocka_unit_test_setup_teardown(newcomer_finds_an_empty_entry_of_the_table_of_peers, make,
                                        drop),
        cmocka_unit_test_setup_teardown(vectors_between_wake_one_end_each_and_the_last_is_shared,
                                        make, drop),
        cmocka_unit_test_setup_teardown(hosts_ends_that_share_are_all_woken, make, drop),
        cmocka_unit_test_setup_teardown(vector_that_was_filled_up_is_emptied_for_its_next_owner,
                                        make, drop),
        cmocka_unit_test_setup_teardown(device_with_fewer_vectors_uses_no_more, make, drop),
        cmocka_unit_test_setup_teardown(vector_is_one_that_the_ringers_device_knows, make, drop),
        cmocka_unit_test_setup_teardown(ends_that_outlive_the_guest_can_be_woken, make, drop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
