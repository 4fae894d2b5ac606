/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's end of the control protocol, against a broker that the test plays on a socket pair.
 */
#include "client/connection.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/vchan.h"

struct fixture {
    struct connection connection;
    int broker;
};

static int setup(void **state)
{
    static struct fixture fixture;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) < 0)
        return -1;
    fixture = (struct fixture){.connection = {.socket = ends[0]}, .broker = ends[1]};
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    connection_close(&fixture->connection);
    if (fixture->broker >= 0)
        close(fixture->broker);
    return 0;
}

static void reply_text(struct fixture *fixture, uint32_t seq, const char *sentence)
{
    struct proto_text text = {.length = (uint32_t)strlen(sentence)};

    memcpy(text.text, sentence, strlen(sentence));
    assert_int_equal(
        proto_reply(fixture->broker, PROTO_EXPLAIN, seq, 0, &text, sizeof(text), NULL, 0, NULL, 0),
        0);
}

static int call_list(struct fixture *fixture, struct proto_message *message)
{
    const struct proto_list list = {.channel = PROTO_ANY};
    struct patience patience = {.timeout_ms = 20};

    return connection_call(&fixture->connection, PROTO_LIST_DOMAINS, &list, sizeof(list), message,
                           &patience);
}

static void requests_are_numbered_from_one(void **state)
{
    struct fixture *fixture = *state;
    struct proto_message message;
    uint32_t seq = 0;

    assert_int_equal(connection_greet(&fixture->connection, 7), 0);
    assert_int_equal(connection_request(&fixture->connection, PROTO_CHANNEL_CLOSE, NULL, 0, &seq),
                     0);
    assert_int_equal(seq, 3);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(proto_receive(fixture->broker, &message, 0), 1);
        assert_int_equal(message.header.seq, i);
        assert_int_equal(proto_request_check(message.header.id, message.body, message.header.size),
                         0);
    }
}

static void an_unanswered_call_ends_with_its_timeout(void **state)
{
    struct proto_message message;

    assert_int_equal(call_list(*state, &message), -ETIMEDOUT);
}

static void replies_to_older_requests_are_passed_over(void **state)
{
    struct fixture *fixture = *state;
    struct proto_list_reply list = {.item_bytes = 1};
    struct proto_get_version_reply version = {.version = PROTO_VERSION};
    struct proto_message message;

    fixture->connection.seq = 1;
    proto_reply(fixture->broker, PROTO_GET_VERSION, 1, 0, &version, sizeof(version), NULL, 0, NULL,
                0);
    proto_reply(fixture->broker, PROTO_LIST_DOMAINS, 2, 0, &list, sizeof(list), NULL, 0, NULL, 0);
    assert_int_equal(call_list(fixture, &message), 0);
    assert_int_equal(message.header.seq, 2);
}

static void the_error_of_an_older_request_is_the_result(void **state)
{
    struct fixture *fixture = *state;
    struct proto_message message;

    fixture->connection.seq = 2;
    proto_reply(fixture->broker, PROTO_HELLO, 2, -EPERM, NULL, 0, NULL, 0, NULL, 0);
    assert_int_equal(call_list(fixture, &message), -EPERM);
}

static void a_reply_of_another_command_or_size_is_rubbish(void **state)
{
    struct fixture *fixture = *state;
    struct proto_list_reply list = {0};
    struct proto_message message;

    proto_reply(fixture->broker, PROTO_LIST_RINGS, 1, 0, &list, sizeof(list), NULL, 0, NULL, 0);
    assert_int_equal(call_list(fixture, &message), -EPROTO);
    proto_reply(fixture->broker, PROTO_LIST_DOMAINS, 2, 0, &list, sizeof(list) - 8, NULL, 0, NULL,
                0);
    assert_int_equal(call_list(fixture, &message), -EPROTO);
    proto_reply(fixture->broker, 999, 3, 0, NULL, 0, NULL, 0, NULL, 0);
    assert_int_equal(call_list(fixture, &message), -EPROTO);
    proto_send(fixture->broker, PROTO_LIST_DOMAINS, 4, NULL, 0, NULL, 0, NULL, 0);
    assert_int_equal(call_list(fixture, &message), -EPROTO);
    assert_int_equal(send(fixture->broker, "abc", 3, 0), 3);
    assert_int_equal(call_list(fixture, &message), -EPROTO);
}

static void descriptors_where_none_belong_are_rubbish_and_closed(void **state)
{
    struct fixture *fixture = *state;
    struct proto_list_reply list = {0};
    struct proto_message message;
    int lowest_free = dup(STDIN_FILENO);

    close(lowest_free);
    proto_reply(fixture->broker, PROTO_LIST_DOMAINS, 1, 0, &list, sizeof(list), NULL, 0,
                &(int){STDIN_FILENO}, 1);
    assert_int_equal(call_list(fixture, &message), -EPROTO);
    int again = dup(STDIN_FILENO);
    close(again);
    assert_int_equal(again, lowest_free);
}

static void a_broker_that_closes_is_no_broker(void **state)
{
    struct fixture *fixture = *state;
    struct proto_message message;

    close(fixture->broker);
    fixture->broker = -1;
    assert_int_equal(call_list(fixture, &message), -ECONNREFUSED);
    assert_non_null(strstr(vchan_explain(), "closed"));
}

static void the_sentence_of_the_broker_is_kept(void **state)
{
    struct fixture *fixture = *state;

    /* The reply to an older request that failed comes first. */
    fixture->connection.seq = 3;
    proto_reply(fixture->broker, PROTO_CHANNEL_OPEN, 3, -EADDRINUSE, NULL, 0, NULL, 0, NULL, 0);
    reply_text(fixture, 4, "port 5000 for domain 3 is served by pid 812");
    connection_explain(&fixture->connection);
    assert_string_equal(vchan_explain(), "port 5000 for domain 3 is served by pid 812");
}

static void no_patience_does_not_wait_and_for_ever_is_minus_one(void **state)
{
    struct patience none = {.timeout_ms = 0}, ever = {.timeout_ms = -1},
                    some = {.timeout_ms = 1000};

    (void)state;
    assert_int_equal(patience_left_ms(&none), 0);
    assert_int_equal(patience_left_ms(&ever), -1);
    assert_int_equal(patience_left_ms(&some), 1000);
    usleep(2000);
    assert_in_range(patience_left_ms(&some), 1, 998);
    some.deadline_ns = 1;
    assert_int_equal(patience_left_ms(&some), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest cases[] = {
        CASE(requests_are_numbered_from_one),
        CASE(an_unanswered_call_ends_with_its_timeout),
        CASE(replies_to_older_requests_are_passed_over),
        CASE(the_error_of_an_older_request_is_the_result),
        CASE(a_reply_of_another_command_or_size_is_rubbish),
        CASE(descriptors_where_none_belong_are_rubbish_and_closed),
        CASE(a_broker_that_closes_is_no_broker),
        CASE(the_sentence_of_the_broker_is_kept),
        CASE(no_patience_does_not_wait_and_for_ever_is_minus_one),
    };

    return cmocka_run_group_tests(cases, NULL, NULL);
}
