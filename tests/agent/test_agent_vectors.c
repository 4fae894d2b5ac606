/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who is woken by which interrupt. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "client/agent/vectors.h"
#include "tests/agent/agent_fixture.h"

struct fixture {
    struct fake fake;
    struct loop loop;
    struct ringer ringer;
    struct vectors vectors;
    struct vector end[3];
};

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    fake_new(&f.fake);
    fake_fill(&f.fake, &f.fake.device, true);
    for (unsigned i = 0; i < DEVICE_VECTORS_MAX; i++)
        f.fake.vector[i] = -1;
    assert_int_equal(loop_init(&f.loop), 0);
    assert_int_equal(ringer_init(&f.ringer), 0);
    vectors_init(&f.vectors, &f.fake.device, &f.loop, &f.ringer);
    *state = &f;
    return vectors_use(&f.vectors, FAKE_VECTORS);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++)
        vectors_give(&f->end[i]);
    vectors_deinit(&f->vectors);
    ringer_deinit(&f->ringer);
    loop_deinit(&f->loop);
    fake_free(&f->fake);
    return 0;
}

static bool is_rung(const struct vector *vector)
{
    struct pollfd readable = {.fd = vector->event_fd, .events = POLLIN};

    return poll(&readable, 1, 0) == 1;
}

static void an_end_with_a_vector_is_rung_by_it_alone(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vectors_take(&f->vectors, 1, &f->end[0]), 0);
    assert_int_equal(vectors_take(&f->vectors, 2, &f->end[1]), 0);
    fake_ring_vector(&f->fake, 1);
    settle(&f->loop);
    assert_true(is_rung(&f->end[0]));
    assert_false(is_rung(&f->end[1]));
}

static void a_vector_gets_a_fresh_eventfd_each_time(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vectors_take(&f->vectors, 1, &f->end[0]), 0);
    int kept = dup(f->end[0].event_fd); /* as a program may */
    vectors_give(&f->end[0]);
    assert_int_equal(f->fake.vector[1], -1);
    assert_int_equal(vectors_take(&f->vectors, 1, &f->end[0]), 0);
    fake_ring_vector(&f->fake, 1);
    struct pollfd readable = {.fd = kept, .events = POLLIN};
    assert_int_equal(poll(&readable, 1, 0), 0);
    assert_true(is_rung(&f->end[0]));
    close(kept);
}

static void the_last_one_rings_all_who_share_it(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(vectors_take(&f->vectors, FAKE_VECTORS - 1, &f->end[i]), 0);
    vectors_give(&f->end[1]);
    fake_ring_vector(&f->fake, FAKE_VECTORS - 1);
    settle(&f->loop);
    assert_true(is_rung(&f->end[0]));
    assert_true(is_rung(&f->end[2]));
}

static void numbers_that_are_no_ends_are_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vectors_take(&f->vectors, 0, &f->end[0]), -EINVAL);
    assert_int_equal(vectors_take(&f->vectors, FAKE_VECTORS, &f->end[0]), -EINVAL);
    assert_int_equal(vectors_take(&f->vectors, UINT32_MAX, &f->end[0]), -EINVAL);
}

static void a_vector_that_is_given_twice_is_the_later_ones(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vectors_take(&f->vectors, 1, &f->end[0]), 0);
    assert_int_equal(vectors_take(&f->vectors, 1, &f->end[1]), 0);
    vectors_give(&f->end[0]);
    fake_ring_vector(&f->fake, 1);
    assert_true(is_rung(&f->end[1]));
}

static void a_program_that_fills_its_eventfd_holds_up_nobody(void **state)
{
    const uint64_t all = UINT64_MAX - 1;
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(vectors_take(&f->vectors, FAKE_VECTORS - 1, &f->end[i]), 0);
    assert_int_equal(write(f->end[0].event_fd, &all, sizeof(all)), sizeof(all));
    /* O_NONBLOCK set again by the ringer: EAGAIN is "it is awake". */
    assert_int_equal(fcntl(f->end[0].event_fd, F_SETFL, O_RDWR), 0);
    fake_ring_vector(&f->fake, FAKE_VECTORS - 1);
    settle(&f->loop);
    assert_true(is_rung(&f->end[1]));
    assert_false(f->end[0].deaf);
}

static void fewer_vectors_may_be_in_use_than_there_are(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vectors_use(&f->vectors, 2), 0);
    assert_int_equal(f->fake.vector[FAKE_VECTORS - 1], -1);
    assert_int_equal(vectors_take(&f->vectors, 1, &f->end[0]), 0);
    assert_true(f->end[0].shared);
    fake_ring_vector(&f->fake, 1);
    settle(&f->loop);
    assert_true(is_rung(&f->end[0]));
    assert_int_equal(vectors_use(&f->vectors, 100), 0);
    assert_int_equal(f->vectors.count, FAKE_VECTORS);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_end_with_a_vector_is_rung_by_it_alone),
        CASE(a_vector_gets_a_fresh_eventfd_each_time),
        CASE(the_last_one_rings_all_who_share_it),
        CASE(numbers_that_are_no_ends_are_refused),
        CASE(a_vector_that_is_given_twice_is_the_later_ones),
        CASE(a_program_that_fills_its_eventfd_holds_up_nobody),
        CASE(fewer_vectors_may_be_in_use_than_there_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
