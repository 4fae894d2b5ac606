/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The default policy and the room there is: what is free, and in what runs.
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

/* Two rings that have stalled, of 64 KiB each, in a region with much that is free. */
static size_t plan_fragmented(struct sim *sim, uint64_t largest_free_bytes)
{
    static struct policy_scratch scratch[2];
    const struct policy_ring *rings[2];
    uint64_t domain_scratch;

    for (size_t i = 0; i < 2; i++) {
        sim_add(sim, 64 * KIB, 64 * KIB)->size_bytes = 16 * KIB;
        for (unsigned tick = 0; tick < 50; tick++)
            sim_tick(sim);
        sim_look(sim, i, true);
        rings[i] = &sim->rings[i].track.ring;
    }
    struct policy_input input = {
        .now_ns = sim->now_ns,
        .total_bytes = sim->total_bytes,
        .free_bytes = sim->total_bytes / 2,
        .largest_free_bytes = largest_free_bytes,
        .rings = rings,
        .ring_count = 2,
        .domains = sim->domains,
        .domain_count = 1,
        .scratch = scratch,
        .domain_scratch = &domain_scratch,
    };
    return policy_default_plan(&input, &sim->config, sim->decisions, SIM_DECISIONS_MAX);
}

static void growth_is_cut_to_the_longest_free_run(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);

    assert_int_equal(plan_fragmented(sim, 64 * MIB), 2);
    assert_int_equal(sim->decisions[0].to_bytes, 64 * KIB);
    sim->ring_count = 0;
    assert_int_equal(plan_fragmented(sim, 36 * KIB), 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_false(sim->decisions[i].refused);
        assert_int_equal(sim->decisions[i].to_bytes, 36 * KIB);
    }
    free(sim);
}

static void one_growth_a_round_may_need_compaction(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);

    assert_int_equal(plan_fragmented(sim, 16 * KIB), 2);
    assert_false(sim->decisions[0].refused);
    assert_int_equal(sim->decisions[0].to_bytes, 64 * KIB);
    assert_true(sim->decisions[1].refused);
    assert_int_equal(sim->decisions[1].reason, POLICY_FRAGMENTED);
    free(sim);
}

/*
 * A round about those that press knows nobody's share. Who is refused there has to wait, which is
 * no news once it has been told why.
 */
static void pressing_ring_waits_and_is_told_once(void **state)
{
    (void)state;
    struct sim *sim = sim_new(64 * MIB);
    struct policy_scratch scratch;
    uint64_t domain_scratch;

    plan_fragmented(sim, 64 * MIB);
    struct policy_ring *ring = &sim->rings[0].track.ring;
    const struct policy_input input = {
        .now_ns = sim->now_ns,
        .total_bytes = sim->total_bytes,
        .free_bytes = 4 * KIB,
        .largest_free_bytes = 4 * KIB,
        .rings = &(const struct policy_ring *){ring},
        .ring_count = 1,
        .domains = sim->domains,
        .domain_count = 1,
        .scratch = &scratch,
        .domain_scratch = &domain_scratch,
        .pressure = true,
        .some = true,
    };
    assert_int_equal(policy_default_plan(&input, &sim->config, sim->decisions, 1), 1);
    assert_true(sim->decisions[0].refused);
    assert_int_equal(sim->decisions[0].reason, POLICY_LATER);
    assert_int_equal(sim->decisions[0].number, 64 * KIB);
    ring->refused = POLICY_REGION_FULL;
    assert_int_equal(policy_default_plan(&input, &sim->config, sim->decisions, 1), 0);
    free(sim);
}

/* A ring of so many blocks that stalls all the time before a reader that reads. */
static struct policy_ring starving(uint64_t blocks, uint64_t now_ns)
{
    return (struct policy_ring){
        .weight = 100,
        .size_bytes = blocks * 4 * KIB,
        .min_bytes = 4 * KIB,
        .max_bytes = 64 * MIB,
        .interval_ns = 100000000,
        .stall_ns = 90000000,
        .stalled = true,
        .received_bytes = MIB,
        .held_bytes = blocks * 4 * KIB,
        .peak_bytes = blocks * 4 * KIB,
        .lately_bytes = blocks * 4 * KIB,
        .drain_rate = 1000 * MIB,
        .active_ns = now_ns,
        .received_ns = now_ns,
        .stalled_ns = now_ns,
        .starved_ns = now_ns,
        .grew = true,
    };
}

static size_t plan_two(uint64_t blocks, uint64_t other_blocks, uint64_t free_blocks,
                       struct policy_input *input, struct policy_decision *decisions)
{
    static struct policy_ring rings[2];
    static const struct policy_ring *const pointers[2] = {&rings[0], &rings[1]};
    static struct policy_scratch scratch[2];
    static const struct policy_domain domain;
    static uint64_t charged;
    struct policy_config config;

    policy_config_init(&config);
    input->now_ns = 3600000000000;
    rings[0] = starving(blocks, input->now_ns);
    rings[1] = starving(other_blocks, input->now_ns);
    rings[1].channel = 1;
    input->total_bytes = (blocks + other_blocks + free_blocks) * 4 * KIB;
    input->free_bytes = input->largest_free_bytes = free_blocks * 4 * KIB;
    input->rings = pointers;
    input->ring_count = 2;
    input->domains = &domain;
    input->domain_count = 1;
    input->scratch = scratch;
    input->domain_scratch = &charged;
    return policy_default_plan(input, &config, decisions, 8);
}

/* One ring has nearly all, and no free run is as long as its share. */
static void ring_without_room_to_shrink_takes_what_there_is(void **state)
{
    (void)state;
    struct policy_input input = {0};
    struct policy_decision decisions[8];

    assert_true(plan_two(1000, 10, 20, &input, decisions) >= 1);
    assert_false(decisions[0].refused);
    assert_int_equal(decisions[0].index, 0);
    assert_true(decisions[0].to_bytes <= 20 * 4 * KIB && decisions[0].to_bytes >= 8 * 4 * KIB);
}

/* A round about some rings keeps to the level that the last one about all has left. */
static void pressing_ring_keeps_to_its_share(void **state)
{
    (void)state;
    uint64_t level = 1;
    struct policy_input all = {.level = &level};
    struct policy_input some = {.some = true, .pressure = true, .level_bytes = 48 * 4 * KIB};
    struct policy_decision decisions[8];

    plan_two(1000, 1000, 100, &all, decisions);
    assert_true(level > 100 * 4 * KIB && level < 1000 * 4 * KIB);
    size_t count = plan_two(32, 64, 4000, &some, decisions);
    assert_true(count >= 1);
    for (size_t i = 0; i < count; i++) {
        if (decisions[i].index == 0)
            assert_true(!decisions[i].refused && decisions[i].to_bytes <= 48 * 4 * KIB);
        else
            assert_true(decisions[i].refused);
    }
}

/* What a new channel is kept for is for those who give back more than they take, too. */
static void full_region_can_still_shrink(void **state)
{
    (void)state;
    struct sim *sim = sim_new(4 * MIB);
    struct sim_ring *ring = sim_add(sim, 0, 0);

    ring->size_bytes = 4 * MIB - 64 * KIB; /* less than the reserve is free */
    assert_true(sim_run(sim, SECONDS(10)));
    assert_int_equal(ring->size_bytes, 4 * KIB);
    free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(growth_is_cut_to_the_longest_free_run),
        cmocka_unit_test(one_growth_a_round_may_need_compaction),
        cmocka_unit_test(pressing_ring_waits_and_is_told_once),
        cmocka_unit_test(ring_without_room_to_shrink_takes_what_there_is),
        cmocka_unit_test(pressing_ring_keeps_to_its_share),
        cmocka_unit_test(full_region_can_still_shrink),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
