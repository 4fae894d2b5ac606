/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Policy "static", and what all policies share.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/policy_sim.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
/* Rounds in so many seconds. */
#define SECONDS(n) ((n)*10u)

static void static_policy_gives_equal_shares(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);

    sim->plan = policy_static_plan;
    for (unsigned i = 0; i < 7; i++)
        sim_add(sim, i * 100 * KIB, 100 * KIB);
    assert_true(sim_run(sim, SECONDS(2)));
    for (unsigned i = 1; i < 7; i++)
        assert_int_equal(sim->rings[i].size_bytes, sim->rings[0].size_bytes);
    assert_true(sim_used(sim) > 64 * MIB * 3 / 4);
    unsigned moves = sim->moves;
    assert_true(sim_run(sim, SECONDS(20)));
    assert_int_equal(sim->moves, moves);
    free(sim);
}

static void static_policy_makes_room_for_newcomers(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);

    sim->plan = policy_static_plan;
    for (unsigned i = 0; i < 60; i++) {
        sim_add(sim, 0, 0);
        assert_true(sim_run(sim, 5));
    }
    for (unsigned i = 1; i < 60; i++)
        assert_int_equal(sim->rings[i].size_bytes, sim->rings[0].size_bytes);
    free(sim);
}

/* Two rings have all but three blocks, and two more have come: no run is as long as a share. */
static void static_policy_shrinks_rings_of_a_full_region(void **state)
{
    (void)state;
    struct policy_ring rings[4] = {0};
    const struct policy_ring *pointers[4];
    struct policy_scratch scratch[4];
    const struct policy_domain domain = {0};
    struct policy_config config;
    struct policy_decision decisions[8];
    uint64_t charged;

    policy_config_init(&config);
    for (unsigned i = 0; i < 4; i++) {
        rings[i] = (struct policy_ring){.channel = i,
                                        .weight = 100,
                                        .size_bytes = (i < 2 ? 49u : 1u) * 4 * KIB,
                                        .min_bytes = 4 * KIB,
                                        .max_bytes = MIB};
        pointers[i] = &rings[i];
    }
    const struct policy_input input = {.total_bytes = 103 * 4 * KIB,
                                       .free_bytes = 3 * 4 * KIB,
                                       .largest_free_bytes = 2 * 4 * KIB,
                                       .rings = pointers,
                                       .ring_count = 4,
                                       .domains = &domain,
                                       .domain_count = 1,
                                       .scratch = scratch,
                                       .domain_scratch = &charged};
    size_t count = policy_static_plan(&input, &config, decisions, 8);
    assert_true(count >= 1);
    assert_false(decisions[0].refused);
    assert_int_equal(decisions[0].from_bytes, 49 * 4 * KIB);
    assert_int_equal(decisions[0].to_bytes, 2 * 4 * KIB);
}

static void every_reason_has_a_sentence_that_fits(void **state)
{
    (void)state;
    char text[104];

    for (enum policy_reason reason = POLICY_STALLS; reason <= POLICY_FRAGMENTED; reason++) {
        const struct policy_decision decision = {.reason = reason, .number = 999999999999};
        policy_reason_text(&decision, text, sizeof(text));
        assert_true(strlen(text) > 10 && strlen(text) < sizeof(text) - 1);
    }
}

static void defaults_are_in_their_ranges(void **state)
{
    (void)state;
    struct policy_config config;

    policy_config_init(&config);
    assert_null(policy_config_check(&config));
    config.grow_percent = 100;
    assert_string_equal(policy_config_check(&config), "grow_percent");
}

static void policies_are_found_by_name(void **state)
{
    (void)state;
    assert_ptr_equal(policy_find("default")->plan, policy_default_plan);
    assert_ptr_equal(policy_find("static")->plan, policy_static_plan);
    assert_ptr_equal(policy_find("secure-ivshmem")->plan, policy_secure_ivshmem_plan);
    for (size_t i = 0; i < POLICY_COUNT; i++)
        assert_non_null(strstr(policy_names(), policies[i].name));
    assert_null(policy_find("Default"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(static_policy_gives_equal_shares),
        cmocka_unit_test(static_policy_makes_room_for_newcomers),
        cmocka_unit_test(static_policy_shrinks_rings_of_a_full_region),
        cmocka_unit_test(every_reason_has_a_sentence_that_fits),
        cmocka_unit_test(defaults_are_in_their_ranges),
        cmocka_unit_test(policies_are_found_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
