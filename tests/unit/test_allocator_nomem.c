/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The allocator when memory runs out. The modules that allocate are compiled into this test with a
 * calloc that fails on demand; the linker then leaves the library's own ones out.
 */
#include <stdlib.h>

static unsigned allocations_left;

static void *failing_calloc(size_t count, size_t size)
{
    if (!allocations_left)
        return NULL;
    allocations_left--;
    return calloc(count, size);
}

#define calloc failing_calloc
#include "allocator/account.c"
#include "allocator/allocator.c"
#include "allocator/span.c"
#undef calloc

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PLENTY 1000u

/* All books as text, to see that a failure left them as they were. */
static void write_books(const struct allocator *allocator, char *text, size_t size)
{
    struct allocator_span span;
    struct allocator_usage usage;
    size_t length = 0;

    for (uint64_t at = 0; !allocator_span_at(allocator, at, &span); at += span.blocks)
        length +=
            (size_t)snprintf(text + length, size - length, "%llu+%llu %d %u %llx %llu\n",
                             (unsigned long long)span.start_block, (unsigned long long)span.blocks,
                             span.free, span.domain, (unsigned long long)span.replaces_block,
                             (unsigned long long)span.charged_blocks);
    for (uint32_t domain = 0; domain < 4; domain++) {
        allocator_domain_usage(allocator, domain, &usage);
        length += (size_t)snprintf(text + length, size - length, "%u: %llu %llu\n", domain,
                                   (unsigned long long)usage.charged_blocks,
                                   (unsigned long long)usage.quota_blocks);
    }
    assert_true(length < size);
}

/* A section "aaaa..bbbb" with both extents of domain 1. */
static struct allocator *make(void)
{
    struct allocator *allocator;

    allocations_left = PLENTY;
    assert_int_equal(allocator_new(10, &allocator), 0);
    assert_int_equal(allocator_allocate_at(allocator, 1, 0, 4, 0), 0);
    assert_int_equal(allocator_allocate_at(allocator, 1, 6, 4, 0), 0);
    return allocator;
}

/* Does the operation with ever more memory until it works; each failure is -ENOMEM and changes
 * nothing. */
static void assert_fails_cleanly(int (*operation)(struct allocator *), unsigned failures)
{
    for (unsigned left = 0;; left++) {
        struct allocator *allocator = make();
        const char *why = NULL;
        char before[1024];
        char after[1024];
        int r;

        write_books(allocator, before, sizeof(before));
        allocations_left = left;
        r = operation(allocator);
        write_books(allocator, after, sizeof(after));
        assert_int_equal(allocator_check(allocator, &why), 0);
        allocator_free(allocator);
        if (!r) {
            assert_int_equal(left, failures);
            return;
        }
        assert_int_equal(r, -ENOMEM);
        assert_string_equal(before, after);
    }
}

static int allocate_for_a_new_domain(struct allocator *allocator)
{
    uint64_t start_block;

    return allocator_allocate(allocator, 2, 1, 0, &start_block);
}

static int split_a_run(struct allocator *allocator)
{
    struct allocator *wide;
    const char *why;
    unsigned left = allocations_left;
    int r;

    (void)allocator;
    allocations_left = PLENTY;
    assert_int_equal(allocator_new(10, &wide), 0);
    allocations_left = left;
    r = allocator_allocate_at(wide, 1, 3, 4, 0);
    assert_int_equal(allocator_check(wide, &why), 0);
    allocator_free(wide);
    return r;
}

static int replace(struct allocator *allocator)
{
    return allocator_replace_at(allocator, 0, 4, 2);
}

static int shrink_before_an_extent(struct allocator *allocator)
{
    return allocator_resize_in_place(allocator, 6, 3);
}

static int set_the_quota_of_a_new_domain(struct allocator *allocator)
{
    return allocator_quota_set(allocator, 2, 5);
}

static void making_one_fails_cleanly(void **state)
{
    struct allocator *allocator = NULL;

    (void)state;
    for (unsigned left = 0; left < 2; left++) {
        allocations_left = left;
        assert_int_equal(allocator_new(10, &allocator), -ENOMEM);
        assert_null(allocator);
    }
}

static void allocating_fails_cleanly(void **state)
{
    (void)state;
    assert_fails_cleanly(allocate_for_a_new_domain, 2);
}

static void splitting_a_run_fails_cleanly(void **state)
{
    (void)state;
    assert_fails_cleanly(split_a_run, 3);
}

static void replacing_fails_cleanly(void **state)
{
    (void)state;
    assert_fails_cleanly(replace, 1);
}

static void shrinking_fails_cleanly(void **state)
{
    (void)state;
    assert_fails_cleanly(shrink_before_an_extent, 1);
}

static void setting_a_quota_fails_cleanly(void **state)
{
    (void)state;
    assert_fails_cleanly(set_the_quota_of_a_new_domain, 1);
}

static void releasing_and_growing_need_no_memory(void **state)
{
    struct allocator *allocator = make();

    (void)state;
    allocations_left = 0;
    assert_int_equal(allocator_resize_in_place(allocator, 0, 6), 0);
    assert_int_equal(allocator_resize_in_place(allocator, 0, 6), 0);
    assert_int_equal(allocator_release(allocator, 6), 0);
    assert_int_equal(allocator_release(allocator, 0), 0);
    allocator_free(allocator);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_one_fails_cleanly),
        cmocka_unit_test(allocating_fails_cleanly),
        cmocka_unit_test(splitting_a_run_fails_cleanly),
        cmocka_unit_test(replacing_fails_cleanly),
        cmocka_unit_test(shrinking_fails_cleanly),
        cmocka_unit_test(setting_a_quota_fails_cleanly),
        cmocka_unit_test(releasing_and_growing_need_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
