/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that waits sleeps: it takes no CPU time while nothing happens, and hears of what does.
 */
#include <pthread.h>

#include "tests/system/pair.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct idler {
    libvchan_t *handle;
    bool (*done)(struct idler *idler); /* waits inside */
    double cpu_s;
    size_t wanted;
    pid_t thread; /* atomic */
};

static void *idle_run(void *context)
{
    struct idler *idler = context;
    double begin_s = thread_cpu_s();

    tell_thread(&idler->thread);
    while (!idler->done(idler))
        ;
    idler->cpu_s = thread_cpu_s() - begin_s;
    return NULL;
}

static bool has_space_or_waits(struct idler *idler)
{
    if (libvchan_buffer_space(idler->handle) >= (int)idler->wanted)
        return true;
    assert_int_equal(libvchan_wait(idler->handle), 0);
    return false;
}

static bool has_space_or_selects(struct idler *idler)
{
    if (libvchan_buffer_space(idler->handle) >= (int)idler->wanted)
        return true;
    select_on(idler->handle);
    (void)libvchan_wait(idler->handle);
    return false;
}

static bool is_connected_or_selects(struct idler *idler)
{
    if (libvchan_is_open(idler->handle) == VCHAN_CONNECTED)
        return true;
    select_on(idler->handle);
    return false;
}

static bool is_connected_or_waits(struct idler *idler)
{
    if (libvchan_is_open(idler->handle) == VCHAN_CONNECTED)
        return true;
    assert_int_equal(libvchan_wait(idler->handle), 0);
    return false;
}

static bool has_data_or_selects(struct idler *idler)
{
    if (libvchan_data_ready(idler->handle) >= (int)idler->wanted)
        return true;
    select_on(idler->handle);
    return false;
}

static bool has_data_or_waits(struct idler *idler)
{
    if (libvchan_data_ready(idler->handle) >= (int)idler->wanted)
        return true;
    assert_int_equal(libvchan_wait(idler->handle), 0);
    return false;
}

static bool is_gone_or_selects(struct idler *idler)
{
    if (libvchan_is_open(idler->handle) == VCHAN_DISCONNECTED)
        return true;
    select_on(idler->handle);
    (void)libvchan_data_ready(idler->handle);
    return false;
}

/*
 * Starts it, leaves it alone for 300 ms once it sleeps, lets `release` happen; it must have gone on
 * sleeping, and end.
 */
static void assert_sleeps_until(struct idler *idler, void (*release)(void *context), void *context)
{
    pthread_t thread;

    watchdog(20);
    pthread_create(&thread, NULL, idle_run, idler);
    wait_until_started_and_asleep(&idler->thread);
    usleep(300000);
    release(context);
    pthread_join(thread, NULL);
    if (idler->cpu_s > 0.1)
        fail_msg("%.3f s of CPU time in 0.3 s of waiting", idler->cpu_s);
}

static void read_1000(void *context)
{
    char data[1000];

    assert_int_equal(libvchan_recv(context, data, sizeof(data)), 1000);
}

static void write_10(void *context)
{
    assert_int_equal(libvchan_write(context, "0123456789", 10), 10);
}

static void waiting_for_space_with_unread_data_sleeps(void **state)
{
    static bool (*const ways[])(struct idler *) = {has_space_or_waits, has_space_or_selects};

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        struct pair pair = pair_open(4096, 4096);
        struct idler idler = {.handle = pair.client, .done = ways[i], .wanted = 600};
        char data[4096] = {0}, in[4];

        assert_int_equal(libvchan_write(pair.server, "unread", 6), 6);
        assert_int_equal(libvchan_read(pair.client, in, 2), 2); /* a partial read */
        assert_int_equal(libvchan_write(pair.client, data, 4096), 4096);
        assert_sleeps_until(&idler, read_1000, pair.server);
        pair_close(&pair);
    }
}

/* What was armed when the ring was empty must tell of the space after it was full. */
static void space_asked_for_in_an_empty_ring_is_told_of_when_it_was_full(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    struct idler idler = {.handle = pair.client, .done = has_space_or_selects, .wanted = 600};
    char data[4096] = {0};

    (void)state;
    (void)libvchan_fd_for_select(pair.client);
    assert_int_equal(libvchan_buffer_space(pair.client), 4096);
    assert_int_equal(libvchan_write(pair.client, data, 4096), 4096);
    assert_sleeps_until(&idler, read_1000, pair.server);
    pair_close(&pair);
}

static void waiting_for_more_of_a_message_sleeps(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    struct idler idler = {.handle = pair.client, .done = has_data_or_waits, .wanted = 16};

    (void)state;
    assert_int_equal(libvchan_write(pair.server, "unread", 6), 6);
    assert_sleeps_until(&idler, write_10, pair.server);
    pair_close(&pair);
}

static void waiting_for_data_sleeps(void **state)
{
    static bool (*const ways[])(struct idler *) = {has_data_or_waits, has_data_or_selects};

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        struct pair pair = pair_open(4096, 4096);
        struct idler idler = {.handle = pair.client, .done = ways[i], .wanted = 1};

        assert_sleeps_until(&idler, write_10, pair.server);
        pair_close(&pair);
    }
}

static int client_port;
static libvchan_t *client_handle;

static void come(void *context)
{
    (void)context;
    as_domain(1);
    client_handle = libvchan_client_init(0, client_port);
}

static void waiting_for_the_client_sleeps(void **state)
{
    static bool (*const ways[])(struct idler *) = {is_connected_or_selects, is_connected_or_waits};

    (void)state;
    for (size_t i = 0; i < COUNT(ways); i++) {
        client_port = next_port++;
        as_domain(0);
        struct idler idler = {.handle = libvchan_server_init(1, client_port, 0, 0),
                              .done = ways[i]};
        assert_non_null(idler.handle);
        assert_sleeps_until(&idler, come, NULL);
        libvchan_close(client_handle);
        libvchan_close(idler.handle);
    }
}

static void go(void *context)
{
    libvchan_close(context);
}

static void waiting_for_the_end_sleeps(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    struct idler idler = {.handle = pair.client, .done = is_gone_or_selects};

    (void)state;
    assert_sleeps_until(&idler, go, pair.server);
    libvchan_close(pair.client);
}

struct receiver {
    libvchan_t *handle;
    pid_t thread; /* atomic */
};

static void *recv_100(void *context)
{
    struct receiver *receiver = context;
    char data[100];

    tell_thread(&receiver->thread);
    return libvchan_recv(receiver->handle, data, sizeof(data)) == 100 ? NULL : context;
}

static void assert_waiter_hears(bool watched)
{
    struct pair pair = pair_open(4096, 4096);
    struct receiver receiver = {.handle = pair.server};
    struct third third = {.handle = pair.server};
    pthread_t reader, waiter;
    char data[100] = {0};
    void *failed;

    if (watched)
        assert_true(libvchan_fd_for_select(pair.server) >= 0);
    pthread_create(&reader, NULL, recv_100, &receiver);
    wait_until_started_and_asleep(&receiver.thread);
    pthread_create(&waiter, NULL, third_run, &third);
    wait_until_started_and_asleep(&third.thread);
    for (int i = 0; i < 9; i++) {
        int before = __atomic_load_n(&third.waits, __ATOMIC_RELAXED);
        assert_int_equal(libvchan_write(pair.client, data, 10), 10);
        watchdog(10);
        while (__atomic_load_n(&third.waits, __ATOMIC_RELAXED) == before)
            usleep(100);
        wait_until_asleep(third.thread);
        wait_until_asleep(receiver.thread);
    }
    assert_int_equal(libvchan_write(pair.client, data, 10), 10);
    pthread_join(reader, &failed);
    assert_null(failed);
    __atomic_store_n(&third.stop, 1, __ATOMIC_RELEASE);
    libvchan_close(pair.client);
    pthread_join(waiter, NULL);
    assert_true(third.waits < 100);
    libvchan_close(pair.server);
}

static void a_waiting_thread_hears_of_bytes_that_are_too_few_for_the_reader(void **state)
{
    (void)state;
    assert_waiter_hears(false);
    assert_waiter_hears(true);
}

static void a_readable_descriptor_means_that_wait_returns(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    char data[8];

    (void)state;
    watchdog(20);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(libvchan_write(pair.server, "12345678", 8), 8);
        select_on(pair.client);
        assert_int_equal(libvchan_wait(pair.client), 0);
        assert_int_equal(libvchan_recv(pair.client, data, 8), 8);
    }
    pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        CASE(waiting_for_space_with_unread_data_sleeps),
        CASE(space_asked_for_in_an_empty_ring_is_told_of_when_it_was_full),
        CASE(waiting_for_more_of_a_message_sleeps),
        CASE(waiting_for_data_sleeps),
        CASE(waiting_for_the_client_sleeps),
        CASE(waiting_for_the_end_sleeps),
        CASE(a_waiting_thread_hears_of_bytes_that_are_too_few_for_the_reader),
        CASE(a_readable_descriptor_means_that_wait_returns),
    };

    return cmocka_run_group_tests(cases, broker_setup_fixed_rings, broker_teardown);
}
