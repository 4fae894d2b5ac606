/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ways in which programs wait: none may hang or lose a byte, whatever the timing.
 * Two threads in each case; a watchdog ends a hang.
 */
#include <pthread.h>

#include "tests/system/pair.h"

/*
 * A reader that wants this much at once and a writer that does share a ring of 4096 bytes without a
 * deadlock.
 */
#define LARGEST 2000

struct program {
    libvchan_t *handle;
    int (*step)(struct program *program, uint8_t *data, size_t n); /* bytes moved, -1 */
    uint64_t total;
    unsigned seed;
    bool sound;
    uint64_t steps;
};

static int random_below(struct program *program, int limit)
{
    return rand_r(&program->seed) % limit;
}

/* Mostly no pause, sometimes a short one, now and then one that lets the other side go to sleep. */
static void dawdle(struct program *program)
{
    int dice = random_below(program, 64);

    if (dice == 0)
        usleep((useconds_t)random_below(program, 300));
    else if (dice < 8)
        for (volatile int i = random_below(program, 2000); i > 0; i--)
            ;
}

/* Readers. */

static int read_blocking(struct program *program, uint8_t *data, size_t n)
{
    return libvchan_read(program->handle, data, n);
}

static int recv_blocking(struct program *program, uint8_t *data, size_t n)
{
    return libvchan_recv(program->handle, data, n);
}

static int read_after_select_and_data_ready(struct program *program, uint8_t *data, size_t n)
{
    select_on(program->handle);
    if (libvchan_data_ready(program->handle) == 0)
        return 0;
    return libvchan_read(program->handle, data, n); /* often less than there is */
}

static int read_after_select_and_wait(struct program *program, uint8_t *data, size_t n)
{
    int done = 0;

    select_on(program->handle);
    if (libvchan_wait(program->handle) < 0)
        return -1;
    while (libvchan_data_ready(program->handle) > 0 && (size_t)done < n) {
        int r = libvchan_read(program->handle, data + done, n - (size_t)done);
        if (r < 0)
            return -1;
        done += r;
    }
    return done;
}

static int read_after_wait(struct program *program, uint8_t *data, size_t n)
{
    while (libvchan_data_ready(program->handle) == 0)
        if (libvchan_wait(program->handle) < 0)
            return -1;
    return libvchan_read(program->handle, data, n);
}

/* As Qubes' GUI daemon: waits until a whole message is there, with some of it there already. */
static int recv_after_wait_for_enough(struct program *program, uint8_t *data, size_t n)
{
    while (libvchan_data_ready(program->handle) < (int)n) {
        select_on(program->handle);
        if (libvchan_wait(program->handle) < 0)
            return -1;
    }
    return libvchan_recv(program->handle, data, n);
}

static int recv_after_select_for_enough(struct program *program, uint8_t *data, size_t n)
{
    while (libvchan_data_ready(program->handle) < (int)n)
        select_on(program->handle);
    return libvchan_recv(program->handle, data, n);
}

static int read_until_short(struct program *program, uint8_t *data, size_t n)
{
    libvchan_set_blocking(program->handle, false);
    int r = libvchan_read(program->handle, data, n);
    if (r == 0)
        select_on(program->handle);
    return r;
}

static int recv_until_short(struct program *program, uint8_t *data, size_t n)
{
    libvchan_set_blocking(program->handle, false);
    int r = libvchan_recv(program->handle, data, n);
    if (r == 0)
        select_on(program->handle);
    return r;
}

/* Writers. */

static int write_blocking(struct program *program, uint8_t *data, size_t n)
{
    return libvchan_write(program->handle, data, n);
}

static int send_blocking(struct program *program, uint8_t *data, size_t n)
{
    return libvchan_send(program->handle, data, n);
}

static int write_until_short(struct program *program, uint8_t *data, size_t n)
{
    libvchan_set_blocking(program->handle, false);
    int r = libvchan_write(program->handle, data, n);
    if (r >= 0 && (size_t)r < n)
        select_on(program->handle);
    return r;
}

static int write_until_short_then_wait(struct program *program, uint8_t *data, size_t n)
{
    libvchan_set_blocking(program->handle, false);
    int r = libvchan_write(program->handle, data, n);
    if (r == 0)
        return libvchan_wait(program->handle);
    return r;
}

static int send_after_buffer_space_and_wait(struct program *program, uint8_t *data, size_t n)
{
    while (libvchan_buffer_space(program->handle) < (int)n)
        if (libvchan_wait(program->handle) < 0)
            return -1;
    return libvchan_send(program->handle, data, n);
}

static int write_after_select_and_buffer_space(struct program *program, uint8_t *data, size_t n)
{
    while (libvchan_buffer_space(program->handle) < (int)n)
        select_on(program->handle);
    return libvchan_write(program->handle, data, n);
}

static int write_after_select_wait_and_buffer_space(struct program *program, uint8_t *data,
                                                    size_t n)
{
    while (libvchan_buffer_space(program->handle) < (int)n) {
        select_on(program->handle);
        if (libvchan_wait(program->handle) < 0)
            return -1;
    }
    return libvchan_write(program->handle, data, n);
}

static void *run_reader(void *context)
{
    struct program *program = context;
    uint8_t data[LARGEST];

    for (uint64_t done = 0; done < program->total; program->steps++) {
        size_t n = (size_t)random_below(program, random_below(program, 4) ? 100 : LARGEST) + 1;
        if (n > program->total - done)
            n = (size_t)(program->total - done);
        int r = program->step(program, data, n);
        if (r < 0 || !pattern_matches(data, (size_t)r, done))
            return NULL;
        done += (uint64_t)r;
        dawdle(program);
    }
    program->sound = true;
    return NULL;
}

static void *run_writer(void *context)
{
    struct program *program = context;
    uint8_t data[LARGEST];

    for (uint64_t done = 0; done < program->total; program->steps++) {
        size_t n = (size_t)random_below(program, random_below(program, 4) ? 100 : LARGEST) + 1;
        if (n > program->total - done)
            n = (size_t)(program->total - done);
        pattern_fill(data, n, done);
        int r = program->step(program, data, n);
        if (r < 0)
            return NULL;
        done += (uint64_t)r;
        dawdle(program);
    }
    program->sound = true;
    return NULL;
}

struct style {
    const char *name;
    int (*step)(struct program *program, uint8_t *data, size_t n);
};

#define STYLE(function) {#function, function}

static const struct style readers[] = {
    STYLE(read_blocking),          STYLE(recv_blocking),
    STYLE(read_after_wait),        STYLE(read_after_select_and_data_ready),
    STYLE(read_until_short),       STYLE(read_after_select_and_wait),
    STYLE(recv_until_short),       STYLE(recv_after_wait_for_enough),
    STYLE(recv_after_select_for_enough),
};

static const struct style writers[] = {
    STYLE(write_blocking),
    STYLE(send_blocking),
    STYLE(write_until_short),
    STYLE(write_until_short_then_wait),
    STYLE(send_after_buffer_space_and_wait),
    STYLE(write_after_select_and_buffer_space),
    STYLE(write_after_select_wait_and_buffer_space),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void every_reader_gets_everything_from_every_writer(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(readers) * COUNT(writers); i++) {
        const struct style *reader = &readers[i % COUNT(readers)],
                           *writer = &writers[i / COUNT(readers)];
        struct pair pair = pair_open(4096, 4096);
        uint64_t total = (uint64_t)rounds(1 << 20);
        struct program in = {pair.server, reader->step, total, (unsigned)i + 1, false, 0};
        struct program out = {pair.client, writer->step, total, (unsigned)i + 1001, false, 0};
        pthread_t reading, writing;

        watchdog(60);
        pthread_create(&reading, NULL, run_reader, &in);
        pthread_create(&writing, NULL, run_writer, &out);
        pthread_join(writing, NULL);
        pthread_join(reading, NULL);
        if (!in.sound || !out.sound)
            fail_msg("%s with %s", reader->name, writer->name);
        pair_close(&pair);
    }
}

/* One thread, one descriptor, both directions: what a proxy does. */
struct duplex {
    libvchan_t *handle;
    unsigned habits; /* bits, see duplex_run */
    uint64_t total;
    unsigned seed;
    bool sound;
};

enum { HABIT_WAIT = 1, HABIT_DATA_READY = 2, HABIT_BUFFER_SPACE = 4, HABITS = 8 };

static bool duplex_read(struct duplex *duplex, uint64_t *in)
{
    uint8_t data[512];
    int r;

    do {
        if ((duplex->habits & HABIT_DATA_READY) && libvchan_data_ready(duplex->handle) == 0)
            return true;
        r = libvchan_read(duplex->handle, data,
                          (size_t)(rand_r(&duplex->seed) % (int)sizeof(data)) + 1);
        if (r < 0 || !pattern_matches(data, (size_t)r, *in))
            return false;
        *in += (uint64_t)r;
    } while (r > 0 && rand_r(&duplex->seed) % 4 != 0);
    return true;
}

static bool duplex_write(struct duplex *duplex, uint64_t *out)
{
    uint8_t data[2000];
    size_t n = (size_t)(rand_r(&duplex->seed) % (int)sizeof(data)) + 1;

    if (n > duplex->total - *out)
        n = (size_t)(duplex->total - *out);
    if (n == 0 ||
        ((duplex->habits & HABIT_BUFFER_SPACE) && libvchan_buffer_space(duplex->handle) < (int)n))
        return true;
    pattern_fill(data, n, *out);
    int r = libvchan_write(duplex->handle, data, n);
    if (r < 0)
        return false;
    *out += (uint64_t)r;
    return true;
}

static void *duplex_run(void *context)
{
    struct duplex *duplex = context;
    uint64_t in = 0, out = 0, before;

    libvchan_set_blocking(duplex->handle, false);
    while (in < duplex->total || out < duplex->total) {
        /* As long as output goes out there is no reason to wait. */
        before = out;
        if (!duplex_write(duplex, &out))
            return NULL;
        if (out == before && (in < duplex->total || out < duplex->total)) {
            select_on(duplex->handle);
            if ((duplex->habits & HABIT_WAIT) && libvchan_wait(duplex->handle) < 0)
                return NULL;
        }
        if (!duplex_read(duplex, &in))
            return NULL;
    }
    duplex->sound = true;
    return NULL;
}

static void proxies_with_all_habits_move_everything_both_ways(void **state)
{
    (void)state;
    for (unsigned i = 0; i < HABITS * HABITS; i++) {
        struct pair pair = pair_open(4096, 4096);
        uint64_t total = (uint64_t)rounds(512 << 10);
        struct duplex ends[2] = {{pair.server, i % HABITS, total, i, false},
                                 {pair.client, i / HABITS, total, i + 500, false}};
        pthread_t threads[2];

        watchdog(60);
        for (int end = 0; end < 2; end++)
            pthread_create(&threads[end], NULL, duplex_run, &ends[end]);
        for (int end = 0; end < 2; end++)
            pthread_join(threads[end], NULL);
        if (!ends[0].sound || !ends[1].sound)
            fail_msg("habits %u with %u", i % HABITS, i / HABITS);
        pair_close(&pair);
    }
}

static void a_third_thread_may_wait_while_one_reads_and_one_writes(void **state)
{
    struct pair pair = pair_open(4096, 4096);
    uint64_t total = (uint64_t)rounds(4 << 20);
    struct program programs[4] = {
        {pair.server, read_blocking, total, 1, false, 0},
        {pair.client, write_blocking, total, 2, false, 0},
        {pair.client, recv_blocking, total, 3, false, 0},
        {pair.server, send_blocking, total, 4, false, 0},
    };
    struct third third = {.handle = pair.server};
    pthread_t threads[4], waiter;

    (void)state;
    watchdog(60);
    pthread_create(&waiter, NULL, third_run, &third);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, i % 2 ? run_writer : run_reader, &programs[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        assert_true(programs[i].sound);
    __atomic_store_n(&third.stop, 1, __ATOMIC_RELEASE);
    libvchan_close(pair.client);
    pthread_join(waiter, NULL);
    assert_true(third.waits > 0);
    libvchan_close(pair.server);
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        CASE(every_reader_gets_everything_from_every_writer),
        CASE(proxies_with_all_habits_move_everything_both_ways),
        CASE(a_third_thread_may_wait_while_one_reads_and_one_writes),
    };

    return cmocka_run_group_tests(cases, broker_setup, broker_teardown);
}
