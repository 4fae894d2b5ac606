/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long a ring's need is remembered while others want memory (policy_ring.recall).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "broker/policy_track.h"

#define KIB ((uint64_t)1 << 10)
#define MS 1000000ull

struct bench {
    struct policy_config config;
    struct policy_track track;
    struct policy_look look;
};

static void begin(struct bench *bench)
{
    memset(bench, 0, sizeof(*bench));
    policy_config_init(&bench->config);
    bench->look = (struct policy_look){.now_ns = 1000 * MS,
                                       .opened_ns = 1000 * MS,
                                       .incarnation = 1,
                                       .weight = 100,
                                       .size_bytes = 64 * KIB,
                                       .min_bytes = 4 * KIB,
                                       .max_bytes = 1024 * KIB,
                                       .regular = true};
}

/* So long, ten looks a second, with a ring of this size that holds so much at most. */
static void pass(struct bench *bench, uint64_t ms, uint64_t size_bytes, uint64_t held_bytes)
{
    for (uint64_t at_ms = 0; at_ms < ms; at_ms += 100) {
        bench->look.now_ns += 100 * MS;
        bench->look.size_bytes = size_bytes;
        bench->look.sample.high_water_bytes = held_bytes;
        policy_track_look(&bench->track, &bench->look, &bench->config);
    }
}

static void need_is_forgotten_soon_after_a_burst(void **state)
{
    (void)state;
    struct bench bench;

    begin(&bench);
    pass(&bench, 500, 512 * KIB, 500 * KIB);
    assert_int_equal(bench.track.ring.lately_bytes, 500 * KIB);
    pass(&bench, 400, 512 * KIB, 4 * KIB);
    assert_int_equal(bench.track.ring.lately_bytes, 4 * KIB);
}

static void ring_that_needs_again_what_it_gave_remembers_for_longer(void **state)
{
    (void)state;
    struct bench bench;

    begin(&bench);
    for (unsigned i = 0; i < 8; i++) {
        pass(&bench, 200, 256 * KIB, 250 * KIB);
        pass(&bench, 200, 16 * KIB, 4 * KIB);
    }
    assert_int_equal(bench.track.ring.recall, POLICY_RECALL_MAX);
    pass(&bench, 400, 256 * KIB, 250 * KIB);
    pass(&bench, 1500, 256 * KIB, 4 * KIB);
    assert_int_equal(bench.track.ring.lately_bytes, 250 * KIB);
}

/* Keeping the little that it gave would not have helped. */
static void burst_soon_after_a_small_loss_is_not_regretted(void **state)
{
    (void)state;
    struct bench bench;

    begin(&bench);
    for (unsigned i = 0; i < 8; i++) {
        pass(&bench, 200, 20 * KIB, 4 * KIB);
        pass(&bench, 100, 12 * KIB, 4 * KIB);
        pass(&bench, 400, 512 * KIB, 500 * KIB);
        pass(&bench, 3000, 12 * KIB, 4 * KIB);
    }
    assert_int_equal(bench.track.ring.recall, 0);
}

static void recall_goes_when_the_load_is_another(void **state)
{
    (void)state;
    struct bench bench;

    begin(&bench);
    for (unsigned i = 0; i < 8; i++) {
        pass(&bench, 200, 256 * KIB, 250 * KIB);
        pass(&bench, 200, 16 * KIB, 4 * KIB);
    }
    pass(&bench, 200000, 16 * KIB, 4 * KIB);
    assert_int_equal(bench.track.ring.recall, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(need_is_forgotten_soon_after_a_burst),
        cmocka_unit_test(ring_that_needs_again_what_it_gave_remembers_for_longer),
        cmocka_unit_test(burst_soon_after_a_small_loss_is_not_regretted),
        cmocka_unit_test(recall_goes_when_the_load_is_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
