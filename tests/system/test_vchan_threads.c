/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several threads and event loops on the native interface, for thousands of rounds at random
 * timings: no wake-up is lost. A watchdog ends a hang.
 */
#include <poll.h>
#include <pthread.h>

#include "tests/system/pair.h"

struct worker {
    struct vchan *v;
    uint64_t total;
    unsigned seed;
    bool sound;
};

static void dawdle(unsigned *seed)
{
    if (rand_r(seed) % 64 == 0)
        usleep((useconds_t)rand_r(seed) % 300);
}

static void *write_all(void *context)
{
    struct worker *worker = context;
    uint8_t data[3000];

    for (uint64_t done = 0; done < worker->total;) {
        size_t n =
            (size_t)rand_r(&worker->seed) % (rand_r(&worker->seed) % 4 ? 50 : sizeof(data)) + 1;
        n = n < worker->total - done ? n : (size_t)(worker->total - done);
        pattern_fill(data, n, done);
        ssize_t r = vchan_write(worker->v, data, n, VCHAN_FOREVER);
        if (r <= 0)
            return NULL;
        done += (uint64_t)r;
        dawdle(&worker->seed);
    }
    worker->sound = true;
    return NULL;
}

static void *read_all(void *context)
{
    struct worker *worker = context;
    uint8_t data[3000];

    for (uint64_t done = 0; done < worker->total;) {
        size_t n =
            (size_t)rand_r(&worker->seed) % (rand_r(&worker->seed) % 4 ? 50 : sizeof(data)) + 1;
        ssize_t r = vchan_read(worker->v, data, n, VCHAN_FOREVER);
        if (r <= 0 || !pattern_matches(data, (size_t)r, done))
            return NULL;
        done += (uint64_t)r;
        dawdle(&worker->seed);
    }
    worker->sound = true;
    return NULL;
}

/* Both sleep on one eventfd: neither may take the other's wake-up. */
static void a_reader_and_a_writer_share_a_handle(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct native_pair pair = native_pair_open(4096);
        uint64_t total = (uint64_t)rounds(8 << 20);
        struct worker workers[4];
        pthread_t threads[4];

        watchdog(60);
        for (unsigned i = 0; i < 4; i++) {
            workers[i] = (struct worker){.v = i < 2 ? pair.server : pair.client,
                                         .total = total,
                                         .seed = 4 * round + i};
            pthread_create(&threads[i], NULL, i % 2 ? read_all : write_all, &workers[i]);
        }
        for (unsigned i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        for (unsigned i = 0; i < 4; i++)
            assert_true(workers[i].sound);
        native_pair_close(&pair);
    }
}

/* An event loop for both directions, with the descriptor: arm, and if nothing holds, poll. */
static void *loop_both(void *context)
{
    struct worker *worker = context;
    uint8_t data[3000];
    uint64_t in = 0, out = 0;
    struct pollfd ready = {.fd = vchan_poll_fd(worker->v), .events = POLLIN};

    while (in < worker->total || out < worker->total) {
        unsigned wanted =
            (in < worker->total ? VCHAN_CAN_READ : 0) | (out < worker->total ? VCHAN_CAN_WRITE : 0);
        if (vchan_poll_arm(worker->v, wanted) == 0 && poll(&ready, 1, -1) != 1)
            return NULL;
        size_t n = (size_t)rand_r(&worker->seed) % sizeof(data) + 1;
        n = n < worker->total - out ? n : (size_t)(worker->total - out);
        pattern_fill(data, n, out);
        ssize_t r = vchan_write(worker->v, data, n, 0);
        if (r < 0 && r != -EAGAIN)
            return NULL;
        out += r > 0 ? (uint64_t)r : 0;
        r = vchan_read(worker->v, data, (size_t)rand_r(&worker->seed) % sizeof(data) + 1, 0);
        if ((r < 0 && r != -EAGAIN) || (r > 0 && !pattern_matches(data, (size_t)r, in)))
            return NULL;
        in += r > 0 ? (uint64_t)r : 0;
        dawdle(&worker->seed);
    }
    worker->sound = true;
    return NULL;
}

/* The same with vchan_wait. */
static void *wait_both(void *context)
{
    struct worker *worker = context;
    uint8_t data[3000];
    uint64_t in = 0, out = 0;

    while (in < worker->total || out < worker->total) {
        unsigned wanted =
            (in < worker->total ? VCHAN_CAN_READ : 0) | (out < worker->total ? VCHAN_CAN_WRITE : 0);
        int r_wait = vchan_wait(worker->v, wanted, VCHAN_FOREVER);
        if (r_wait < 0)
            return NULL;
        unsigned holds = (unsigned)r_wait;
        if (holds & VCHAN_CAN_WRITE) {
            size_t n = (size_t)rand_r(&worker->seed) % sizeof(data) + 1;
            n = n < worker->total - out ? n : (size_t)(worker->total - out);
            pattern_fill(data, n, out);
            ssize_t r = vchan_write(worker->v, data, n, 0);
            out += r > 0 ? (uint64_t)r : 0;
        }
        if (holds & VCHAN_CAN_READ) {
            ssize_t r =
                vchan_read(worker->v, data, (size_t)rand_r(&worker->seed) % sizeof(data) + 1, 0);
            if (r <= 0 || !pattern_matches(data, (size_t)r, in))
                return NULL;
            in += (uint64_t)r;
        }
        dawdle(&worker->seed);
    }
    worker->sound = true;
    return NULL;
}

static void run_two(void *(*first)(void *), void *(*second)(void *))
{
    struct native_pair pair = native_pair_open(4096);
    uint64_t total = (uint64_t)rounds(8 << 20);
    struct worker workers[2] = {{pair.server, total, 1, false}, {pair.client, total, 2, false}};
    pthread_t threads[2];

    watchdog(60);
    pthread_create(&threads[0], NULL, first, &workers[0]);
    pthread_create(&threads[1], NULL, second, &workers[1]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_true(workers[0].sound && workers[1].sound);
    native_pair_close(&pair);
}

static void event_loops_move_everything_both_ways(void **state)
{
    (void)state;
    run_two(loop_both, loop_both);
    run_two(loop_both, wait_both);
    run_two(wait_both, wait_both);
}

struct messages {
    struct vchan *v;
    int count;
    unsigned seed;
    bool sound;
};

static void *send_messages(void *context)
{
    struct messages *messages = context;
    uint8_t data[2048];

    for (int i = 0; i < messages->count; i++) {
        uint32_t size = (uint32_t)rand_r(&messages->seed) % 1500 + 4;
        memcpy(data, &size, sizeof(size));
        pattern_fill(data + 4, size - 4, (uint64_t)i);
        if (vchan_send(messages->v, data, size, VCHAN_FOREVER) != (ssize_t)size)
            return NULL;
        dawdle(&messages->seed);
    }
    messages->sound = true;
    return NULL;
}

/* Whoever sees a message's first byte sees all of it. */
static void *receive_messages(void *context)
{
    struct messages *messages = context;
    uint8_t data[2048];
    uint32_t size;

    for (int i = 0; i < messages->count; i++) {
        if (vchan_receive(messages->v, &size, sizeof(size), VCHAN_FOREVER) != sizeof(size) ||
            size > sizeof(data))
            return NULL;
        if (size > 4 && vchan_receive(messages->v, data, size - 4, 0) != (ssize_t)size - 4)
            return NULL;
        if (!pattern_matches(data, size - 4, (uint64_t)i))
            return NULL;
        dawdle(&messages->seed);
    }
    messages->sound = true;
    return NULL;
}

static void messages_are_seen_whole(void **state)
{
    struct native_pair pair = native_pair_open(4096);
    struct messages out = {pair.server, rounds(100000), 1, false},
                    in = {pair.client, rounds(100000), 2, false};
    pthread_t threads[2];

    (void)state;
    watchdog(60);
    pthread_create(&threads[0], NULL, send_messages, &out);
    pthread_create(&threads[1], NULL, receive_messages, &in);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_true(out.sound && in.sound);
    native_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(a_reader_and_a_writer_share_a_handle),
        cmocka_unit_test(event_loops_move_everything_both_ways),
        cmocka_unit_test(messages_are_seen_whole),
    };

    return cmocka_run_group_tests(cases, broker_setup, broker_teardown);
}
