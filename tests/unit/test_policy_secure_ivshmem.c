/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/policy_sim.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

static struct sim *baseline_new(void)
{
    struct sim *sim = sim_new(64 * MIB);

    sim->plan = policy_secure_ivshmem_plan;
    return sim;
}

static void active_ring_gets_one_block_more_each_round(void **state)
{
    (void)state;
    struct sim *sim = baseline_new();
    struct sim_ring *ring = sim_add(sim, 1 * KIB, 1 * KIB);

    for (unsigned round = 1; round <= 20; round++) {
        assert_true(sim_run(sim, 1));
        assert_int_equal(ring->size_bytes, (1 + round) * 4 * KIB);
    }
    free(sim);
}

static void idle_ring_shrinks_to_four_fifths_each_round(void **state)
{
    (void)state;
    struct sim *sim = baseline_new();
    struct sim_ring *ring = sim_add(sim, 0, 0);

    ring->size_bytes = 100 * KIB;
    assert_true(sim_run(sim, 1));
    assert_int_equal(ring->size_bytes, 80 * KIB);
    assert_true(sim_run(sim, 1));
    assert_int_equal(ring->size_bytes, 64 * KIB);
    assert_int_equal(sim->decisions[0].reason, POLICY_FOUR_FIFTHS);
    free(sim);
}

static void idle_ring_stops_at_its_minimum_and_its_promise(void **state)
{
    (void)state;
    struct sim *sim = baseline_new();
    struct sim_ring *ring = sim_add(sim, 0, 0), *promised = sim_add(sim, 0, 0);

    ring->size_bytes = promised->size_bytes = 100 * KIB;
    ring->min_bytes = 16 * KIB;
    promised->promised_bytes = 30000;
    assert_true(sim_run(sim, 100));
    assert_int_equal(ring->size_bytes, 16 * KIB);
    assert_int_equal(promised->size_bytes, 32 * KIB);
    free(sim);
}

static void inactive_ring_goes_to_its_floor_only_if_asked(void **state)
{
    (void)state;
    struct sim *sim = baseline_new();
    struct sim_ring *ring = sim_add(sim, 1 * KIB, 1 * KIB);

    ring->size_bytes = 8 * MIB;
    assert_true(sim_run(sim, 1));
    ring->offered_bytes = 0;
    assert_true(sim_run(sim, 5));
    assert_true(ring->size_bytes > 2 * MIB);
    sim->config.inactive_ms = 600;
    assert_true(sim_run(sim, 2));
    assert_int_equal(ring->size_bytes, 4 * KIB);
    assert_int_equal(sim->decisions[0].reason, POLICY_INACTIVE);
    free(sim);
}

static void pressure_does_not_shrink_the_idle(void **state)
{
    (void)state;
    struct sim *sim = baseline_new();
    struct sim_ring *ring = sim_add(sim, 0, 0);

    ring->size_bytes = 100 * KIB;
    for (unsigned i = 0; i < 10; i++) {
        sim_tick(sim);
        assert_true(sim_round(sim, false));
    }
    assert_int_equal(ring->size_bytes, 100 * KIB);
    free(sim);
}

static void full_region_and_quota_hold(void **state)
{
    (void)state;
    struct sim *sim = baseline_new();
    bool told = false;

    sim->total_bytes = 1 * MIB;
    sim->domain_count = 2;
    sim->domains[1].quota_bytes = 64 * KIB;
    for (unsigned i = 0; i < 4; i++)
        sim_add(sim, 4 * KIB, 4 * KIB);
    struct sim_ring *held = sim_add(sim, 4 * KIB, 4 * KIB);
    held->domain = 1;
    for (unsigned i = 0; i < 200; i++) {
        assert_true(sim_run(sim, 1)); /* which checks that it never plans beyond the region */
        told |= sim_refused(sim, POLICY_AT_QUOTA);
    }
    assert_int_equal(held->size_bytes, 64 * KIB);
    assert_true(told);
    free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(active_ring_gets_one_block_more_each_round),
        cmocka_unit_test(idle_ring_shrinks_to_four_fifths_each_round),
        cmocka_unit_test(idle_ring_stops_at_its_minimum_and_its_promise),
        cmocka_unit_test(inactive_ring_goes_to_its_floor_only_if_asked),
        cmocka_unit_test(pressure_does_not_shrink_the_idle),
        cmocka_unit_test(full_region_and_quota_hold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
