/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The native interface against a real broker. */
#include <poll.h>
#include <pthread.h>

#include "tests/system/pair.h"

static void a_refused_open_is_explained(void **state)
{
    struct vchan *server, *other = NULL;
    int port = next_port++;

    (void)state;
    assert_int_equal(native_open(0, 1, port, VCHAN_OPEN_SERVER, 0, &server), 0);
    assert_string_equal(vchan_explain(), "");
    assert_int_equal(native_open(0, 1, port, VCHAN_OPEN_SERVER, 0, &other), -EADDRINUSE);
    assert_non_null(strstr(vchan_explain(), "port"));
    assert_null(other);
    assert_int_equal(native_open(0, 1, port, 0, 0, &other), -EINVAL);
    assert_non_null(strstr(vchan_explain(), "flags"));
    assert_int_equal(native_open(300, 1, port, VCHAN_OPEN_SERVER, 0, &other), -ENOENT);
    assert_true(strlen(vchan_explain()) > 0);
    port = next_port++;
    assert_int_equal(native_open(1, 0, port, VCHAN_OPEN_CLIENT | VCHAN_OPEN_NONBLOCK, 0, &other),
                     -ENXIO);
    assert_true(strlen(vchan_explain()) > 0);
    vchan_close(server);
}

static void a_rendezvous_needs_no_roles(void **state)
{
    struct vchan *first, *second;
    int port = next_port++;
    char in[8];

    (void)state;
    assert_int_equal(native_open(0, 1, port, VCHAN_OPEN_RENDEZVOUS, 0, &first), 0);
    assert_int_equal(vchan_state(first), VCHAN_CAN_WRITE);
    assert_int_equal(native_open(1, 0, port, VCHAN_OPEN_RENDEZVOUS, 0, &second), 0);
    assert_int_equal(vchan_write(first, "hello", 5, 0), 5);
    assert_int_equal(vchan_read(second, in, sizeof(in), 0), 5);
    assert_int_equal(vchan_state(second), VCHAN_CAN_WRITE | VCHAN_IS_CONNECTED);
    vchan_close(first);
    vchan_close(second);
}

static void an_open_in_two_steps_tells_when_it_is_ready(void **state)
{
    const struct vchan_options options = {.local_domain = 1};
    struct vchan *client, *server;
    int port = next_port++;

    (void)state;
    assert_int_equal(vchan_open_start(0, port, VCHAN_OPEN_CLIENT, &options, &client), 0);
    assert_int_equal(vchan_open_finish(client, 20), -ETIMEDOUT);
    assert_int_equal(vchan_open_finish(client, 0), -EAGAIN);
    struct pollfd ready = {.fd = vchan_poll_fd(client), .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 0), 0);
    assert_int_equal(native_open(0, 1, port, VCHAN_OPEN_SERVER, 0, &server), 0);
    assert_int_equal(poll(&ready, 1, 5000), 1);
    assert_int_equal(vchan_open_finish(client, 0), 0);
    assert_int_equal(vchan_open_finish(client, 0), 0);
    vchan_close(client);
    vchan_close(server);
}

static void on_signal(int number)
{
    (void)number;
}

struct interrupter {
    pthread_t victim;
    int stop; /* atomic */
};

/* Again and again: a signal that comes before the victim waits, or while it spins, is lost. */
static void *interrupt_until_told(void *context)
{
    struct interrupter *interrupter = context;

    while (!__atomic_load_n(&interrupter->stop, __ATOMIC_ACQUIRE)) {
        usleep(10000);
        pthread_kill(interrupter->victim, SIGUSR1);
    }
    return NULL;
}

static void a_signal_interrupts_a_wait(void **state)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct native_pair pair = native_pair_open(4096);
    struct interrupter interrupter = {.victim = pthread_self()};
    pthread_t thread;
    struct vchan *other;
    char in;

    (void)state;
    sigaction(SIGUSR1, &action, NULL);
    pthread_create(&thread, NULL, interrupt_until_told, &interrupter);
    assert_int_equal(vchan_read(pair.client, &in, 1, VCHAN_FOREVER), -EINTR);
    assert_int_equal(native_open(1, 0, next_port++, VCHAN_OPEN_CLIENT, 0, &other), -EINTR);
    __atomic_store_n(&interrupter.stop, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    native_pair_close(&pair);
}

static void a_wait_ends_with_its_timeout(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    char data[4097] = {0};
    double begin_s = now_s();

    (void)state;
    assert_int_equal(vchan_read(pair.client, data, 1, 0), -EAGAIN);
    assert_int_equal(vchan_receive(pair.client, data, 1, 0), -EAGAIN);
    assert_int_equal(vchan_read(pair.client, data, 1, 50), -ETIMEDOUT);
    assert_int_equal(vchan_write(pair.client, data, 4096, 0), 4096);
    assert_int_equal(vchan_write(pair.client, data, 1, 0), -EAGAIN);
    assert_int_equal(vchan_send(pair.client, data, 1, 50), -ETIMEDOUT);
    assert_int_equal(vchan_wait(pair.client, VCHAN_CAN_WRITE, 50), -ETIMEDOUT);
    assert_int_equal(vchan_wait(pair.client, VCHAN_IS_GONE, 50), -ETIMEDOUT);
    assert_int_equal(vchan_wait(pair.client, VCHAN_CAN_READ, 0), -EAGAIN);
    assert_true(now_s() - begin_s >= 0.2);
    assert_true(now_s() - begin_s < 20); /* busy machines are slow, not this slow */
    native_pair_close(&pair);
}

static void spans_lie_in_one_piece_across_the_end_of_the_ring(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    struct vchan_span span;

    (void)state;
    for (uint64_t position = 0; position < 100000; position += 1000) {
        assert_int_equal(vchan_reserve(pair.client, 1000, 3000, &span, 0), 0);
        assert_int_equal(span.size, 3000);
        pattern_fill(span.data, 1000, position);
        vchan_commit(pair.client, 1000);
        assert_int_equal(vchan_readable(pair.server), 1000);
        assert_int_equal(vchan_peek(pair.server, 1000, &span, 0), 0);
        assert_int_equal(span.size, 1000);
        assert_true(pattern_matches(span.data, 1000, position));
        vchan_release(pair.server, 1000);
    }
    assert_int_equal(vchan_reserve(pair.client, 1, 10, &span, 0), 0);
    vchan_commit(pair.client, 0);
    assert_int_equal(vchan_readable(pair.server), 0);
    assert_int_equal(vchan_peek(pair.server, 1, &span, 0), -EAGAIN);
    assert_int_equal(vchan_reserve(pair.client, 0, 10, &span, 0), -EINVAL);
    assert_int_equal(vchan_reserve(pair.client, 1 << 30, 1 << 30, &span, 0), -EMSGSIZE);
    native_pair_close(&pair);
}

static void a_receive_of_more_than_the_ring_holds_is_refused(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    static char data[1 << 20];

    (void)state;
    assert_int_equal(vchan_send(pair.client, data, sizeof(data), VCHAN_FOREVER), -EMSGSIZE);
    assert_int_equal(vchan_receive(pair.server, data, sizeof(data), VCHAN_FOREVER), -EMSGSIZE);
    native_pair_close(&pair);
}

static void ending_one_direction_leaves_the_other(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    char in[8];

    (void)state;
    assert_int_equal(vchan_write(pair.client, "last", 4, 0), 4);
    assert_int_equal(vchan_shutdown(pair.client, VCHAN_SENDING), 0);
    assert_int_equal(vchan_write(pair.client, "x", 1, 0), -EPIPE);
    assert_int_equal(vchan_read(pair.server, in, sizeof(in), VCHAN_FOREVER), 4);
    assert_int_equal(vchan_read(pair.server, in, sizeof(in), VCHAN_FOREVER), 0);
    assert_int_equal(vchan_receive(pair.server, in, 1, VCHAN_FOREVER), -EPIPE);
    assert_int_equal(vchan_write(pair.server, "back", 4, 0), 4);
    assert_int_equal(vchan_read(pair.client, in, sizeof(in), 0), 4);
    assert_false(vchan_state(pair.server) & VCHAN_IS_GONE);
    assert_int_equal(vchan_shutdown(pair.client, VCHAN_RECEIVING), 0);
    assert_int_equal(vchan_write(pair.server, "back", 4, 0), -EPIPE);
    assert_int_equal(vchan_read(pair.client, in, sizeof(in), VCHAN_FOREVER), 0);
    assert_true(vchan_state(pair.server) & VCHAN_IS_GONE);
    assert_int_equal(vchan_shutdown(pair.client, 8), -EINVAL);
    native_pair_close(&pair);
}

static void a_shutdown_wakes_a_blocked_reader(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    pid_t child, reader = getpid();
    int status;
    char in;

    (void)state;
    child = fork();
    if (child == 0) {
        watchdog(20);
        wait_until_asleep(reader);
        _exit(vchan_shutdown(pair.client, VCHAN_SENDING) != 0);
    }
    assert_int_equal(vchan_read(pair.server, &in, 1, 5000), 0);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    native_pair_close(&pair);
}

/* Once the first thread, the caller, sleeps. */
static void *close_soon(void *context)
{
    wait_until_asleep(getpid());
    vchan_close(context);
    return NULL;
}

static void wait_tells_of_every_condition(void **state)
{
    struct vchan *server, *client;
    int port = next_port++;
    pthread_t thread;

    (void)state;
    assert_int_equal(native_open(0, 1, port, VCHAN_OPEN_SERVER, 0, &server), 0);
    assert_int_equal(vchan_wait(server, VCHAN_IS_CONNECTED, 0), -EAGAIN);
    assert_int_equal(vchan_wait(server, VCHAN_CAN_WRITE, 0), VCHAN_CAN_WRITE);
    assert_int_equal(native_open(1, 0, port, VCHAN_OPEN_CLIENT, 0, &client), 0);
    assert_int_equal(vchan_wait(server, VCHAN_IS_CONNECTED, 5000),
                     VCHAN_IS_CONNECTED | VCHAN_CAN_WRITE);
    assert_int_equal(vchan_write(client, "x", 1, 0), 1);
    assert_true((unsigned)vchan_wait(server, VCHAN_CAN_READ, 5000) & VCHAN_CAN_READ);
    pthread_create(&thread, NULL, close_soon, client);
    assert_true((unsigned)vchan_wait(server, VCHAN_IS_GONE, 5000) & VCHAN_IS_GONE);
    pthread_join(thread, NULL);
    assert_int_equal(vchan_wait(server, VCHAN_IS_CONNECTED, 5000), -EPIPE);
    vchan_close(server);
}

static void statistics_count_what_happened(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    struct vchan_statistics statistics;
    char data[4096] = {0};

    (void)state;
    assert_int_equal(vchan_write(pair.client, data, 4096, 0), 4096);
    assert_int_equal(vchan_write(pair.client, data, 1, 0), -EAGAIN);
    assert_int_equal(vchan_read(pair.server, data, 1000, 0), 1000);
    assert_int_equal(vchan_statistics(pair.server, &statistics), 0);
    assert_int_equal(statistics.local_domain, 0);
    assert_int_equal(statistics.peer_domain, 1);
    assert_int_equal(statistics.receiving.bytes_written, 4096);
    assert_int_equal(statistics.receiving.bytes_read, 1000);
    assert_int_equal(statistics.receiving.held_bytes, 3096);
    assert_int_equal(statistics.receiving.writes, 1);
    assert_int_equal(statistics.receiving.reads, 1);
    assert_int_equal(statistics.receiving.stalls, 1);
    assert_true(statistics.receiving.size_bytes >= 4096);
    assert_int_equal(statistics.sending.bytes_written, 0);
    native_pair_close(&pair);
}

struct listing {
    int port, seen;
    struct vchan_channel_item item;
};

static int note_channel(const struct vchan_channel_item *item, void *context)
{
    struct listing *listing = context;

    if (item->port != listing->port)
        return 0;
    listing->seen++;
    listing->item = *item;
    return 0;
}

static int stop_at_once(const struct vchan_channel_item *item, void *context)
{
    (void)item;
    (void)context;
    return 42;
}

static int note_domain(const struct vchan_domain_item *item, void *context)
{
    if (item->domain == 1 && item->running)
        *(int *)context += 1;
    return 0;
}

static void the_broker_lists_channels_and_domains(void **state)
{
    const struct vchan_options options = {.local_domain = 0}, elsewhere = {.local_domain = 5};
    struct listing listing = {.port = next_port};
    struct native_pair pair = native_pair_open(8192);
    int domains = 0;

    (void)state;
    assert_int_equal(vchan_write(pair.server, "12345", 5, 0), 5);
    assert_int_equal(vchan_each_channel(&options, 1, note_channel, &listing), 0);
    assert_int_equal(listing.seen, 1);
    assert_int_equal(listing.item.server_domain, 0);
    assert_int_equal(listing.item.client_domain, 1);
    assert_int_equal(listing.item.connected, 1);
    assert_int_equal(listing.item.ring[0].bytes_written, 5);
    assert_int_equal(listing.item.ring[0].held_bytes, 5);
    assert_int_equal(listing.item.ring[1].size_bytes, 8192);
    assert_int_equal(vchan_each_channel(&elsewhere, 0, note_channel, &listing), 0);
    assert_int_equal(listing.seen, 1);
    assert_int_equal(vchan_each_channel(&options, 1, stop_at_once, NULL), 42);
    assert_int_equal(vchan_each_domain(&options, note_domain, &domains), 0);
    assert_int_equal(domains, 1);
    native_pair_close(&pair);
}

static void without_descriptors_to_sleep_on_a_wait_still_ends(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    struct rlimit limit, none;
    int go[2], status;
    char in[4];

    (void)state;
    getrlimit(RLIMIT_NOFILE, &limit);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    assert_int_equal(pipe(go), 0);
    pid_t reader = getpid(), child = fork();
    if (child == 0) {
        watchdog(20);
        if (read(go[0], in, 1) != 1)
            _exit(2);
        wait_until_asleep(reader);
        _exit(vchan_write(pair.client, "late", 4, 0) != 4);
    }
    setrlimit(RLIMIT_NOFILE, &none);
    ssize_t timed_out = vchan_read(pair.server, in, 4, 10);
    ssize_t told = write(go[1], "!", 1);
    ssize_t n = vchan_read(pair.server, in, 4, 5000);
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_int_equal(timed_out, -ETIMEDOUT);
    assert_int_equal(told, 1);
    assert_int_equal(n, 4);
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    close(go[0]);
    close(go[1]);
    native_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        CASE(a_refused_open_is_explained),
        CASE(a_rendezvous_needs_no_roles),
        CASE(an_open_in_two_steps_tells_when_it_is_ready),
        CASE(a_signal_interrupts_a_wait),
        CASE(a_wait_ends_with_its_timeout),
        CASE(spans_lie_in_one_piece_across_the_end_of_the_ring),
        CASE(a_receive_of_more_than_the_ring_holds_is_refused),
        CASE(ending_one_direction_leaves_the_other),
        CASE(a_shutdown_wakes_a_blocked_reader),
        CASE(wait_tells_of_every_condition),
        CASE(statistics_count_what_happened),
        CASE(the_broker_lists_channels_and_domains),
        CASE(without_descriptors_to_sleep_on_a_wait_still_ends),
    };

    return cmocka_run_group_tests(cases, broker_setup_fixed_rings, broker_teardown);
}
