/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "allocator/allocator.h"
#include "tests/unit/allocator_picture.h"
#include "allocator/plan.h"
#include "tests/fuzz/allocator_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ALICE 1u
#define BOB 2u
#define COOKIE UINT64_C(0xc00c1e)

/* A section of 100 blocks. */
static int setup(void **state)
{
    struct allocator *allocator;

    if (allocator_new(100, &allocator))
        return -1;
    *state = allocator;
    return 0;
}

/* Whatever a case did, the books must be in order after it. */
static int teardown(void **state)
{
    const char *why = NULL;
    int r = allocator_check(*state, &why);

    if (r)
        print_error("%s\n", why);
    allocator_free(*state);
    return r;
}

static struct allocator_figures figures_of(const struct allocator *allocator)
{
    struct allocator_figures figures;

    allocator_figures(allocator, &figures);
    return figures;
}

static struct allocator_usage usage_of(const struct allocator *allocator, uint32_t domain)
{
    struct allocator_usage usage;

    allocator_domain_usage(allocator, domain, &usage);
    return usage;
}

static uint64_t take(struct allocator *allocator, uint64_t blocks)
{
    uint64_t start_block = ALLOCATOR_NOWHERE;

    assert_int_equal(allocator_allocate(allocator, ALICE, blocks, COOKIE, &start_block), 0);
    return start_block;
}

/*
 * Lays out a section by a picture of it, a letter a block: a run of one letter is an extent whose
 * cookie is that letter, dots are free.
 */
static void draw(struct allocator *allocator, const char *picture)
{
    for (size_t at = 0; picture[at];) {
        size_t blocks = strspn(picture + at, (char[]){picture[at], '\0'});

        if (picture[at] != '.')
            assert_int_equal(
                allocator_allocate_at(allocator, ALICE, at, blocks, (uint64_t)picture[at]), 0);
        at += blocks;
    }
}

static struct allocator *drawn(const char *picture)
{
    struct allocator *allocator;

    assert_int_equal(allocator_new(strlen(picture), &allocator), 0);
    draw(allocator, picture);
    return allocator;
}

static void an_impossible_size_is_refused(void **state)
{
    struct allocator *allocator = NULL;

    (void)state;
    assert_int_equal(allocator_new(0, &allocator), -EINVAL);
    assert_int_equal(allocator_new(ALLOCATOR_BLOCKS_MAX + 1, &allocator), -EINVAL);
    assert_null(allocator);
}

static void the_largest_section_works(void **state)
{
    struct allocator *allocator;
    uint64_t start_block;

    (void)state;
    assert_int_equal(allocator_new(ALLOCATOR_BLOCKS_MAX, &allocator), 0);
    assert_int_equal(allocator_allocate(allocator, ALICE, 1, COOKIE, &start_block), 0);
    assert_int_equal(
        allocator_allocate(allocator, ALICE, ALLOCATOR_BLOCKS_MAX, COOKIE, &start_block), -ENOSPC);
    assert_int_equal(allocator_allocate(allocator, ALICE, UINT64_MAX, COOKIE, &start_block),
                     -ENOSPC);
    assert_int_equal(allocator_allocate_at(allocator, ALICE, 1, UINT64_MAX, COOKIE), -EINVAL);
    assert_int_equal(
        allocator_allocate(allocator, ALICE, ALLOCATOR_BLOCKS_MAX - 1, COOKIE, &start_block), 0);
    finish(allocator);
}

static void freeing_nothing_is_allowed(void **state)
{
    (void)state;
    allocator_free(NULL);
}

static void the_shortest_run_that_fits_is_taken(void **state)
{
    struct allocator *allocator = drawn("aaaa......bb...cc..dd...");

    (void)state;
    assert_int_equal(take(allocator, 2), 17);
    finish(allocator);
}

static void the_lowest_of_equal_runs_is_taken(void **state)
{
    struct allocator *allocator = drawn("aaaa......bb...cc..dd...");

    (void)state;
    assert_int_equal(take(allocator, 3), 12);
    assert_int_equal(take(allocator, 3), 21);
    finish(allocator);
}

static void no_blocks_are_refused(void **state)
{
    uint64_t start_block = 7;

    assert_int_equal(allocator_allocate(*state, ALICE, 0, COOKIE, &start_block), -EINVAL);
    assert_int_equal(allocator_allocate_at(*state, ALICE, 3, 0, COOKIE), -EINVAL);
    assert_int_equal(start_block, 7);
}

static void a_full_section_is_told_from_a_fragmented_one(void **state)
{
    struct allocator *allocator = drawn("aa..bb..cc");
    uint64_t start_block;

    (void)state;
    assert_int_equal(allocator_allocate(allocator, ALICE, 3, COOKIE, &start_block), -ENOSPC);
    assert_int_equal(allocator_room(allocator, 2), ALLOCATOR_ROOM);
    assert_int_equal(allocator_room(allocator, 3), ALLOCATOR_FRAGMENTED);
    assert_int_equal(allocator_room(allocator, 4), ALLOCATOR_FRAGMENTED);
    assert_int_equal(allocator_room(allocator, 5), ALLOCATOR_FULL);
    finish(allocator);
}

static void a_given_place_is_taken(void **state)
{
    struct allocator_span span;

    assert_int_equal(allocator_allocate_at(*state, BOB, 40, 5, COOKIE), 0);
    assert_int_equal(allocator_find(*state, 40, &span), 0);
    assert_int_equal(span.start_block, 40);
    assert_int_equal(span.blocks, 5);
    assert_int_equal(span.domain, BOB);
    assert_int_equal(span.cookie, COOKIE);
    assert_int_equal(span.replaces_block, ALLOCATOR_NOWHERE);
    assert_false(span.free);
}

static void a_taken_place_is_refused(void **state)
{
    struct allocator *allocator = drawn("..aaa...");

    (void)state;
    assert_int_equal(allocator_allocate_at(allocator, BOB, 2, 1, COOKIE), -EBUSY);
    assert_int_equal(allocator_allocate_at(allocator, BOB, 3, 4, COOKIE), -EBUSY);
    assert_int_equal(allocator_allocate_at(allocator, BOB, 0, 3, COOKIE), -EBUSY);
    assert_looks(allocator, "..aaa...");
    assert_int_equal(usage_of(allocator, BOB).extents, 0);
    finish(allocator);
}

static void a_place_beyond_the_end_is_refused(void **state)
{
    assert_int_equal(allocator_allocate_at(*state, ALICE, 99, 2, COOKIE), -EINVAL);
    assert_int_equal(allocator_allocate_at(*state, ALICE, 100, 1, COOKIE), -EINVAL);
    assert_int_equal(allocator_allocate_at(*state, ALICE, UINT64_MAX, 2, COOKIE), -EINVAL);
}

static void releasing_between_extents_leaves_a_run(void **state)
{
    struct allocator *allocator = drawn("aabbcc");

    (void)state;
    assert_int_equal(allocator_release(allocator, 2), 0);
    assert_looks(allocator, "aa..cc");
    assert_int_equal(figures_of(allocator).free_runs, 1);
    finish(allocator);
}

static void releasing_coalesces_with_the_run_before(void **state)
{
    struct allocator *allocator = drawn("a.bbcc");

    (void)state;
    assert_int_equal(allocator_release(allocator, 2), 0);
    assert_int_equal(figures_of(allocator).free_runs, 1);
    assert_int_equal(figures_of(allocator).largest_free_blocks, 3);
    finish(allocator);
}

static void releasing_coalesces_with_the_run_behind(void **state)
{
    struct allocator *allocator = drawn("aabb.c");

    (void)state;
    assert_int_equal(allocator_release(allocator, 2), 0);
    assert_int_equal(figures_of(allocator).free_runs, 1);
    assert_int_equal(figures_of(allocator).largest_free_blocks, 3);
    finish(allocator);
}

static void releasing_coalesces_with_both_runs(void **state)
{
    struct allocator *allocator = drawn("a.bb..c");

    (void)state;
    assert_int_equal(allocator_release(allocator, 2), 0);
    assert_int_equal(figures_of(allocator).free_runs, 1);
    assert_int_equal(figures_of(allocator).largest_free_blocks, 5);
    finish(allocator);
}

static void releasing_what_is_no_extent_is_refused(void **state)
{
    struct allocator *allocator = drawn("..aaa..");

    (void)state;
    assert_int_equal(allocator_release(allocator, 0), -ENOENT);
    assert_int_equal(allocator_release(allocator, 3), -ENOENT);
    assert_int_equal(allocator_release(allocator, 7), -ENOENT);
    assert_int_equal(allocator_release(allocator, ALLOCATOR_NOWHERE), -ENOENT);
    assert_int_equal(allocator_release(allocator, 2), 0);
    assert_int_equal(allocator_release(allocator, 2), -ENOENT);
    finish(allocator);
}

static void an_extent_grows_into_the_run_behind(void **state)
{
    struct allocator *allocator = drawn("aa...b");

    (void)state;
    assert_int_equal(allocator_resize_in_place(allocator, 0, 4), 0);
    assert_looks(allocator, "aaaa.b");
    assert_int_equal(allocator_resize_in_place(allocator, 0, 5), 0);
    assert_looks(allocator, "aaaaab");
    finish(allocator);
}

static void an_extent_does_not_grow_over_another(void **state)
{
    struct allocator *allocator = drawn("aa.bb");

    (void)state;
    assert_int_equal(allocator_resize_in_place(allocator, 0, 4), -ENOSPC);
    assert_int_equal(allocator_resize_in_place(allocator, 3, 3), -ENOSPC);
    assert_int_equal(allocator_resize_in_place(allocator, 3, UINT64_MAX), -ENOSPC);
    assert_looks(allocator, "aa.bb");
    finish(allocator);
}

static void an_extent_shrinks_before_a_run(void **state)
{
    struct allocator *allocator = drawn("aaaa.b");

    (void)state;
    assert_int_equal(allocator_resize_in_place(allocator, 0, 1), 0);
    assert_looks(allocator, "a....b");
    assert_int_equal(figures_of(allocator).free_runs, 1);
    finish(allocator);
}

static void an_extent_shrinks_before_an_extent(void **state)
{
    struct allocator *allocator = drawn("aaaabb");

    (void)state;
    assert_int_equal(allocator_resize_in_place(allocator, 0, 3), 0);
    assert_looks(allocator, "aaa.bb");
    finish(allocator);
}

static void resizing_to_the_same_size_changes_nothing(void **state)
{
    struct allocator *allocator = drawn("aa.b");

    (void)state;
    assert_int_equal(allocator_resize_in_place(allocator, 0, 2), 0);
    assert_looks(allocator, "aa.b");
    finish(allocator);
}

static void impossible_resizes_are_refused(void **state)
{
    struct allocator *allocator = drawn("aa.b");

    (void)state;
    assert_int_equal(allocator_resize_in_place(allocator, 0, 0), -EINVAL);
    assert_int_equal(allocator_resize_in_place(allocator, 1, 1), -ENOENT);
    assert_int_equal(allocator_resize_in_place(allocator, 2, 1), -ENOENT);
    finish(allocator);
}

static void a_quota_limits_its_domain_only(void **state)
{
    uint64_t start_block;

    assert_int_equal(allocator_quota_set(*state, ALICE, 10), 0);
    assert_int_equal(allocator_allocate(*state, ALICE, 11, COOKIE, &start_block), -EDQUOT);
    assert_int_equal(allocator_allocate(*state, ALICE, 10, COOKIE, &start_block), 0);
    assert_int_equal(allocator_allocate_at(*state, ALICE, 50, 1, COOKIE), -EDQUOT);
    assert_int_equal(allocator_resize_in_place(*state, start_block, 11), -EDQUOT);
    assert_int_equal(allocator_allocate(*state, BOB, 50, COOKIE, &start_block), 0);
}

static void what_is_given_back_may_be_had_again(void **state)
{
    uint64_t start_block;

    assert_int_equal(allocator_quota_set(*state, ALICE, 10), 0);
    start_block = take(*state, 10);
    assert_int_equal(allocator_resize_in_place(*state, start_block, 4), 0);
    start_block = take(*state, 6);
    assert_int_equal(allocator_release(*state, start_block), 0);
    take(*state, 6);
    assert_int_equal(usage_of(*state, ALICE).charged_blocks, 10);
}

static void a_quota_below_what_is_held_takes_nothing_away(void **state)
{
    uint64_t start_block = take(*state, 20);

    assert_int_equal(allocator_quota_set(*state, ALICE, 5), 0);
    assert_int_equal(usage_of(*state, ALICE).held_blocks, 20);
    assert_int_equal(allocator_resize_in_place(*state, start_block, 21), -EDQUOT);
    assert_int_equal(allocator_resize_in_place(*state, start_block, 8), 0);
    assert_int_equal(allocator_allocate(*state, ALICE, 1, COOKIE, &start_block), -EDQUOT);
    assert_int_equal(allocator_quota_set(*state, ALICE, 0), 0);
    take(*state, 50);
}

static void domains_are_listed_by_what_they_hold(void **state)
{
    struct allocator_usage top[4];

    assert_int_equal(allocator_top_domains(*state, top, 4), 0);
    assert_int_equal(allocator_allocate_at(*state, 7, 0, 5, COOKIE), 0);
    assert_int_equal(allocator_allocate_at(*state, 3, 10, 8, COOKIE), 0);
    assert_int_equal(allocator_allocate_at(*state, 5, 20, 5, COOKIE), 0);
    assert_int_equal(allocator_quota_set(*state, 9, 1), 0);
    assert_int_equal(allocator_top_domains(*state, top, 4), 3);
    assert_int_equal(top[0].domain, 3);
    assert_int_equal(top[0].held_blocks, 8);
    assert_int_equal(top[1].domain, 5);
    assert_int_equal(top[2].domain, 7);
    assert_int_equal(allocator_top_domains(*state, top, 1), 1);
}

static void a_replacement_is_charged_for_the_larger_of_the_two(void **state)
{
    uint64_t old_block = take(*state, 10);
    uint64_t new_block;
    struct allocator_usage usage;

    assert_int_equal(allocator_quota_set(*state, ALICE, 12), 0);
    assert_int_equal(allocator_replace(*state, old_block, 13, &new_block), -EDQUOT);
    assert_int_equal(allocator_replace(*state, old_block, 12, &new_block), 0);
    usage = usage_of(*state, ALICE);
    assert_int_equal(usage.held_blocks, 22);
    assert_int_equal(usage.charged_blocks, 12);
    assert_int_equal(figures_of(*state).outgoing_blocks, 10);
    assert_int_equal(allocator_release(*state, old_block), 0);
    usage = usage_of(*state, ALICE);
    assert_int_equal(usage.held_blocks, 12);
    assert_int_equal(usage.charged_blocks, 12);
    assert_int_equal(figures_of(*state).outgoing_blocks, 0);
}

static void a_smaller_replacement_frees_no_quota_before_the_old_one_goes(void **state)
{
    uint64_t old_block = take(*state, 10);
    uint64_t new_block;

    assert_int_equal(allocator_replace(*state, old_block, 2, &new_block), 0);
    assert_int_equal(usage_of(*state, ALICE).charged_blocks, 10);
    assert_int_equal(allocator_release(*state, old_block), 0);
    assert_int_equal(usage_of(*state, ALICE).charged_blocks, 2);
}

static void a_replacement_that_is_given_up_leaves_the_old_extent(void **state)
{
    uint64_t old_block = take(*state, 10);
    uint64_t new_block;
    struct allocator_span span;

    assert_int_equal(allocator_replace(*state, old_block, 15, &new_block), 0);
    assert_int_equal(allocator_release(*state, new_block), 0);
    assert_int_equal(usage_of(*state, ALICE).charged_blocks, 10);
    assert_int_equal(allocator_find(*state, old_block, &span), 0);
    assert_int_equal(span.replaced_by_block, ALLOCATOR_NOWHERE);
    assert_int_equal(allocator_resize_in_place(*state, old_block, 11), 0);
}

static void a_replacement_takes_domain_and_cookie_along(void **state)
{
    uint64_t old_block = take(*state, 10);
    uint64_t new_block;
    struct allocator_span span;

    assert_int_equal(allocator_replace(*state, old_block, 4, &new_block), 0);
    assert_int_equal(allocator_find(*state, new_block, &span), 0);
    assert_int_equal(span.domain, ALICE);
    assert_int_equal(span.cookie, COOKIE);
    assert_int_equal(span.replaces_block, old_block);
    assert_int_equal(allocator_find(*state, old_block, &span), 0);
    assert_int_equal(span.replaced_by_block, new_block);
}

static void a_move_under_way_is_left_alone(void **state)
{
    uint64_t old_block = take(*state, 10);
    uint64_t new_block;
    uint64_t other_block;

    assert_int_equal(allocator_replace(*state, old_block, 10, &new_block), 0);
    assert_int_equal(allocator_replace(*state, old_block, 10, &other_block), -EBUSY);
    assert_int_equal(allocator_replace(*state, new_block, 10, &other_block), -EBUSY);
    assert_int_equal(allocator_replace_at(*state, new_block, 50, 10), -EBUSY);
    assert_int_equal(allocator_resize_in_place(*state, old_block, 5), -EBUSY);
    assert_int_equal(allocator_resize_in_place(*state, new_block, 5), -EBUSY);
}

static void impossible_replacements_are_refused(void **state)
{
    uint64_t old_block = take(*state, 10);
    uint64_t new_block;

    assert_int_equal(allocator_replace(*state, old_block + 1, 1, &new_block), -ENOENT);
    assert_int_equal(allocator_replace(*state, old_block, 0, &new_block), -EINVAL);
    assert_int_equal(allocator_replace(*state, old_block, 91, &new_block), -ENOSPC);
    assert_int_equal(allocator_replace_at(*state, old_block, 99, 2), -EINVAL);
    assert_int_equal(allocator_replace_at(*state, old_block, 5, 10), -EBUSY);
}

static void figures_tell_use_and_fragmentation(void **state)
{
    struct allocator_figures figures = figures_of(*state);

    assert_int_equal(figures.free_blocks, 100);
    assert_int_equal(figures.fragmentation_permille, 0);
    assert_int_equal(allocator_allocate_at(*state, ALICE, 0, 20, COOKIE), 0);
    assert_int_equal(allocator_allocate_at(*state, ALICE, 40, 20, COOKIE), 0);
    figures = figures_of(*state);
    assert_int_equal(figures.total_blocks, 100);
    assert_int_equal(figures.used_blocks, 40);
    assert_int_equal(figures.largest_free_blocks, 40);
    assert_int_equal(figures.free_runs, 2);
    assert_int_equal(figures.extents, 2);
    assert_int_equal(figures.fragmentation_permille, 334);
    assert_int_equal(allocator_release(*state, 40), 0);
    assert_int_equal(figures_of(*state).used_high_water_blocks, 40);
    assert_int_equal(allocator_allocate_at(*state, ALICE, 20, 80, COOKIE), 0);
    assert_int_equal(figures_of(*state).largest_free_blocks, 0);
    assert_int_equal(figures_of(*state).fragmentation_permille, 0);
}

static void spans_are_found_by_any_block_in_them(void **state)
{
    struct allocator *allocator = drawn("..aaa..");
    struct allocator_span span;

    (void)state;
    assert_int_equal(allocator_span_at(allocator, 4, &span), 0);
    assert_int_equal(span.start_block, 2);
    assert_int_equal(allocator_span_at(allocator, 6, &span), 0);
    assert_true(span.free);
    assert_int_equal(span.start_block, 5);
    assert_int_equal(allocator_span_at(allocator, 7, &span), -ENOENT);
    assert_int_equal(allocator_find(allocator, 4, &span), -ENOENT);
    finish(allocator);
}

/* 200,000 operations, the books checked and compared after each. */
static void random_operations_agree_with_the_model(void **state)
{
    uint64_t seed = UINT64_C(88172645463325252);
    unsigned long operations = 0;

    (void)state;
    while (operations < 200000) {
        uint8_t bytes[4096];

        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes[i] = (uint8_t)(seed >> 32);
        }
        operations += model_run(bytes, sizeof(bytes));
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_impossible_size_is_refused),
        cmocka_unit_test(the_largest_section_works),
        cmocka_unit_test(freeing_nothing_is_allowed),
        cmocka_unit_test(the_shortest_run_that_fits_is_taken),
        cmocka_unit_test(the_lowest_of_equal_runs_is_taken),
        CASE(no_blocks_are_refused),
        cmocka_unit_test(a_full_section_is_told_from_a_fragmented_one),
        CASE(a_given_place_is_taken),
        cmocka_unit_test(a_taken_place_is_refused),
        CASE(a_place_beyond_the_end_is_refused),
        cmocka_unit_test(releasing_between_extents_leaves_a_run),
        cmocka_unit_test(releasing_coalesces_with_the_run_before),
        cmocka_unit_test(releasing_coalesces_with_the_run_behind),
        cmocka_unit_test(releasing_coalesces_with_both_runs),
        cmocka_unit_test(releasing_what_is_no_extent_is_refused),
        cmocka_unit_test(an_extent_grows_into_the_run_behind),
        cmocka_unit_test(an_extent_does_not_grow_over_another),
        cmocka_unit_test(an_extent_shrinks_before_a_run),
        cmocka_unit_test(an_extent_shrinks_before_an_extent),
        cmocka_unit_test(resizing_to_the_same_size_changes_nothing),
        cmocka_unit_test(impossible_resizes_are_refused),
        CASE(a_quota_limits_its_domain_only),
        CASE(what_is_given_back_may_be_had_again),
        CASE(a_quota_below_what_is_held_takes_nothing_away),
        CASE(domains_are_listed_by_what_they_hold),
        CASE(a_replacement_is_charged_for_the_larger_of_the_two),
        CASE(a_smaller_replacement_frees_no_quota_before_the_old_one_goes),
        CASE(a_replacement_that_is_given_up_leaves_the_old_extent),
        CASE(a_replacement_takes_domain_and_cookie_along),
        CASE(a_move_under_way_is_left_alone),
        CASE(impossible_replacements_are_refused),
        CASE(figures_tell_use_and_fragmentation),
        cmocka_unit_test(spans_are_found_by_any_block_in_them),
        cmocka_unit_test(random_operations_agree_with_the_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
