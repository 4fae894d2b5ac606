/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/policy_book.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define PERIOD_NS 100000000u
#define TURNS 4u
#define RINGS ((size_t)POLICY_BOOK_TURN * TURNS)

struct fixture {
    struct policy_book *book;
    struct policy_config config;
    struct policy_book_round round;
    uint64_t size_bytes[RINGS];
    struct ring_sample samples[RINGS];
    unsigned looks; /* of the last round */
    struct policy_decision decisions[64];
    size_t count;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    policy_config_init(&f->config);
    f->round = (struct policy_book_round){
        .now_ns = 1000000000,
        .total_bytes = 1024 * MIB,
        .free_bytes = 512 * MIB,
        .largest_free_bytes = 512 * MIB,
        .policy = policy_find("default"),
        .config = &f->config,
    };
    for (size_t i = 0; i < RINGS; i++)
        f->size_bytes[i] = 4 * KIB;
    assert_int_equal(policy_book_new(RINGS, &f->book), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    policy_book_free(f->book);
    free(f);
    return 0;
}

static void look(struct fixture *f, uint32_t number)
{
    const struct policy_look look = {
        .now_ns = f->round.now_ns,
        .opened_ns = 900000000,
        .incarnation = 1,
        .channel = number / 2,
        .ring = number % 2,
        .domain = 7,
        .weight = 100,
        .size_bytes = f->size_bytes[number],
        .min_bytes = 4 * KIB,
        .max_bytes = 16 * MIB,
        .regular = f->round.regular,
        .sample = f->samples[number],
    };

    policy_book_look(f->book, &f->round, number, &look);
    f->looks++;
}

/* `rings` of the numbers are there. */
static void run_round(struct fixture *f, size_t rings)
{
    const uint32_t *due;
    size_t first, end;

    f->looks = 0;
    f->round.now_ns += PERIOD_NS;
    f->round.regular = true;
    policy_book_begin(f->book, &f->round, &first, &end);
    size_t count = policy_book_due(f->book, &due);
    for (size_t i = 0; i < count; i++)
        look(f, due[i]);
    for (; first < end && first < rings; first++)
        if (!policy_book_is_listed(f->book, (uint32_t)first))
            look(f, (uint32_t)first);
    f->count = policy_book_plan(f->book, &f->round, f->decisions, 64);
}

static void run_rounds(struct fixture *f, size_t rings, unsigned rounds)
{
    while (rounds-- > 0)
        run_round(f, rings);
}

static void send(struct fixture *f, uint32_t number, uint64_t bytes)
{
    f->samples[number].sent_bytes += bytes;
    f->samples[number].received_bytes += bytes;
}

static void stall(struct fixture *f, uint32_t number)
{
    send(f, number, 64 * KIB);
    f->samples[number].stalled = true;
    f->samples[number].stalls++;
}

static void ring_at_its_floor_without_traffic_settles(void **state)
{
    struct fixture *f = *state;

    run_round(f, 10);
    assert_int_equal(policy_book_listed(f->book), 10);
    run_rounds(f, 10, 2);
    assert_int_equal(policy_book_listed(f->book), 0);
    assert_int_equal(policy_book_input(f->book)->ring_count, 0);
}

static void ring_above_its_floor_stays_until_it_has_shrunk(void **state)
{
    struct fixture *f = *state;

    f->size_bytes[3] = 64 * KIB;
    for (unsigned i = 0; i < 100; i++) {
        run_round(f, 10);
        if (f->count > 0)
            break;
        assert_true(policy_book_is_listed(f->book, 3));
    }
    assert_int_equal(f->count, 1);
    assert_int_equal(f->decisions[0].reason, POLICY_SURPLUS);
    assert_int_equal(policy_book_input_number(f->book, f->decisions[0].index), 3);
    f->size_bytes[3] = f->decisions[0].to_bytes;
    run_rounds(f, 10, 2);
    assert_int_equal(policy_book_listed(f->book), 0);
}

static void settled_ring_with_traffic_is_listed_again(void **state)
{
    struct fixture *f = *state;

    run_rounds(f, 10, 5);
    send(f, 4, 100);
    for (unsigned i = 0; i < TURNS && policy_book_listed(f->book) == 0; i++)
        run_round(f, 10);
    assert_int_equal(policy_book_listed(f->book), 1);
    assert_true(policy_book_is_listed(f->book, 4));
}

/* Rings that have not changed cost looks in their turn only. */
static void looks_are_as_many_as_rings_that_change(void **state)
{
    struct fixture *f = *state;

    run_rounds(f, RINGS, 20);
    assert_int_equal(policy_book_listed(f->book), 0);
    for (unsigned i = 0; i < 20; i++) {
        for (uint32_t number = 0; number < 10; number++)
            send(f, number * 100, 100);
        run_round(f, RINGS);
    }
    assert_int_equal(policy_book_listed(f->book), 10);
    assert_in_range(f->looks, 10, 10 + POLICY_BOOK_TURN);
}

static void every_ring_has_its_turn(void **state)
{
    struct fixture *f = *state;

    run_rounds(f, RINGS, 20);
    send(f, RINGS - 1, 100);
    send(f, RINGS / 2, 100);
    run_rounds(f, RINGS, TURNS);
    assert_true(policy_book_is_listed(f->book, RINGS - 1) ||
                policy_book_track(f->book, RINGS - 1)->ring.active_ns > 0);
    assert_true(policy_book_track(f->book, RINGS / 2)->ring.active_ns > 0);
}

/* Rates are those since it awoke, not since somebody looked last. */
static void rings_beyond_what_a_round_may_cost_take_turns(void **state)
{
    struct fixture *f = *state;
    bool seen = true;

    for (unsigned i = 0; i < 20; i++) {
        for (uint32_t number = 0; number < RINGS; number++)
            send(f, number, 100);
        run_round(f, RINGS);
        assert_in_range(policy_book_input(f->book)->ring_count, 0,
                        POLICY_BOOK_ROUND_MOST + POLICY_BOOK_TURN);
    }
    assert_int_equal(policy_book_listed(f->book), RINGS);
    assert_int_equal(policy_book_input(f->book)->ring_count, POLICY_BOOK_ROUND_MOST);
    for (uint32_t number = 0; number < RINGS; number++)
        seen &=
            policy_book_track(f->book, number)->ring.active_ns + 4 * PERIOD_NS > f->round.now_ns;
    assert_true(seen);
}

static void time_that_it_was_settled_does_not_count(void **state)
{
    struct fixture *f = *state;

    run_rounds(f, 10, 5);
    for (unsigned i = 0; i < 50; i++)
        run_round(f, 0); /* nobody looks */
    send(f, 4, 100 * KIB);
    for (unsigned i = 0; i < TURNS && policy_book_listed(f->book) == 0; i++)
        run_round(f, 10);
    const struct policy_ring *ring = &policy_book_track(f->book, 4)->ring;
    assert_int_equal(ring->sent_bytes, 100 * KIB);
    assert_int_equal(ring->interval_ns, PERIOD_NS);
}

static void pressure_is_answered_without_the_others(void **state)
{
    struct fixture *f = *state;
    size_t first, end;

    for (unsigned i = 0; i < 20; i++) {
        for (uint32_t number = 0; number < 1000; number++)
            send(f, number, 100);
        run_round(f, 1000);
    }
    f->round.now_ns += 10000000;
    f->round.regular = false;
    f->round.pressure = f->round.pressing = true;
    f->looks = 0;
    policy_book_begin(f->book, &f->round, &first, &end);
    assert_int_equal(first, end);
    stall(f, 70);
    look(f, 70);
    f->count = policy_book_plan(f->book, &f->round, f->decisions, 64);
    assert_int_equal(policy_book_input(f->book)->ring_count, 1);
    assert_int_equal(f->count, 1);
    assert_int_equal(policy_book_input_number(f->book, f->decisions[0].index), 70);
    assert_true(f->decisions[0].to_bytes > 4 * KIB);
}

static void static_policy_is_asked_about_all(void **state)
{
    struct fixture *f = *state;

    f->round.policy = policy_find("static");
    run_rounds(f, 10, 20);
    assert_int_equal(policy_book_listed(f->book), 10);
    f->round.pressing = true;
    policy_book_plan(f->book, &f->round, f->decisions, 64);
    assert_int_equal(policy_book_input(f->book)->ring_count, 10);
}

static void ring_that_has_gone_is_forgotten(void **state)
{
    struct fixture *f = *state;

    for (uint32_t number = 0; number < 10; number++)
        send(f, number, 100);
    run_rounds(f, 10, 1);
    policy_book_forget(f->book, 0);
    policy_book_forget(f->book, 9);
    policy_book_forget(f->book, 9);
    assert_int_equal(policy_book_listed(f->book), 8);
    for (size_t place = 0; place < 8; place++)
        assert_true(policy_book_is_listed(f->book, (uint32_t)place + 1));
    assert_int_equal(policy_book_track(f->book, 9)->ring.incarnation, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(ring_at_its_floor_without_traffic_settles),
        CASE(ring_above_its_floor_stays_until_it_has_shrunk),
        CASE(settled_ring_with_traffic_is_listed_again),
        CASE(looks_are_as_many_as_rings_that_change),
        CASE(every_ring_has_its_turn),
        CASE(rings_beyond_what_a_round_may_cost_take_turns),
        CASE(time_that_it_was_settled_does_not_count),
        CASE(pressure_is_answered_without_the_others),
        CASE(static_policy_is_asked_about_all),
        CASE(ring_that_has_gone_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
