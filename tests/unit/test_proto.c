/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/proto.h"
#include "proto/socket.h"

static struct proto_message message;

static void make_pair(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static void close_pair(const int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

static void test_every_id_is_in_the_table_once(void **state)
{
    (void)state;
    for (unsigned id = 1; id <= PROTO_COMMAND_MAX; id++) {
        assert_non_null(proto_command_find(id));
        assert_int_equal(proto_command_find(id)->id, id);
    }
    assert_null(proto_command_find(0));
    assert_null(proto_command_find(PROTO_COMMAND_MAX + 1));
    assert_null(proto_command_find(0x8001));
    assert_non_null(proto_event_find(0x8001));
    assert_null(proto_event_find(1));
    assert_null(proto_event_find(0x8000));
    assert_null(proto_event_find(0x8000 + PROTO_EVENT_MAX + 1));
}

static void test_masks_tell_unknown_from_forbidden(void **state)
{
    struct proto_allow any = proto_allow_default(PROTO_MAY_ANY);
    struct proto_allow admin = proto_allow_default(PROTO_MAY_ANY | PROTO_MAY_ADMIN);
    (void)state;
    assert_int_equal(proto_allow_command(&any, PROTO_CHANNEL_OPEN), 0);
    assert_int_equal(proto_allow_command(&any, PROTO_RING_SET), -EPERM);
    assert_int_equal(proto_allow_command(&admin, PROTO_RING_SET), 0);
    assert_int_equal(proto_allow_command(&admin, 999), -ENOSYS);
    proto_allow_deny(&admin, PROTO_RING_SET);
    assert_int_equal(proto_allow_command(&admin, PROTO_RING_SET), -EPERM);
    assert_int_equal(proto_allow_event(&any, PROTO_EVENT_PRESSURE), 0);
    proto_allow_deny(&any, PROTO_EVENT_PRESSURE);
    assert_int_equal(proto_allow_event(&any, PROTO_EVENT_PRESSURE), -EPERM);
    assert_int_equal(proto_allow_event(&any, 0x9000), -ENOSYS);
}

static void test_a_request_of_the_wrong_size_is_einval(void **state)
{
    uint64_t body[1024] = {0};
    (void)state;
    for (unsigned id = 1; id <= PROTO_COMMAND_MAX; id++) {
        size_t right = proto_command_find(id)->request_bytes;
        assert_int_equal(proto_request_check(id, body, right + 1), -EINVAL);
        if (right > 0)
            assert_int_equal(proto_request_check(id, body, right - 1), -EINVAL);
    }
    assert_int_equal(proto_request_check(0, body, 0), -ENOSYS);
}

static void test_padding_must_be_zero(void **state)
{
    struct proto_check check = {.id = 1, .padding2 = 1};
    struct proto_hello hello = {.padding = 7};
    struct proto_channel_open open = {.mode = PROTO_OPEN_SERVER, .padding = 1};
    struct proto_list list = {.padding = 1};
    struct proto_domain_set set = {.padding = 1};
    struct proto_rebalance rebalance = {.padding = 1};
    struct proto_event_ring ring = {.padding = 1};
    (void)state;
    assert_int_equal(proto_request_check(PROTO_CHECK_COMMAND, &check, sizeof(check)), -EINVAL);
    assert_int_equal(proto_request_check(PROTO_HELLO, &hello, sizeof(hello)), -EINVAL);
    assert_int_equal(proto_request_check(PROTO_CHANNEL_OPEN, &open, sizeof(open)), -EINVAL);
    assert_int_equal(proto_request_check(PROTO_LIST_RINGS, &list, sizeof(list)), -EINVAL);
    assert_int_equal(proto_request_check(PROTO_DOMAIN_SET, &set, sizeof(set)), -EINVAL);
    assert_int_equal(proto_request_check(PROTO_REBALANCE, &rebalance, sizeof(rebalance)), -EINVAL);
    assert_int_equal(proto_event_check(PROTO_EVENT_PRESSURE, &ring, sizeof(ring)), -EINVAL);
}

static void test_numbers_out_of_range_are_einval(void **state)
{
    const struct proto_channel_open sound = {
        .mode = PROTO_OPEN_CLIENT, .port = 5000, .peer_domain = 3};
    struct proto_channel_open open = sound;
    struct proto_ring_set set = {.fields = PROTO_SET_WEIGHT, .weight = 0};
    struct proto_event_broken broken = {.ring = 0, .text = "no end"};
    (void)state;
    assert_int_equal(proto_request_check(PROTO_CHANNEL_OPEN, &open, sizeof(open)), 0);
    open.peer_domain = PROTO_DOMAIN_MAX + 1;
    assert_int_equal(proto_request_check(PROTO_CHANNEL_OPEN, &open, sizeof(open)), -EINVAL);
    open = sound;
    open.port = 0x80000000u;
    assert_int_equal(proto_request_check(PROTO_CHANNEL_OPEN, &open, sizeof(open)), -EINVAL);
    open = sound;
    open.mode = 4;
    assert_int_equal(proto_request_check(PROTO_CHANNEL_OPEN, &open, sizeof(open)), -EINVAL);
    open = sound;
    open.flags = 2;
    assert_int_equal(proto_request_check(PROTO_CHANNEL_OPEN, &open, sizeof(open)), -EINVAL);
    assert_int_equal(proto_request_check(PROTO_RING_SET, &set, sizeof(set)), -EINVAL);
    set = (struct proto_ring_set){
        .fields = PROTO_SET_MIN | PROTO_SET_MAX, .min_bytes = 2, .max_bytes = 1};
    assert_int_equal(proto_request_check(PROTO_RING_SET, &set, sizeof(set)), -EINVAL);
    assert_int_equal(proto_event_check(PROTO_EVENT_BROKEN, &broken, sizeof(broken)), 0);
    memset(broken.text, 'x', sizeof(broken.text));
    assert_int_equal(proto_event_check(PROTO_EVENT_BROKEN, &broken, sizeof(broken)), -EINVAL);
}

static void test_a_message_arrives_whole_with_its_descriptors(void **state)
{
    int pair[2], attached[3] = {0, 1, 2};
    (void)state;
    make_pair(pair);
    assert_int_equal(proto_send(pair[0], 5, 42, "abcdefgh", 8, "items", 5, attached, 3), 0);
    assert_int_equal(proto_receive(pair[1], &message, 0), 1);
    assert_int_equal(message.header.id, 5);
    assert_int_equal(message.header.seq, 42);
    assert_int_equal(message.header.size, 13);
    assert_memory_equal(message.body, "abcdefghitems", 13);
    assert_int_equal(message.descriptor_count, 3);
    for (int i = 0; i < 3; i++)
        assert_true(message.descriptors[i] > 2);
    proto_message_close(&message);
    assert_int_equal(message.descriptor_count, 0);
    close_pair(pair);
}

static void test_a_failed_reply_carries_nothing_else(void **state)
{
    int pair[2], attached[1] = {0};
    struct proto_error error;
    (void)state;
    make_pair(pair);
    assert_int_equal(proto_reply(pair[0], 5, 1, -ENOSPC, "abcdefgh", 8, NULL, 0, attached, 1), 0);
    assert_int_equal(proto_receive(pair[1], &message, 0), 1);
    assert_int_equal(message.header.size, sizeof(error));
    assert_int_equal(message.descriptor_count, 0);
    memcpy(&error, message.body, sizeof(error));
    assert_int_equal(error.err, -ENOSPC);
    assert_int_equal(error.padding, 0);
    close_pair(pair);
}

static void test_lengths_that_lie_are_ebadmsg(void **state)
{
    struct proto_header header = {.id = 1, .size = 8, .seq = 1};
    int pair[2];
    (void)state;
    make_pair(pair);
    assert_int_equal(send(pair[0], &header, sizeof(header), 0), sizeof(header)); /* 8 bytes short */
    assert_int_equal(proto_receive(pair[1], &message, 0), -EBADMSG);
    assert_int_equal(send(pair[0], &header, 5, 0), 5);
    assert_int_equal(proto_receive(pair[1], &message, 0), -EBADMSG);
    header.size = 0;
    uint8_t longer[32] = {0};
    memcpy(longer, &header, sizeof(header));
    assert_int_equal(send(pair[0], longer, sizeof(longer), 0), sizeof(longer));
    assert_int_equal(proto_receive(pair[1], &message, 0), -EBADMSG);
    close_pair(pair);
}

static void test_larger_than_the_limit_is_emsgsize(void **state)
{
    static uint8_t large[PROTO_MESSAGE_BYTES_MAX + 1];
    int pair[2];
    (void)state;
    make_pair(pair);
    assert_int_equal(proto_send(pair[0], 1, 1, large, sizeof(large), NULL, 0, NULL, 0), -EMSGSIZE);
    assert_int_equal(send(pair[0], large, sizeof(large), 0), sizeof(large));
    assert_int_equal(proto_receive(pair[1], &message, 0), -EMSGSIZE);
    close_pair(pair);
}

static void test_surplus_descriptors_are_closed_and_refused(void **state)
{
    struct proto_header header = {.id = 1, .seq = 1};
    struct iovec part = {&header, sizeof(header)};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct msghdr out = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    int pair[2], four[4] = {0, 0, 0, 0};
    (void)state;
    make_pair(pair);
    struct cmsghdr *attached = CMSG_FIRSTHDR(&out);
    attached->cmsg_level = SOL_SOCKET;
    attached->cmsg_type = SCM_RIGHTS;
    attached->cmsg_len = CMSG_LEN(sizeof(four));
    memcpy(CMSG_DATA(attached), four, sizeof(four));
    int next = dup(0);
    close(next);
    assert_int_equal(sendmsg(pair[0], &out, 0), sizeof(header));
    assert_int_equal(proto_receive(pair[1], &message, 0), -EBADMSG);
    int after = dup(0);
    assert_int_equal(after, next); /* nothing stayed open */
    close(after);
    close_pair(pair);
}

static void test_descriptors_that_find_no_room_are_emfile(void **state)
{
    struct rlimit limit, few;
    int pair[2], attached[3] = {0, 1, 2};
    (void)state;
    make_pair(pair);
    assert_int_equal(proto_send(pair[0], 5, 1, NULL, 0, NULL, 0, attached, 3), 0);
    int next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = (struct rlimit){.rlim_cur = (rlim_t)next + 1, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(proto_receive(pair[1], &message, 0), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int after = dup(0);
    assert_int_equal(after, next); /* nothing stayed open */
    close(after);
    close_pair(pair);
}

static void test_a_closed_peer_reads_as_zero_and_sends_epipe(void **state)
{
    int pair[2];
    (void)state;
    make_pair(pair);
    close(pair[0]);
    assert_int_equal(proto_receive(pair[1], &message, 0), 0);
    assert_int_equal(proto_send(pair[1], 1, 1, NULL, 0, NULL, 0, NULL, 0), -EPIPE);
    close(pair[1]);
}

static void test_the_socket_path_follows_the_environment(void **state)
{
    char path[108], longest[200];
    (void)state;
    unsetenv("VCHAN_RUNTIME_DIR");
    assert_int_equal(proto_socket_path(path, sizeof(path)), 0);
    assert_string_equal(path, "/run/vchand/vchand.sock");
    setenv("VCHAN_RUNTIME_DIR", "/tmp/here", 1);
    assert_int_equal(proto_socket_path(path, sizeof(path)), 0);
    assert_string_equal(path, "/tmp/here/vchand.sock");
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    setenv("VCHAN_RUNTIME_DIR", longest, 1);
    assert_int_equal(proto_socket_path(path, sizeof(path)), -ENAMETOOLONG);
    assert_int_equal(proto_socket_connect(NULL), -ENAMETOOLONG);
    setenv("VCHAN_RUNTIME_DIR", "/nonexistent", 1);
    assert_int_equal(proto_socket_connect(NULL), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_id_is_in_the_table_once),
        cmocka_unit_test(test_masks_tell_unknown_from_forbidden),
        cmocka_unit_test(test_a_request_of_the_wrong_size_is_einval),
        cmocka_unit_test(test_padding_must_be_zero),
        cmocka_unit_test(test_numbers_out_of_range_are_einval),
        cmocka_unit_test(test_a_message_arrives_whole_with_its_descriptors),
        cmocka_unit_test(test_a_failed_reply_carries_nothing_else),
        cmocka_unit_test(test_lengths_that_lie_are_ebadmsg),
        cmocka_unit_test(test_larger_than_the_limit_is_emsgsize),
        cmocka_unit_test(test_surplus_descriptors_are_closed_and_refused),
        cmocka_unit_test(test_descriptors_that_find_no_room_are_emfile),
        cmocka_unit_test(test_a_closed_peer_reads_as_zero_and_sends_epipe),
        cmocka_unit_test(test_the_socket_path_follows_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
