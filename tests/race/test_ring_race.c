/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two ends and a broker at once; see tests/race/stress.h. Compiled with RING_MUTATION (a planted
 * bug), the test passes when the stress finds the bug.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ring/mutation.h"
#include "tests/race/stress.h"

#if RING_MUTATION_BUILD
/* What shows when an end goes needs many ends, and what shows while they run much running. */
static struct stress_options options_for(unsigned seed)
{
    if (MUTATED(DEAD_NOT_CLEAR))
        return (struct stress_options){.seed = seed, .kill_producer = true};
    if (MUTATED(ENDED_READ_AFTER_TAIL))
        return (struct stress_options){.seed = seed};
    return (struct stress_options){.seed = seed, .seconds = 5};
}

static void test_the_planted_bug_is_found(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= (options_for(0).seconds ? 12 : 200); seed++) {
        struct stress_options options = options_for(seed);
        struct stress_result result;
        stress_run(&options, &result);
        if (result.failed) {
            print_message("found with seed %u: %s\n", seed, result.why);
            return;
        }
    }
    fail_msg("the stress runs did not notice the bug");
}
#else
static unsigned seconds(void)
{
    const char *wanted = getenv("VCHAN_RACE_SECONDS");
    return wanted ? (unsigned)atoi(wanted) : 3;
}

static void run(struct stress_options options)
{
    struct stress_result result;

    options.seconds = options.seconds ? options.seconds : seconds();
    stress_run(&options, &result);
    if (result.failed)
        print_message("seed %u: %s\n", options.seed, result.why);
    print_message("%llu bytes, %llu generations, %llu followed, %llu reclaimed, %llu pinned\n",
                  (unsigned long long)result.bytes, (unsigned long long)result.generations,
                  (unsigned long long)result.followed, (unsigned long long)result.reclaimed,
                  (unsigned long long)result.pinned);
    assert_false(result.failed);
    /* A run in which nothing happened shows nothing. */
    assert_true(result.bytes > STRESS_BYTES_MIN && result.generations > STRESS_GENERATIONS_MIN &&
                result.followed > STRESS_FOLLOWED_MIN);
}

static void test_processes_without_fences(void **state)
{
    (void)state;
    run((struct stress_options){.seed = 1});
}

static void test_processes_with_fences(void **state)
{
    (void)state;
    run((struct stress_options){.seed = 2, .fence = true});
}

static void test_threads(void **state)
{
    (void)state;
    run((struct stress_options){.seed = 3, .threads = true});
}

static void test_a_producer_killed_anywhere_loses_no_published_byte(void **state)
{
    (void)state;
    for (unsigned seed = 10; seed < 14; seed++)
        run((struct stress_options){.seed = seed, .seconds = 1, .kill_producer = true});
}

static void test_a_consumer_killed_anywhere_leaves_reclaimable_memory(void **state)
{
    (void)state;
    for (unsigned seed = 20; seed < 24; seed++)
        run((struct stress_options){.seed = seed, .seconds = 1, .kill_consumer = true});
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#if RING_MUTATION_BUILD
        cmocka_unit_test(test_the_planted_bug_is_found),
#else
        cmocka_unit_test(test_processes_without_fences),
        cmocka_unit_test(test_processes_with_fences),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_a_producer_killed_anywhere_loses_no_published_byte),
        cmocka_unit_test(test_a_consumer_killed_anywhere_leaves_reclaimable_memory),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
