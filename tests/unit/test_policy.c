/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/policy_sim.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
/* Rounds in so many seconds. */
#define SECONDS(n) ((n)*10u)

static void stalled_producer_with_a_draining_reader_grows(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 100 * KIB, 100 * KIB);

    assert_true(sim_run(sim, SECONDS(3)));
    assert_true(ring->size_bytes >= 100 * KIB);
    uint64_t stalled = sim_stall_ns(sim, ring);
    assert_true(sim_run(sim, SECONDS(5)));
    assert_int_equal(sim_stall_ns(sim, ring), stalled);
    free(sim);
}

static void pressure_is_answered_before_the_period_is_over(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 100 * KIB, 10 * KIB);

    sim_tick(sim);
    sim_tick(sim);
    assert_true(sim_round(sim, false)); /* it is too young to change */
    for (unsigned i = 0; i < 30; i++)
        sim_tick(sim);
    assert_true(sim_round(sim, false));
    assert_true(ring->size_bytes > 4 * KIB);
    free(sim);
}

static void reader_that_does_not_read_gets_nothing(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 100 * KIB, 0);

    for (unsigned i = 0; i < SECONDS(2); i++) {
        assert_true(sim_run(sim, 1));
        if (sim_refused(sim, POLICY_NOT_READ))
            break;
    }
    assert_true(sim_refused(sim, POLICY_NOT_READ));
    assert_true(sim_run(sim, SECONDS(20)));
    assert_int_equal(ring->size_bytes, 4 * KIB);
    assert_int_equal(sim->moves, 0);
    free(sim);
}

static void memory_before_a_reader_that_stopped_is_taken_back(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 512 * KIB, 512 * KIB);

    assert_true(sim_run(sim, SECONDS(3)));
    uint64_t grown = ring->size_bytes;
    assert_true(grown >= 512 * KIB);
    ring->drained_bytes = 0;
    ring->offered_bytes = 10 * KIB; /* once: then it is busy elsewhere */
    sim_tick(sim);
    ring->offered_bytes = 0;
    ring->backlog_bytes = 0;
    ring->totals.stalled = false;
    ring->totals.received_bytes = ring->totals.sent_bytes - 10 * KIB;
    assert_true(sim_run(sim, SECONDS(3)));
    assert_int_equal(ring->size_bytes, 12 * KIB);
    free(sim);
}

static void idle_ring_decays_to_its_minimum(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 300 * KIB, 300 * KIB);

    ring->min_bytes = ring->size_bytes = 8 * KIB;
    assert_true(sim_run(sim, SECONDS(3)));
    assert_true(ring->size_bytes >= 300 * KIB);
    ring->offered_bytes = 0;
    assert_true(sim_run(sim, SECONDS(10)));
    assert_int_equal(ring->size_bytes, 8 * KIB);
    unsigned moves = sim->moves;
    assert_true(sim_run(sim, SECONDS(60)));
    assert_int_equal(sim->moves, moves);
    free(sim);
}

static void promise_is_a_floor(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 300 * KIB, 300 * KIB);

    assert_true(sim_run(sim, SECONDS(3)));
    ring->offered_bytes = 0;
    ring->promised_bytes = 50000;
    assert_true(sim_run(sim, SECONDS(10)));
    assert_int_equal(ring->size_bytes, 52 * KIB);
    free(sim);
}

static void ring_that_needs_little_gives_the_rest_back(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 600 * KIB, 600 * KIB);

    assert_true(sim_run(sim, SECONDS(3)));
    assert_true(ring->size_bytes >= 600 * KIB);
    ring->offered_bytes = ring->drained_bytes = 20 * KIB;
    assert_true(sim_run(sim, SECONDS(20)));
    assert_in_range(ring->size_bytes, 20 * KIB, 80 * KIB);
    assert_false(ring->totals.stalled);
    free(sim);
}

/* No move in the last four fifths of 1000 rounds. */
static void assert_settles(struct sim *sim)
{
    assert_true(sim_run(sim, 200));
    unsigned moves = sim->moves;
    assert_true(sim_run(sim, 800));
    assert_int_equal(sim->moves, moves);
}

static void constant_load_reaches_a_fixed_point(void **state)
{
    (void)state;
    struct sim *sim = sim_new(16 * MIB);

    for (uint64_t i = 1; i <= 20; i++)
        sim_add(sim, i * 16 * KIB, i * 20 * KIB);
    assert_settles(sim);
    free(sim);
}

static void overload_reaches_a_fixed_point(void **state)
{
    (void)state;
    struct sim *sim = sim_new(16 * MIB);

    for (uint64_t i = 1; i <= 20; i++)
        sim_add(sim, i * 100 * KIB, 50 * KIB);
    assert_settles(sim);
    free(sim);
}

static void full_region_reaches_a_fixed_point(void **state)
{
    (void)state;
    struct sim *sim = sim_new(4 * MIB);

    for (uint64_t i = 1; i <= 40; i++)
        sim_add(sim, 600 * KIB, 600 * KIB + i);
    for (uint64_t i = 1; i <= 20; i++)
        sim_add(sim, 10 * KIB, 10 * KIB);
    assert_settles(sim);
    free(sim);
}

static void busy_reader_gets_no_more_than_the_cache_holds(void **state)
{
    (void)state;
    struct sim *sim = sim_new(1024 * MIB);
    struct sim_ring *ring = sim_add(sim, 8 * MIB, 100 * KIB);

    assert_true(sim_run(sim, SECONDS(60)));
    assert_in_range(ring->size_bytes, 512 * KIB, sim->config.cache_bytes * 2);
    assert_int_equal(ring->totals.stalled, 1);
    free(sim);
}

static void slow_reader_gets_what_it_drains_in_the_horizon(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 1 * MIB, 100); /* 100 kB a second */

    assert_true(sim_run(sim, SECONDS(30)));
    assert_in_range(ring->size_bytes, 4 * KIB, 56 * KIB);
    free(sim);
}

static void bursts_find_room_beyond_the_cache(void **state)
{
    (void)state;
    struct sim *sim = sim_new(256 * MIB);
    struct sim_ring *ring = sim_add(sim, 400 * KIB, 100 * KIB);

    ring->on_ticks = 20; /* 8 MB at once, drained in 80 ms, every 500 ms */
    ring->off_ticks = 480;
    assert_true(sim_run(sim, SECONDS(30)));
    assert_true(ring->size_bytes >= 5 * MIB);
    uint64_t stalled = sim_stall_ns(sim, ring);
    assert_true(sim_run(sim, SECONDS(10)));
    assert_int_equal(sim_stall_ns(sim, ring), stalled);
    free(sim);
}

static void bursty_load_does_not_thrash(void **state)
{
    (void)state;
    const uint64_t gaps_ms[] = {50, 200, 900, 2500, 4000, 9000};

    for (size_t i = 0; i < sizeof(gaps_ms) / sizeof(gaps_ms[0]); i++) {
        struct sim *sim = sim_new(64 * MIB);
        struct sim_ring *ring = sim_add(sim, 200 * KIB, 50 * KIB);
        ring->on_ticks = 10;
        ring->off_ticks = gaps_ms[i];
        assert_true(sim_run(sim, SECONDS(100)));
        unsigned moves = sim->moves;
        assert_true(sim_run(sim, SECONDS(200)));
        /* Patience is forgotten in time, so now and then it is found out anew; but not with every
         * burst. */
        assert_in_range(sim->moves - moves, 0, 4);
        free(sim);
    }
}

static void maximum_holds_and_is_told(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 500 * KIB, 500 * KIB);
    bool told = false;

    ring->max_bytes = 64 * KIB;
    for (unsigned i = 0; i < SECONDS(10); i++) {
        assert_true(sim_run(sim, 1));
        told |= sim_refused(sim, POLICY_AT_MAX);
    }
    assert_int_equal(ring->size_bytes, 64 * KIB);
    assert_true(told);
    free(sim);
}

static void quota_holds_and_is_told(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    bool told = false;

    sim->domain_count = 2;
    sim->domains[1].quota_bytes = 256 * KIB;
    for (unsigned i = 0; i < 4; i++)
        sim_add(sim, 500 * KIB, 500 * KIB)->domain = 1;
    struct sim_ring *other = sim_add(sim, 500 * KIB, 500 * KIB);
    for (unsigned i = 0; i < SECONDS(10); i++) {
        assert_true(sim_run(sim, 1));
        assert_in_range(sim_used(sim) - other->size_bytes, 0, 256 * KIB);
        told |= sim_refused(sim, POLICY_AT_QUOTA);
    }
    assert_true(told);
    assert_true(other->size_bytes >= 500 * KIB);
    free(sim);
}

static void weights_divide_what_is_short(void **state)
{
    (void)state;
    struct sim *sim = sim_new(4 * MIB);
    struct sim_ring *light = NULL, *heavy = NULL;

    for (unsigned i = 0; i < 5; i++) {
        light = sim_add(sim, 2 * MIB, 2 * MIB);
        heavy = sim_add(sim, 2 * MIB, 2 * MIB);
        heavy->weight = 300;
    }
    assert_true(sim_run(sim, SECONDS(30)));
    assert_in_range(heavy->size_bytes, light->size_bytes * 2, light->size_bytes * 4);
    free(sim);
}

static void equals_get_equal(void **state)
{
    (void)state;
    struct sim *sim = sim_new(8 * MIB);

    for (unsigned i = 0; i < 10; i++)
        sim_add(sim, 4 * MIB, 4 * MIB);
    assert_true(sim_run(sim, SECONDS(30)));
    for (unsigned i = 1; i < 10; i++)
        assert_in_range(sim->rings[i].size_bytes, sim->rings[0].size_bytes * 3 / 4,
                        sim->rings[0].size_bytes * 5 / 4);
    assert_true(sim_used(sim) > sim->total_bytes * 3 / 4);
    free(sim);
}

static void late_equal_gets_as_much_as_those_before(void **state)
{
    (void)state;
    struct sim *sim = sim_new(8 * MIB);

    for (unsigned i = 0; i < 4; i++)
        sim_add(sim, 4 * MIB, 4 * MIB);
    assert_true(sim_run(sim, SECONDS(30)));
    struct sim_ring *late = sim_add(sim, 4 * MIB, 4 * MIB);
    assert_true(sim_run(sim, SECONDS(30)));
    assert_in_range(late->size_bytes, sim->rings[0].size_bytes * 3 / 5,
                    sim->rings[0].size_bytes * 5 / 4);
    free(sim);
}

static void full_region_takes_from_those_that_need_less(void **state)
{
    (void)state;
    struct sim *sim = sim_new(16 * MIB);
    struct sim_ring *rich[6];

    /* Large, in use a little, and patient: no time limit would take it from them soon. */
    sim->config.calm_ms = sim->config.idle_ms = 3600000;
    for (unsigned i = 0; i < 6; i++) {
        rich[i] = sim_add(sim, 8 * KIB, 8 * KIB);
        rich[i]->size_bytes = 5 * MIB / 2;
    }
    assert_true(sim_run(sim, SECONDS(5)));
    assert_int_equal(sim->moves, 0);
    struct sim_ring *poor = sim_add(sim, 2 * MIB, 2 * MIB);
    assert_true(sim_run(sim, SECONDS(10)));
    assert_true(poor->size_bytes >= 2 * MIB);
    assert_true(sim_run(sim, SECONDS(10)));
    for (unsigned i = 0; i < 6; i++)
        assert_false(rich[i]->totals.stalled);
    free(sim);
}

static void ring_does_not_shrink_within_its_dwell(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 300 * KIB, 300 * KIB);

    sim->config.dwell_ms = 20000;
    assert_true(sim_run(sim, SECONDS(2)));
    uint64_t grown = ring->size_bytes;
    assert_true(grown >= 300 * KIB);
    ring->offered_bytes = 0;
    assert_true(sim_run(sim, SECONDS(17)));
    assert_int_equal(ring->size_bytes, grown);
    assert_true(sim_run(sim, SECONDS(5)));
    assert_int_equal(ring->size_bytes, 4 * KIB);
    free(sim);
}

static void growth_after_a_shrink_waits_for_the_dwell_and_says_so(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 300 * KIB, 300 * KIB);

    sim->config.dwell_ms = 2000;
    assert_true(sim_run(sim, SECONDS(2)));
    ring->offered_bytes = 0;
    unsigned moves = sim->moves;
    while (sim->moves == moves)
        assert_true(sim_run(sim, 1));
    ring->offered_bytes = 300 * KIB;
    uint64_t shrunk = ring->size_bytes;
    assert_true(sim_run(sim, 1));
    assert_true(sim_refused(sim, POLICY_DWELLS));
    assert_true(sim_run(sim, SECONDS(1)));
    assert_int_equal(ring->size_bytes, shrunk);
    assert_true(sim_run(sim, SECONDS(3)));
    assert_true(ring->size_bytes > shrunk);
    free(sim);
}

static void moving_ring_is_left_alone(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 300 * KIB, 300 * KIB);

    for (unsigned i = 0; i < 50; i++)
        sim_tick(sim);
    sim_look(sim, 0, true);
    ring->track.ring.moving = true;
    struct policy_scratch scratch;
    uint64_t domain_scratch;
    struct policy_input input = {
        .now_ns = sim->now_ns,
        .total_bytes = sim->total_bytes,
        .free_bytes = sim->total_bytes - 8 * KIB,
        .largest_free_bytes = sim->total_bytes - 8 * KIB,
        .rings = (const struct policy_ring *const[]){&ring->track.ring},
        .ring_count = 1,
        .domains = sim->domains,
        .domain_count = 1,
        .scratch = &scratch,
        .domain_scratch = &domain_scratch,
    };
    assert_int_equal(policy_default_plan(&input, &sim->config, sim->decisions, SIM_DECISIONS_MAX),
                     0);
    ring->track.ring.moving = false;
    assert_int_equal(policy_default_plan(&input, &sim->config, sim->decisions, SIM_DECISIONS_MAX),
                     1);
    free(sim);
}

static void refusal_is_told_once(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct sim_ring *ring = sim_add(sim, 500 * KIB, 500 * KIB);
    unsigned told = 0;

    ring->max_bytes = 64 * KIB;
    for (unsigned i = 0; i < SECONDS(50); i++) {
        assert_true(sim_run(sim, 1));
        told += sim_refused(sim, POLICY_AT_MAX);
    }
    assert_int_equal(told, 1);
    free(sim);
}

/* Hostile ends write what they like into their counters. */
static void nonsense_in_counters_keeps_plans_within_bounds(void **state)
{
    (void)state;
    struct sim *sim = sim_new(16 * MIB);
    uint64_t random = 88172645463325252u;

    for (unsigned i = 0; i < 16; i++)
        sim_add(sim, 0, 0)->max_bytes = 1 * MIB;
    for (unsigned round = 0; round < 2000; round++) {
        for (unsigned i = 0; i < 16; i++) {
            uint64_t *words = (uint64_t *)&sim->rings[i].totals;
            for (size_t word = 0; word < offsetof(struct ring_sample, stalled) / sizeof(*words);
                 word++) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                words[word] = random >> (random & 63);
            }
            sim->rings[i].totals.stalled = random & 1;
            sim->rings[i].totals.held_bytes =
                random % 3 ? 0 : sim->rings[i].totals.held_bytes % (1 * MIB);
        }
        sim->now_ns += 100000000u;
        assert_true(sim_round(sim, random & 2));
    }
    free(sim);
}

static void a_hundred_thousand_rings(void **state)
{
    (void)state;
    const size_t count = 100000;
    struct policy_ring *rings = calloc(count, sizeof(*rings));
    const struct policy_ring **all = calloc(count, sizeof(const struct policy_ring *));
    struct policy_scratch *scratch = calloc(count, sizeof(*scratch));
    struct policy_decision *decisions = calloc(count, sizeof(*decisions));
    struct policy_domain domain = {0};
    uint64_t domain_scratch;
    struct policy_config config;
    struct timespec before, after;

    policy_config_init(&config);
    for (size_t i = 0; i < count; i++)
        rings[i] = (struct policy_ring){
            .incarnation = 1,
            .channel = (uint32_t)i,
            .weight = 100,
            .size_bytes = 64 * KIB,
            .min_bytes = 4 * KIB,
            .max_bytes = 64 * MIB,
            .interval_ns = 100000000,
            .last_interval_ns = 100000000,
            .received_bytes = 10 * MIB,
            .sent_bytes = 10 * MIB,
            .stall_ns = i % 3 ? 0 : 50000000,
            .peak_bytes = i % 3 == 1 ? 4 * KIB : 64 * KIB,
            .active_ns = i % 7 ? 99900000000 : 1,
            .received_ns = 99900000000,
            .starved_ns = 99900000000,
            .changed_ns = 1,
            .grew = true,
        };
    for (size_t i = 0; i < count; i++)
        all[i] = &rings[i];
    struct policy_input input = {
        .now_ns = 100000000000,
        .total_bytes = 8192 * MIB,
        .free_bytes = 8192 * MIB - count * 64 * KIB,
        .largest_free_bytes = 8192 * MIB - count * 64 * KIB,
        .rings = all,
        .ring_count = count,
        .domains = &domain,
        .domain_count = 1,
        .scratch = scratch,
        .domain_scratch = &domain_scratch,
    };
    for (int tight = 0; tight < 2; tight++) {
        clock_gettime(CLOCK_MONOTONIC, &before);
        size_t decided = policy_default_plan(&input, &config, decisions, count);
        clock_gettime(CLOCK_MONOTONIC, &after);
        print_message("100,000 rings, memory %s: %zu decisions in %.2f ms\n",
                      tight ? "short" : "enough", decided,
                      (double)(after.tv_sec - before.tv_sec) * 1e3 +
                          (double)(after.tv_nsec - before.tv_nsec) / 1e6);
        assert_true(decided > 0);
        input.total_bytes = count * 72 * KIB;
        input.free_bytes = input.largest_free_bytes = count * 8 * KIB;
    }
    free(rings);
    free(all);
    free(scratch);
    free(decisions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalled_producer_with_a_draining_reader_grows),
        cmocka_unit_test(pressure_is_answered_before_the_period_is_over),
        cmocka_unit_test(reader_that_does_not_read_gets_nothing),
        cmocka_unit_test(memory_before_a_reader_that_stopped_is_taken_back),
        cmocka_unit_test(idle_ring_decays_to_its_minimum),
        cmocka_unit_test(promise_is_a_floor),
        cmocka_unit_test(ring_that_needs_little_gives_the_rest_back),
        cmocka_unit_test(constant_load_reaches_a_fixed_point),
        cmocka_unit_test(overload_reaches_a_fixed_point),
        cmocka_unit_test(full_region_reaches_a_fixed_point),
        cmocka_unit_test(busy_reader_gets_no_more_than_the_cache_holds),
        cmocka_unit_test(slow_reader_gets_what_it_drains_in_the_horizon),
        cmocka_unit_test(bursts_find_room_beyond_the_cache),
        cmocka_unit_test(bursty_load_does_not_thrash),
        cmocka_unit_test(maximum_holds_and_is_told),
        cmocka_unit_test(quota_holds_and_is_told),
        cmocka_unit_test(weights_divide_what_is_short),
        cmocka_unit_test(equals_get_equal),
        cmocka_unit_test(late_equal_gets_as_much_as_those_before),
        cmocka_unit_test(full_region_takes_from_those_that_need_less),
        cmocka_unit_test(ring_does_not_shrink_within_its_dwell),
        cmocka_unit_test(growth_after_a_shrink_waits_for_the_dwell_and_says_so),
        cmocka_unit_test(moving_ring_is_left_alone),
        cmocka_unit_test(refusal_is_told_once),
        cmocka_unit_test(nonsense_in_counters_keeps_plans_within_bounds),
        cmocka_unit_test(a_hundred_thousand_rings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
