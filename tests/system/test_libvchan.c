/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What programs written for Qubes' libvchan rely on, against a real broker. */
#include <poll.h>
#include <pthread.h>

#include "tests/system/pair.h"

static void states_go_from_waiting_to_connected_to_disconnected(void **state)
{
    int port = next_port++;

    (void)state;
    as_domain(0);
    libvchan_t *server = libvchan_server_init(1, port, 4096, 4096);
    assert_non_null(server);
    assert_int_equal(libvchan_is_open(server), VCHAN_WAITING);
    as_domain(1);
    libvchan_t *client = libvchan_client_init(0, port);
    assert_non_null(client);
    assert_int_equal(libvchan_is_open(server), VCHAN_CONNECTED);
    assert_int_equal(libvchan_is_open(client), VCHAN_CONNECTED);
    libvchan_close(client);
    assert_int_equal(libvchan_is_open(server), VCHAN_DISCONNECTED);
    libvchan_close(server);
}

static void a_ring_of_1024_bytes_has_4096_usable(void **state)
{
    struct pair pair = pair_open(1024, 1024);
    uint8_t out[4096], in[4096];

    (void)state;
    libvchan_set_blocking(pair.client, false);
    assert_int_equal(libvchan_buffer_space(pair.client), 4096);
    pattern_fill(out, sizeof(out), 7);
    assert_int_equal(libvchan_send(pair.client, out, sizeof(out)), 4096);
    assert_int_equal(libvchan_write(pair.client, out, 1), 0);
    assert_int_equal(libvchan_data_ready(pair.server), 4096);
    assert_int_equal(libvchan_recv(pair.server, in, sizeof(in)), 4096);
    assert_memory_equal(in, out, sizeof(in));
    pair_close(&pair);
}

static void minima_are_rounded_up_to_a_power_of_two(void **state)
{
    struct pair pair = pair_open(5000, 20000);

    (void)state;
    assert_int_equal(libvchan_buffer_space(pair.client), 8192);
    assert_int_equal(libvchan_buffer_space(pair.server), 32768);
    pair_close(&pair);
}

static void what_is_written_while_waiting_reaches_the_later_client(void **state)
{
    char in[16] = "";
    int port = next_port++;

    (void)state;
    as_domain(0);
    libvchan_t *server = libvchan_server_init(1, port, 4096, 4096);
    assert_int_equal(libvchan_write(server, "early", 5), 5);
    as_domain(1);
    libvchan_t *client = libvchan_client_init(0, port);
    assert_int_equal(libvchan_read(client, in, sizeof(in)), 5);
    assert_string_equal(in, "early");
    libvchan_close(client);
    libvchan_close(server);
}

static void send_is_all_or_nothing(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    uint8_t data[4096] = {0};

    (void)state;
    libvchan_set_blocking(pair.client, false);
    assert_int_equal(libvchan_send(pair.client, data, 3000), 3000);
    assert_int_equal(libvchan_send(pair.client, data, 1097), 0);
    assert_int_equal(libvchan_data_ready(pair.server), 3000);
    assert_int_equal(libvchan_write(pair.client, data, 2000), 1096);
    assert_int_equal(libvchan_data_ready(pair.server), 4096);
    pair_close(&pair);
}

static void a_send_that_can_never_fit_fails_at_once(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    size_t size = 1u << 30;
    char *data = malloc(size);

    (void)state;
    assert_int_equal(libvchan_send(pair.client, data, size), -1);
    assert_int_equal(errno, EMSGSIZE);
    libvchan_set_blocking(pair.client, false);
    assert_int_equal(libvchan_send(pair.client, data, size), -1);
    assert_int_equal(errno, EMSGSIZE);
    assert_int_equal(libvchan_recv(pair.client, data, size), -1);
    assert_int_equal(errno, EMSGSIZE);
    free(data);
    pair_close(&pair);
}

static void what_was_sent_before_the_close_is_read_then_minus_one(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    char in[8];

    (void)state;
    assert_int_equal(libvchan_write(pair.client, "last words", 10), 10);
    libvchan_close(pair.client);
    assert_int_equal(libvchan_is_open(pair.server), VCHAN_DISCONNECTED);
    assert_int_equal(libvchan_data_ready(pair.server), 10);
    assert_int_equal(libvchan_read(pair.server, in, 8), 8);
    assert_memory_equal(in, "last wor", 8);
    assert_int_equal(libvchan_recv(pair.server, in, 3), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(libvchan_recv(pair.server, in, 2), 2);
    assert_int_equal(libvchan_read(pair.server, in, 8), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(libvchan_write(pair.server, "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(libvchan_send(pair.server, "x", 1), -1);
    assert_int_equal(errno, EPIPE);
    /* The disconnection is an event; when it has been told nothing more can come. */
    (void)libvchan_wait(pair.server);
    assert_int_equal(libvchan_wait(pair.server), -1);
    assert_int_equal(errno, EPIPE);
    libvchan_close(pair.server);
}

static void not_blocking_calls_return_zero(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    char data[4096];

    (void)state;
    libvchan_set_blocking(pair.client, false);
    assert_int_equal(libvchan_read(pair.client, data, sizeof(data)), 0);
    assert_int_equal(libvchan_recv(pair.client, data, 4), 0);
    assert_int_equal(libvchan_write(pair.server, "abc", 3), 3);
    assert_int_equal(libvchan_recv(pair.client, data, 4), 0);
    assert_int_equal(libvchan_data_ready(pair.client), 3);
    assert_int_equal(libvchan_recv(pair.client, data, 3), 3);
    pair_close(&pair);
}

struct blocked {
    libvchan_t *handle;
    char data[10000];
    int result;
    pid_t thread; /* atomic */
};

static void *blocked_recv(void *context)
{
    struct blocked *blocked = context;

    tell_thread(&blocked->thread);
    blocked->result = libvchan_recv(blocked->handle, blocked->data, sizeof(blocked->data));
    return NULL;
}

static void blocking_recv_waits_for_all_of_it(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    struct blocked blocked = {.handle = pair.server};
    uint8_t out[10000];
    pthread_t thread;

    (void)state;
    pattern_fill(out, sizeof(out), 0);
    pthread_create(&thread, NULL, blocked_recv, &blocked);
    for (size_t done = 0; done < sizeof(out); done += 1000) {
        wait_until_started_and_asleep(&blocked.thread);
        assert_int_equal(libvchan_write(pair.client, out + done, 1000), 1000);
    }
    pthread_join(thread, NULL);
    assert_int_equal(blocked.result, 10000);
    assert_memory_equal(blocked.data, out, sizeof(out));
    pair_close(&pair);
}

static void a_close_wakes_a_blocked_reader(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    struct blocked blocked = {.handle = pair.server, .result = 1};
    pthread_t thread;

    (void)state;
    pthread_create(&thread, NULL, blocked_recv, &blocked);
    wait_until_started_and_asleep(&blocked.thread);
    libvchan_close(pair.client);
    pthread_join(thread, NULL);
    assert_int_equal(blocked.result, -1);
    libvchan_close(pair.server);
}

static void buffer_space_is_a_promise(void **state)
{
    struct pair pair = pair_open(8192, 8192);
    uint8_t data[8192] = {0};

    (void)state;
    libvchan_set_blocking(pair.client, false);
    assert_int_equal(libvchan_buffer_space(pair.client), 8192);
    assert_int_equal(libvchan_write(pair.client, data, 8192), 8192);
    assert_int_equal(libvchan_buffer_space(pair.client), 0);
    assert_int_equal(libvchan_recv(pair.server, data, 100), 100);
    assert_int_equal(libvchan_buffer_space(pair.client), 100);
    pair_close(&pair);
}

static void a_client_can_be_opened_without_waiting(void **state)
{
    int port = next_port++, fd = -1;
    struct pollfd poll_for = {.events = POLLIN};

    (void)state;
    as_domain(1);
    libvchan_t *client = libvchan_client_init_async(0, port, &fd);
    assert_non_null(client);
    for (int i = 0; i < 20; i++)
        assert_int_equal(libvchan_client_init_async_finish(client, false), 1);
    poll_for.fd = fd;
    while (poll(&poll_for, 1, 20) == 1)
        assert_int_equal(libvchan_client_init_async_finish(client, false), 1);
    as_domain(0);
    libvchan_t *server = libvchan_server_init(1, port, 4096, 4096);
    assert_non_null(server);
    int r = 1;
    while (r == 1) {
        assert_int_equal(poll(&poll_for, 1, 5000), 1);
        r = libvchan_client_init_async_finish(client, false);
    }
    assert_int_equal(r, 0);
    assert_int_equal(libvchan_write(client, "hi", 2), 2);
    assert_int_equal(libvchan_data_ready(server), 2);
    libvchan_close(client);
    libvchan_close(server);
}

static void a_client_that_still_waits_can_be_closed(void **state)
{
    int fd;

    (void)state;
    as_domain(1);
    libvchan_t *client = libvchan_client_init_async(0, next_port++, &fd);
    libvchan_close(client);
    libvchan_close(NULL);
}

static void an_async_client_that_fails_says_why(void **state)
{
    int fd, r;

    (void)state;
    as_domain(1);
    libvchan_t *client = libvchan_client_init_async(300, 1, &fd);
    assert_non_null(client);
    r = libvchan_client_init_async_finish(client, true);
    assert_int_equal(r, -1);
    assert_int_equal(errno, ENOENT);
    libvchan_close(client);
}

static void assert_refused(libvchan_t *handle, int expected)
{
    assert_null(handle);
    assert_int_equal(errno, expected);
}

static void failures_to_open_have_their_errno(void **state)
{
    int port = next_port++;

    (void)state;
    as_domain(0);
    assert_refused(libvchan_server_init(-1, port, 0, 0), EINVAL);
    assert_refused(libvchan_server_init(0x7ff0, port, 0, 0), EINVAL);
    assert_refused(libvchan_server_init(1, -1, 0, 0), EINVAL);
    assert_refused(libvchan_client_init(-1, port), EINVAL);
    assert_refused(libvchan_server_init(300, port, 0, 0), ENOENT);
    assert_refused(libvchan_client_init(300, port), ENOENT);
    libvchan_t *server = libvchan_server_init(1, port, 0, 0);
    assert_non_null(server);
    assert_refused(libvchan_server_init(1, port, 0, 0), EADDRINUSE);
    libvchan_close(server);
    assert_refused(libvchan_server_init(1, port, (size_t)1 << 40, 0), ENOSPC);
    setenv("VCHAN_DOMAIN", "web", 1);
    assert_refused(libvchan_server_init(1, port, 0, 0), EINVAL);
    as_domain(0);
}

static void without_a_broker_errno_says_so(void **state)
{
    (void)state;
    setenv("VCHAN_RUNTIME_DIR", "/nonexistent", 1);
    assert_refused(libvchan_server_init(1, 1, 0, 0), ENOENT);
    setenv("VCHAN_RUNTIME_DIR", vchand.directory, 1);
}

static void without_descriptors_errno_says_so(void **state)
{
    struct rlimit limit, none;

    (void)state;
    as_domain(0);
    getrlimit(RLIMIT_NOFILE, &limit);
    int lowest_free = dup(STDIN_FILENO);
    close(lowest_free);
    none = (struct rlimit){.rlim_cur = (rlim_t)lowest_free, .rlim_max = limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    libvchan_t *server = libvchan_server_init(1, next_port++, 0, 0);
    int error = errno;
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_null(server);
    assert_int_equal(error, EMFILE);
}

static void a_port_can_be_served_again_after_the_close(void **state)
{
    int port = next_port++;

    (void)state;
    as_domain(0);
    for (int i = 0; i < 50; i++) {
        libvchan_t *server = libvchan_server_init(1, port, 0, 0);
        assert_non_null(server);
        libvchan_close(server);
    }
}

static void opening_and_closing_leaks_no_descriptor(void **state)
{
    int before = open_descriptors();

    (void)state;
    for (int i = 0; i < rounds(2500); i++) {
        struct pair pair = pair_open(4096, 4096);
        if (i % 3 == 0)
            assert_true(libvchan_fd_for_select(pair.server) >= 0);
        assert_int_equal(libvchan_write(pair.client, "x", 1), 1);
        pair_close(&pair);
        watchdog(60);
    }
    assert_int_equal(open_descriptors(), before);
}

static void a_thousand_channels_are_open_at_once(void **state)
{
    enum { COUNT = 1000 };
    static struct pair pairs[COUNT];
    struct rlimit limit;
    char in[8];

    (void)state;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < COUNT * 12) {
        printf("SKIP: %llu descriptors are too few for %d channels\n",
               (unsigned long long)limit.rlim_cur, COUNT);
        skip();
    }
    for (int i = 0; i < COUNT; i++)
        pairs[i] = pair_open(4096, 4096);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(libvchan_send(pairs[i].client, &i, sizeof(i)), sizeof(i));
    for (int i = 0; i < COUNT; i++) {
        int number = -1;
        assert_int_equal(libvchan_recv(pairs[i].server, &number, sizeof(number)), sizeof(number));
        assert_int_equal(number, i);
        assert_int_equal(libvchan_data_ready(pairs[i].server), 0);
        libvchan_set_blocking(pairs[i].server, false);
        assert_int_equal(libvchan_read(pairs[i].server, in, sizeof(in)), 0);
    }
    for (int i = 0; i < COUNT; i++)
        pair_close(&pairs[i]);
}

struct flow {
    libvchan_t *handle;
    uint64_t total;
    unsigned seed;
    bool sound;
};

static void *flow_write(void *context)
{
    struct flow *flow = context;
    uint8_t data[20000];

    for (uint64_t done = 0; done < flow->total;) {
        size_t n = (size_t)rand_r(&flow->seed) % sizeof(data) + 1;
        if (n > flow->total - done)
            n = (size_t)(flow->total - done);
        pattern_fill(data, n, done);
        if (libvchan_write(flow->handle, data, n) != (int)n)
            return NULL;
        done += n;
    }
    flow->sound = true;
    return NULL;
}

static void *flow_read(void *context)
{
    struct flow *flow = context;
    uint8_t data[20000];

    for (uint64_t done = 0; done < flow->total;) {
        size_t n = (size_t)rand_r(&flow->seed) % sizeof(data) + 1;
        int r = libvchan_read(flow->handle, data, n);
        if (r <= 0 || !pattern_matches(data, (size_t)r, done))
            return NULL;
        done += (uint64_t)r;
    }
    flow->sound = true;
    return NULL;
}

static void both_directions_carry_bulk_at_once(void **state)
{
    struct pair pair = pair_open(4096, 65536);
    uint64_t total = (uint64_t)rounds(50) << 20;
    struct flow flows[4] = {{pair.server, total, 1, false},
                            {pair.client, total, 2, false},
                            {pair.client, total, 3, false},
                            {pair.server, total, 4, false}};
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, i % 2 ? flow_read : flow_write, &flows[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        assert_true(flows[i].sound);
    pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        CASE(states_go_from_waiting_to_connected_to_disconnected),
        CASE(a_ring_of_1024_bytes_has_4096_usable),
        CASE(minima_are_rounded_up_to_a_power_of_two),
        CASE(what_is_written_while_waiting_reaches_the_later_client),
        CASE(send_is_all_or_nothing),
        CASE(a_send_that_can_never_fit_fails_at_once),
        CASE(what_was_sent_before_the_close_is_read_then_minus_one),
        CASE(not_blocking_calls_return_zero),
        CASE(blocking_recv_waits_for_all_of_it),
        CASE(a_close_wakes_a_blocked_reader),
        CASE(buffer_space_is_a_promise),
        CASE(a_client_can_be_opened_without_waiting),
        CASE(a_client_that_still_waits_can_be_closed),
        CASE(an_async_client_that_fails_says_why),
        CASE(failures_to_open_have_their_errno),
        CASE(without_a_broker_errno_says_so),
        CASE(without_descriptors_errno_says_so),
        CASE(a_port_can_be_served_again_after_the_close),
        CASE(opening_and_closing_leaks_no_descriptor),
        CASE(a_thousand_channels_are_open_at_once),
        CASE(both_directions_carry_bulk_at_once),
    };

    return cmocka_run_group_tests(cases, broker_setup_fixed_rings, broker_teardown);
}
