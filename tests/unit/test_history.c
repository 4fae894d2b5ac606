/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "broker/history.h"
#include "broker/rcu.h"
#include "ring/order.h"

static struct history *with_records(uint64_t count)
{
    struct history *history;

    assert_int_equal(history_new(&history), 0);
    for (uint64_t i = 1; i <= count; i++) {
        struct proto_decision decision = {.channel = (uint32_t)i,
                                          .outcome = PROTO_OUTCOME_PUBLISHED};
        snprintf(decision.reason, sizeof(decision.reason), "record %llu", (unsigned long long)i);
        assert_int_equal(history_add(history, &decision), i);
    }
    return history;
}

static void done(struct history *history)
{
    rcu_finish();
    history_free(history);
}

static void empty_history_has_nothing_and_no_next(void **state)
{
    (void)state;
    struct history *history = with_records(0);
    struct proto_decision decisions[4];
    uint64_t next = 7;

    assert_int_equal(history_read(history, 0, decisions, 4, &next), 0);
    assert_int_equal(next, 0);
    assert_int_equal(history_newest(history), 0);
    done(history);
}

static void pages_follow_one_another_by_cursor(void **state)
{
    (void)state;
    struct history *history = with_records(10);
    struct proto_decision decisions[4];
    uint64_t next;

    assert_int_equal(history_read(history, 0, decisions, 4, &next), 4);
    assert_int_equal(decisions[0].number, 1);
    assert_int_equal(next, 4);
    assert_int_equal(history_read(history, next, decisions, 4, &next), 4);
    assert_int_equal(decisions[3].number, 8);
    assert_int_equal(history_read(history, next, decisions, 4, &next), 2);
    assert_int_equal(decisions[1].number, 10);
    assert_int_equal(next, 0);
    done(history);
}

static void oldest_go_for_the_newest(void **state)
{
    (void)state;
    struct history *history = with_records(HISTORY_ENTRIES + 5);
    struct proto_decision decision;
    uint64_t next;

    assert_int_equal(history_read(history, 0, &decision, 1, &next), 1);
    assert_int_equal(decision.number, 6);
    assert_int_equal(decision.channel, 6);
    assert_int_equal(history_read(history, HISTORY_ENTRIES + 4, &decision, 1, &next), 1);
    assert_int_equal(decision.number, HISTORY_ENTRIES + 5);
    assert_int_equal(next, 0);
    done(history);
}

static void finished_move_changes_its_record(void **state)
{
    (void)state;
    struct history *history = with_records(3);
    struct proto_decision decisions[3];
    uint64_t next;

    history_finish(history, 2, PROTO_OUTCOME_DONE, 1234);
    history_explain(history, 3, "the sender is in an operation");
    assert_int_equal(history_read(history, 0, decisions, 3, &next), 3);
    assert_int_equal(decisions[1].outcome, PROTO_OUTCOME_DONE);
    assert_int_equal(decisions[1].took_ns, 1234);
    assert_string_equal(decisions[1].reason, "record 2");
    assert_int_equal(decisions[2].outcome, PROTO_OUTCOME_PUBLISHED);
    assert_string_equal(decisions[2].reason, "the sender is in an operation");
    assert_true(decisions[0].time_ns > 0);
    done(history);
}

static void finishing_a_record_that_has_gone_changes_nothing(void **state)
{
    (void)state;
    struct history *history = with_records(HISTORY_ENTRIES + 1);
    struct proto_decision decision;
    uint64_t next;

    history_finish(history, 1, PROTO_OUTCOME_DONE, 1);
    history_finish(history, HISTORY_ENTRIES + 2, PROTO_OUTCOME_DONE, 1);
    history_read(history, HISTORY_ENTRIES, &decision, 1, &next);
    assert_int_equal(decision.number, HISTORY_ENTRIES + 1);
    assert_int_equal(decision.outcome, PROTO_OUTCOME_PUBLISHED);
    done(history);
}

static void cursor_from_the_future_gets_nothing(void **state)
{
    (void)state;
    struct history *history = with_records(3);
    struct proto_decision decision;
    uint64_t next = 1;

    assert_int_equal(history_read(history, UINT64_MAX, &decision, 1, &next), 0);
    assert_int_equal(next, 0);
    done(history);
}

struct reader {
    struct history *history;
    uint32_t stop;
    uint64_t wrong, seen;
};

static void *read_on(void *context)
{
    struct reader *reader = context;
    struct proto_decision decisions[64];
    uint64_t next;

    rcu_register_thread();
    while (!order_load_plain(&reader->stop)) {
        uint64_t cursor = 0, last = 0;
        do {
            size_t count = history_read(reader->history, cursor, decisions, 64, &next);
            for (size_t i = 0; i < count; i++) {
                reader->wrong += decisions[i].number <= last ||
                                 decisions[i].channel != (uint32_t)decisions[i].number;
                last = decisions[i].number;
            }
            order_store_plain(&reader->seen, reader->seen + count);
            cursor = next;
        } while (next);
    }
    rcu_unregister_thread();
    return NULL;
}

static void reader_never_sees_half_a_record(void **state)
{
    (void)state;
    struct reader reader = {.history = with_records(100)};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, read_on, &reader), 0);
    for (uint32_t i = 101; i < 20000 || order_load_plain(&reader.seen) == 0; i++) {
        const struct proto_decision decision = {.channel = i};
        history_add(reader.history, &decision);
        history_finish(reader.history, i - 50, PROTO_OUTCOME_DONE, i);
    }
    order_store_plain(&reader.stop, 1);
    pthread_join(thread, NULL);
    assert_int_equal(reader.wrong, 0);
    assert_true(reader.seen > 0);
    done(reader.history);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_history_has_nothing_and_no_next),
        cmocka_unit_test(pages_follow_one_another_by_cursor),
        cmocka_unit_test(oldest_go_for_the_newest),
        cmocka_unit_test(finished_move_changes_its_record),
        cmocka_unit_test(finishing_a_record_that_has_gone_changes_nothing),
        cmocka_unit_test(cursor_from_the_future_gets_nothing),
        cmocka_unit_test(reader_never_sees_half_a_record),
    };

    rcu_register_thread();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rcu_unregister_thread();
    return failed;
}
