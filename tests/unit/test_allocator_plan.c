/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "allocator/allocator.h"
#include "tests/unit/allocator_picture.h"
#include "allocator/plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DOMAIN 1u

/* A section by a picture of it: a run of one letter is an extent with that cookie, dots free. */
static struct allocator *drawn(const char *picture)
{
    struct allocator *allocator;

    assert_int_equal(allocator_new(strlen(picture), &allocator), 0);
    for (size_t at = 0; picture[at];) {
        size_t blocks = strspn(picture + at, (char[]){picture[at], '\0'});

        if (picture[at] != '.')
            assert_int_equal(
                allocator_allocate_at(allocator, DOMAIN, at, blocks, (uint64_t)picture[at]), 0);
        at += blocks;
    }
    return allocator;
}

/* Carries out all moves at once, as the broker does: all destinations first, then the sources. */
static void carry_out(struct allocator *allocator, const struct allocator_move *moves, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(allocator_replace_at(allocator, moves[i].from_block, moves[i].to_block,
                                              moves[i].blocks),
                         0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(allocator_release(allocator, moves[i].from_block), 0);
}

/* Plans for the picture with no limit that matters, and carries it out. */
static struct allocator_plan plan_for(struct allocator *allocator, uint64_t needed_blocks)
{
    struct allocator_limits limits = {.budget_blocks = UINT64_MAX, .max_moves = 16};
    struct allocator_move moves[16];
    struct allocator_plan plan;

    assert_int_equal(allocator_plan_moves(allocator, needed_blocks, &limits, moves, &plan), 0);
    carry_out(allocator, moves, plan.moves);
    assert_int_equal(allocator_room(allocator, needed_blocks), ALLOCATOR_ROOM);
    return plan;
}

static int try_plan(const char *picture, uint64_t needed_blocks, uint64_t budget_blocks,
                    size_t max_moves)
{
    struct allocator_limits limits = {.budget_blocks = budget_blocks, .max_moves = max_moves};
    struct allocator *allocator = drawn(picture);
    struct allocator_move moves[16];
    struct allocator_plan plan;
    int r = allocator_plan_moves(allocator, needed_blocks, &limits, moves, &plan);

    finish(allocator);
    return r;
}

static void a_run_that_is_there_needs_no_move(void **state)
{
    struct allocator *allocator = drawn("aa....bb...");
    struct allocator_plan plan = plan_for(allocator, 3);

    (void)state;
    assert_int_equal(plan.moves, 0);
    assert_int_equal(plan.start_block, 8);
    assert_int_equal(plan.blocks, 3);
    finish(allocator);
}

static void the_cheapest_window_is_freed(void **state)
{
    struct allocator *allocator = drawn("aaaa...bb...cccc..d...eeee..");
    struct allocator_plan plan = plan_for(allocator, 6);

    (void)state;
    assert_int_equal(plan.moved_blocks, 1);
    /* The trimmed end of the window itself does not hold d; the shortest run elsewhere does. */
    assert_looks(allocator, "aaaa...bb...cccc......eeeed.");
    finish(allocator);
}

static void two_runs_around_an_extent_come_together_without_a_third(void **state)
{
    struct allocator *allocator = drawn("aa...bb....c");
    struct allocator_plan plan = plan_for(allocator, 7);

    (void)state;
    assert_int_equal(plan.moves, 1);
    assert_looks(allocator, "aabb.......c");
    finish(allocator);
}

static void the_high_end_of_a_window_may_take_what_moves(void **state)
{
    struct allocator *allocator = drawn("aaa.bb.....ccc");
    struct allocator_plan plan = plan_for(allocator, 6);

    (void)state;
    assert_int_equal(plan.moves, 1);
    assert_looks(allocator, "aaa......bbccc");
    finish(allocator);
}

static void several_extents_move_at_once(void **state)
{
    struct allocator *allocator = drawn("zzzzzzzz..a..b..zzzzzzzz...zzzzzzzz");
    struct allocator_plan plan = plan_for(allocator, 8);

    (void)state;
    assert_int_equal(plan.moves, 2);
    assert_int_equal(plan.start_block, 8);
    assert_int_equal(plan.blocks, 8);
    finish(allocator);
}

static void more_than_is_free_cannot_be_planned(void **state)
{
    (void)state;
    assert_int_equal(try_plan("aa..bb..", 5, 100, 16), -ENOSPC);
}

static void nothing_needed_is_refused(void **state)
{
    (void)state;
    assert_int_equal(try_plan("aa..bb..", 0, 100, 16), -EINVAL);
}

static void the_budget_is_kept(void **state)
{
    (void)state;
    assert_int_equal(try_plan("aaaaaa...bb...cccccc..", 5, 2, 16), 0);
    assert_int_equal(try_plan("aaaaaa...bb...cccccc..", 5, 1, 16), -EAGAIN);
    assert_int_equal(try_plan("aaaaaa...bb...cccccc..", 5, 0, 16), -EAGAIN);
}

static void the_number_of_moves_is_kept(void **state)
{
    (void)state;
    assert_int_equal(try_plan("zzzzzzzz..a..b..zzzzzzzz..", 8, 100, 2), 0);
    assert_int_equal(try_plan("zzzzzzzz..a..b..zzzzzzzz..", 8, 100, 1), -EAGAIN);
    assert_int_equal(try_plan("zzzzzzzz..a..b..zzzzzzzz..", 8, 100, 0), -EAGAIN);
}

static void extents_that_fit_nowhere_else_are_not_planned(void **state)
{
    (void)state;
    assert_int_equal(try_plan("..aaaaaaa..bbbbbbb..ccccccc", 4, 100, 16), -EAGAIN);
}

static bool is_not_d(const struct allocator_span *extent, void *data)
{
    (*(int *)data)++;
    return extent->cookie != 'd';
}

static void an_extent_that_may_not_move_stays(void **state)
{
    struct allocator *allocator = drawn("aaaa...bb...cccc..d...eeee..");
    int asked = 0;
    struct allocator_limits limits = {
        .budget_blocks = 100, .max_moves = 16, .movable = is_not_d, .data = &asked};
    struct allocator_move moves[16];
    struct allocator_plan plan;

    (void)state;
    assert_int_equal(allocator_plan_moves(allocator, 6, &limits, moves, &plan), 0);
    assert_int_equal(plan.moved_blocks, 2);
    assert_int_equal(moves[0].from_block, 7);
    assert_true(asked > 0);
    finish(allocator);
}

static void an_extent_on_its_way_is_not_moved_again(void **state)
{
    struct allocator *allocator = drawn("aaaaaaa...bb...ccccccc....");
    struct allocator_limits limits = {.budget_blocks = 6, .max_moves = 16};
    struct allocator_move moves[16];
    struct allocator_plan plan;

    (void)state;
    assert_int_equal(allocator_replace_at(allocator, 10, 22, 2), 0);
    assert_int_equal(allocator_plan_moves(allocator, 6, &limits, moves, &plan), -EAGAIN);
    finish(allocator);
}

/* The fewest live blocks in any window of that length. */
static uint64_t cheapest_by_brute_force(const bool *live, size_t total, uint64_t needed_blocks)
{
    uint64_t best = UINT64_MAX;

    for (size_t at = 0; at + needed_blocks <= total; at++) {
        uint64_t cost = 0;

        for (size_t i = 0; i < needed_blocks; i++)
            cost += live[at + i];
        best = cost < best ? cost : best;
    }
    return best;
}

/* Extents of one block always fit elsewhere, so the cheapest window of all must be found. */
static void plans_for_single_blocks_are_optimal(void **state)
{
    struct allocator_limits limits = {.budget_blocks = UINT64_MAX, .max_moves = 120};
    unsigned seed = 20;
    unsigned planned = 0;

    (void)state;
    for (int round = 0; round < 500; round++) {
        bool live[120];
        struct allocator *allocator;
        struct allocator_move moves[120];
        struct allocator_plan plan;
        struct allocator_figures figures;
        uint64_t needed_blocks;

        assert_int_equal(allocator_new(120, &allocator), 0);
        for (size_t at = 0; at < 120; at++) {
            live[at] = rand_r(&seed) % 10 < 2 + round % 6;
            if (live[at])
                assert_int_equal(allocator_allocate_at(allocator, DOMAIN, at, 1, 0), 0);
        }
        allocator_figures(allocator, &figures);
        needed_blocks = 1 + (uint64_t)rand_r(&seed) % figures.free_blocks;
        assert_int_equal(allocator_plan_moves(allocator, needed_blocks, &limits, moves, &plan), 0);
        assert_int_equal(plan.moved_blocks, cheapest_by_brute_force(live, 120, needed_blocks));
        carry_out(allocator, moves, plan.moves);
        assert_int_equal(allocator_room(allocator, needed_blocks), ALLOCATOR_ROOM);
        planned += plan.moves > 0;
        finish(allocator);
    }
    assert_true(planned > 250);
}

static int compact_once(struct allocator *allocator, struct allocator_move *move)
{
    struct allocator_limits limits = {.budget_blocks = UINT64_MAX, .max_moves = 1};
    int r = allocator_plan_compact(allocator, &limits, move);

    if (!r)
        carry_out(allocator, move, 1);
    return r;
}

static void the_move_that_gains_most_a_block_comes_first(void **state)
{
    struct allocator *allocator = drawn("zz..yy...aaa......b.....xxxx");
    struct allocator_move move;

    (void)state;
    assert_int_equal(compact_once(allocator, &move), 0);
    assert_looks(allocator, "zzb.yy...aaa............xxxx");
    finish(allocator);
}

static void an_extent_slides_down_where_it_fits_nowhere_else(void **state)
{
    struct allocator *allocator = drawn("zz...aaa...y");
    struct allocator_move move;

    (void)state;
    assert_int_equal(compact_once(allocator, &move), 0);
    assert_looks(allocator, "zzaaa......y");
    finish(allocator);
}

static void the_top_is_lowered_where_no_move_gains(void **state)
{
    struct allocator *allocator = drawn("......zzzzzzz..y..xx");
    struct allocator_move move;

    (void)state;
    assert_int_equal(compact_once(allocator, &move), 0);
    assert_int_equal(move.from_block, 18);
    finish(allocator);
}

static void one_free_run_is_left_alone(void **state)
{
    struct allocator *allocator = drawn("..aaabb");
    struct allocator_move move;

    (void)state;
    assert_int_equal(compact_once(allocator, &move), -ENOENT);
    finish(allocator);
}

static void compacting_keeps_its_limits(void **state)
{
    struct allocator *allocator = drawn("zz..yy...aaa......bb....xxxx");
    struct allocator_limits limits = {.budget_blocks = 1, .max_moves = 1};
    struct allocator_move move;

    (void)state;
    assert_int_equal(allocator_plan_compact(allocator, &limits, &move), -ENOENT);
    limits.max_moves = 0;
    assert_int_equal(allocator_plan_compact(allocator, &limits, &move), -EINVAL);
    finish(allocator);
}

/* Move by move until none is worth making: it ends, and small extents end up in one heap. */
static void compacting_ends_with_one_free_run(void **state)
{
    struct allocator *allocator;
    struct allocator_move move;
    struct allocator_figures figures;
    unsigned moves = 0;

    (void)state;
    assert_int_equal(allocator_new(4000, &allocator), 0);
    for (uint64_t at = 0; at < 4000; at += 4)
        assert_int_equal(allocator_allocate_at(allocator, DOMAIN, at, 1 + at / 4 % 2, 0), 0);
    while (!compact_once(allocator, &move))
        assert_true(++moves < 10000);
    allocator_figures(allocator, &figures);
    assert_int_equal(figures.used_blocks, 1500);
    assert_true(figures.fragmentation_permille <= 5);
    finish(allocator);
}

/* Rounds until there is a run of that length; how many there were, or the error. */
static int go_towards(struct allocator *allocator, uint64_t needed_blocks, uint64_t budget_blocks)
{
    struct allocator_limits limits = {.budget_blocks = budget_blocks, .max_moves = 16};
    struct allocator_move moves[16];
    struct allocator_plan plan;
    int rounds = 0;

    while (allocator_room(allocator, needed_blocks) != ALLOCATOR_ROOM) {
        int r = allocator_plan_towards(allocator, needed_blocks, &limits, moves, &plan);
        if (r < 0)
            return r;
        assert_true(plan.moved_blocks <= budget_blocks);
        carry_out(allocator, moves, plan.moves);
        assert_true(++rounds < 1000);
    }
    return rounds;
}

static void a_smaller_neighbour_moves_first_where_no_run_is_as_long_as_an_extent(void **state)
{
    struct allocator *allocator = drawn("..y..XXXX...zzzz.w");

    (void)state;
    assert_int_equal(try_plan("..y..XXXX...zzzz.w", 7, 100, 16), -EAGAIN);
    assert_int_equal(go_towards(allocator, 7, 100), 2);
    assert_looks(allocator, "XXXX........zzzzyw");
    finish(allocator);
}

static void a_budget_that_is_too_small_for_one_round_takes_several(void **state)
{
    struct allocator *allocator = drawn("a.b.c.d.e.f.g.h.");

    (void)state;
    assert_int_equal(try_plan("a.b.c.d.e.f.g.h.", 8, 2, 16), -EAGAIN);
    assert_in_range(go_towards(allocator, 8, 2), 2, 8);
    finish(allocator);
}

static void short_extents_away_from_any_free_run_are_found(void **state)
{
    struct allocator *allocator = drawn("xxxxxxabcdefxxxxxx..xxxxxx..xxxxxx...");

    (void)state;
    plan_for(allocator, 5);
    finish(allocator);
}

static void what_cannot_be_is_given_up(void **state)
{
    struct allocator *allocator = drawn("..aaaaaaa..bbbbbbb..ccccccc");

    (void)state;
    assert_int_equal(go_towards(allocator, 4, 100), -EAGAIN);
    assert_int_equal(go_towards(allocator, 7, 100), -ENOSPC);
    finish(allocator);
}

/* At nine tenths full, of extents of one to eight blocks: rounds make what one plan cannot. */
static void rounds_make_more_than_one_plan_can(void **state)
{
    unsigned seed = 7, one_plan = 0, in_rounds = 0;

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct allocator_limits limits = {.budget_blocks = 1000, .max_moves = 16};
        struct allocator_move moves[16];
        struct allocator_plan plan;
        struct allocator *allocator;

        assert_int_equal(allocator_new(400, &allocator), 0);
        for (uint64_t at = 0, blocks; at < 392; at += blocks + (uint64_t)rand_r(&seed) % 2) {
            blocks = 1 + (uint64_t)rand_r(&seed) % 8;
            assert_int_equal(allocator_allocate_at(allocator, DOMAIN, at, blocks, 0), 0);
        }
        one_plan += allocator_plan_moves(allocator, 24, &limits, moves, &plan) == 0;
        in_rounds += go_towards(allocator, 24, 1000) >= 0;
        finish(allocator);
    }
    print_message("a run of 24 of 400 blocks: %u of 300 by one plan, %u in rounds\n", one_plan,
                  in_rounds);
    assert_true(in_rounds > one_plan);
    assert_true(in_rounds >= 290);
}

static void a_barred_range_is_given_to_nobody(void **state)
{
    struct allocator *allocator = drawn("a..b....c......d");
    uint64_t start_block;

    (void)state;
    allocator_bar(allocator, 5, 2);
    assert_int_equal(allocator_room(allocator, 7), ALLOCATOR_FRAGMENTED);
    assert_int_equal(allocator_allocate(allocator, DOMAIN, 3, 'x', &start_block), 0);
    assert_looks(allocator, "a..b....cxxx...d");
    assert_int_equal(allocator_allocate(allocator, DOMAIN, 4, 'y', &start_block), -ENOSPC);
    assert_int_equal(allocator_replace(allocator, 3, 4, &start_block), -ENOSPC);
    assert_int_equal(allocator_resize_in_place(allocator, 3, 2), -ENOSPC);
    assert_int_equal(allocator_allocate_at(allocator, DOMAIN, 4, 1, 'z'), 0);
    allocator_bar(allocator, 0, 0);
    assert_int_equal(allocator_allocate(allocator, DOMAIN, 3, 'y', &start_block), 0);
    assert_int_equal(start_block, 5);
    finish(allocator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_that_is_there_needs_no_move),
        cmocka_unit_test(the_cheapest_window_is_freed),
        cmocka_unit_test(two_runs_around_an_extent_come_together_without_a_third),
        cmocka_unit_test(the_high_end_of_a_window_may_take_what_moves),
        cmocka_unit_test(several_extents_move_at_once),
        cmocka_unit_test(more_than_is_free_cannot_be_planned),
        cmocka_unit_test(nothing_needed_is_refused),
        cmocka_unit_test(the_budget_is_kept),
        cmocka_unit_test(the_number_of_moves_is_kept),
        cmocka_unit_test(extents_that_fit_nowhere_else_are_not_planned),
        cmocka_unit_test(an_extent_that_may_not_move_stays),
        cmocka_unit_test(an_extent_on_its_way_is_not_moved_again),
        cmocka_unit_test(plans_for_single_blocks_are_optimal),
        cmocka_unit_test(the_move_that_gains_most_a_block_comes_first),
        cmocka_unit_test(an_extent_slides_down_where_it_fits_nowhere_else),
        cmocka_unit_test(the_top_is_lowered_where_no_move_gains),
        cmocka_unit_test(one_free_run_is_left_alone),
        cmocka_unit_test(compacting_keeps_its_limits),
        cmocka_unit_test(compacting_ends_with_one_free_run),
        cmocka_unit_test(a_smaller_neighbour_moves_first_where_no_run_is_as_long_as_an_extent),
        cmocka_unit_test(a_budget_that_is_too_small_for_one_round_takes_several),
        cmocka_unit_test(short_extents_away_from_any_free_run_are_found),
        cmocka_unit_test(what_cannot_be_is_given_up),
        cmocka_unit_test(rounds_make_more_than_one_plan_can),
        cmocka_unit_test(a_barred_range_is_given_to_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
