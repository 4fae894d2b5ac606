/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Too many clients, silent clients, and no descriptors left, against a real vchand. */
#include <sys/resource.h>

#include "tests/system/broker_fixture.h"

#define CROWD 3000
#define HANDSHAKE_MS 5000

static struct broker_process broker;

static void start(const char *config)
{
    broker_start(&broker, config);
    pause_ms(50); /* until it has seen the fixture's own connection go */
}

static bool is_answered(struct client *client)
{
    struct proto_message message;

    client_send(client, PROTO_EXPLAIN, NULL, 0);
    return client_receive(client, &message) == 1;
}

static void silent_clients_are_dropped_after_a_while_and_others_stay(void **state)
{
    struct client silent, half, greeted;
    struct proto_message message;

    (void)state;
    start(NULL);
    client_connect(&silent, &broker);
    client_connect(&half, &broker);
    assert_int_equal(client_version(&half), 0);
    client_join(&greeted, &broker, 1);
    assert_true(client_is_quiet(&silent, HANDSHAKE_MS - 1000));
    assert_int_equal(client_receive(&silent, &message), 0);
    assert_int_equal(client_receive(&half, &message), 0);
    assert_true(is_answered(&greeted));
    assert_true(log_has(&broker, "it did not say who it is"));
    client_leave(&silent);
    client_leave(&half);
    client_leave(&greeted);
    broker_stop(&broker);
}

static void newcomer_gets_the_place_of_the_longest_silent_when_full(void **state)
{
    struct client greeted[4], silent[4], newcomer;
    struct proto_message message;

    (void)state;
    start("[broker]\nconnections = 8\n");
    for (unsigned i = 0; i < 4; i++)
        client_join(&greeted[i], &broker, 1);
    for (unsigned i = 0; i < 4; i++)
        client_connect(&silent[i], &broker);
    client_join(&newcomer, &broker, 1);
    assert_int_equal(client_receive(&silent[0], &message), 0);
    for (unsigned i = 1; i < 4; i++)
        assert_true(is_answered(&silent[i]));
    for (unsigned i = 0; i < 4; i++) {
        assert_true(is_answered(&greeted[i]));
        client_leave(&greeted[i]);
        client_leave(&silent[i]);
    }
    client_leave(&newcomer);
    broker_stop(&broker);
}

/* As another user: says how many of eight it got in, and stays until it is killed. */
static _Noreturn void crowd_in(int said)
{
    const struct proto_get_version version = {.version = PROTO_VERSION,
                                              .byte_order = PROTO_BYTE_ORDER};
    struct proto_message message;
    struct client clients[8];
    char in = 0;

    if (setgid(65534) < 0 || setuid(65534) < 0)
        _exit(1);
    for (unsigned i = 0; i < 8; i++) {
        client_connect(&clients[i], &broker);
        if (proto_send(clients[i].socket, PROTO_GET_VERSION, ++clients[i].seq, &version,
                       sizeof(version), NULL, 0, NULL, 0) == 0 &&
            client_receive(&clients[i], &message) == 1 && client_hello(&clients[i], 1) == 0)
            in++;
    }
    if (write(said, &in, 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static void places_are_kept_for_root(void **state)
{
    struct client root;
    int said[2];
    char in;

    (void)state;
    if (geteuid() != 0) {
        print_message("SKIP: only root can become another user\n");
        skip();
    }
    start("[broker]\nconnections = 8\nsocket-mode = 0666\n");
    assert_int_equal(chmod(broker.directory, 0755), 0);
    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        crowd_in(said[1]);
    close(said[1]);
    assert_int_equal(read(said[0], &in, 1), 1);
    assert_int_equal(in, 7);
    client_join(&root, &broker, 0);
    assert_true(is_answered(&root));
    client_leave(&root);
    close(said[0]);
    kill(pid, SIGKILL);
    wait_exit(pid);
    broker_stop(&broker);
}

/* A vchand that may have so many descriptors, whatever the limit of this process. */
static void start_with_descriptors(unsigned count)
{
    struct rlimit before, limit;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    start(NULL);
    limit = (struct rlimit){.rlim_cur = count, .rlim_max = before.rlim_max};
    assert_int_equal(prlimit(broker.pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

static unsigned count_lines(const char *words)
{
    static char text[1 << 18];
    char path[128];
    unsigned count = 0;

    path_in(&broker, "log", path);
    read_file(path, text, sizeof(text));
    for (const char *at = text; (at = strstr(at, words)); at++)
        count++;
    return count;
}

static void without_descriptors_a_newcomer_sees_its_connection_closed(void **state)
{
    struct client clients[64], newcomer;
    struct proto_message message;
    unsigned count = 0;

    (void)state;
    start_with_descriptors(48);
    for (;; count++) {
        assert_true(count < 64);
        client_connect(&clients[count], &broker);
        if (!client_is_quiet(&clients[count], 100))
            break;
        assert_int_equal(client_version(&clients[count]), 0);
        assert_int_equal(client_hello(&clients[count], 1), 0);
    }
    client_leave(&clients[count]);
    for (unsigned i = 0; i < 50; i++) {
        client_connect(&newcomer, &broker);
        assert_int_equal(client_receive(&newcomer, &message), 0);
        client_leave(&newcomer);
    }
    assert_in_range(count_lines("no file descriptors are left"), 1, 5);
    for (unsigned i = 0; i < count; i++)
        assert_true(is_answered(&clients[i]));
    client_leave(&clients[0]);
    pause_ms(50);
    client_join(&newcomer, &broker, 1);
    client_leave(&newcomer);
    for (unsigned i = 1; i < count; i++)
        client_leave(&clients[i]);
    broker_stop(&broker);
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What all of them ask for and their leaving, in time in proportion to their number: by the square
 * of it this took half a minute. */
static void crowd_that_speaks_or_leaves_at_once_keeps_nobody_waiting(void **state)
{
    static struct client crowd[CROWD];
    struct rlimit limit;
    struct client other;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_max < CROWD + 100 || setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        print_message("SKIP: this process may not have %u descriptors\n", CROWD + 100);
        skip();
    }
    start(NULL);
    for (unsigned i = 0; i < CROWD; i++)
        client_join(&crowd[i], &broker, 1);
    client_join(&other, &broker, 2);
    const uint64_t start_ms = now_ms();
    for (unsigned i = 0; i < CROWD; i++)
        client_send(&crowd[i], PROTO_EXPLAIN, NULL, 0);
    assert_true(is_answered(&other));
    for (unsigned i = 0; i < CROWD; i++)
        client_leave(&crowd[i]);
    assert_true(is_answered(&other));
    assert_true(now_ms() - start_ms < 10000);
    client_leave(&other);
    broker_stop(&broker);
}

static void client_that_asks_for_rounds_without_end_is_closed(void **state)
{
    const struct proto_rebalance request = {.flags = PROTO_REBALANCE_DRY_RUN};
    struct client host;

    (void)state;
    start(NULL);
    client_join(&host, &broker, 0);
    for (unsigned i = 0; i < 20000; i++)
        if (proto_send(host.socket, PROTO_REBALANCE, ++host.seq, &request, sizeof(request), NULL, 0,
                       NULL, 0) < 0)
            break;
    for (int waited_ms = 0; !log_has(&broker, "it asks for more rounds than it takes");
         waited_ms += 10) {
        assert_true(waited_ms < PATIENCE_MS);
        pause_ms(10);
    }
    client_leave(&host);
    broker_stop(&broker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silent_clients_are_dropped_after_a_while_and_others_stay),
        cmocka_unit_test(newcomer_gets_the_place_of_the_longest_silent_when_full),
        cmocka_unit_test(places_are_kept_for_root),
        cmocka_unit_test(without_descriptors_a_newcomer_sees_its_connection_closed),
        cmocka_unit_test(crowd_that_speaks_or_leaves_at_once_keeps_nobody_waiting),
        cmocka_unit_test(client_that_asks_for_rounds_without_end_is_closed),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
