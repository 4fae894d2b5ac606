/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ends and brokers that die by SIGKILL in the middle of a transfer: every byte that was published
 * still arrives, then the disconnection; nobody hangs.
 */
#include <pthread.h>
#include <sys/mman.h>

#include "tests/system/pair.h"

struct shared {
    uint64_t published; /* atomic; what a write has confirmed */
    uint64_t started;   /* and what it may have published */
};

static struct shared *shared;

static struct vchan *open_as(int domain, int peer, int port, unsigned flags)
{
    struct vchan *v;
    int r = native_open(domain, peer, port, flags, 0, &v);

    if (r < 0) {
        fprintf(stderr, "open: %s: %s\n", strerror(-r), vchan_explain());
        _exit(1);
    }
    return v;
}

static void write_for_ever(int port, unsigned seed)
{
    struct vchan *v = open_as(1, 0, port, VCHAN_OPEN_CLIENT);
    uint8_t data[5000];
    uint64_t position = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        size_t n = (size_t)rand_r(&seed) % sizeof(data) + 1;
        pattern_fill(data, n, position);
        __atomic_store_n(&shared->started, position + n, __ATOMIC_RELEASE);
        ssize_t r = vchan_write(v, data, n, VCHAN_FOREVER);
        if (r < 0)
            _exit(1);
        position += (uint64_t)r;
        __atomic_store_n(&shared->published, position, __ATOMIC_RELEASE);
    }
}

static void read_for_ever(int port)
{
    struct vchan *v = open_as(1, 0, port, VCHAN_OPEN_CLIENT);
    uint8_t data[5000];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (vchan_read(v, data, sizeof(data), VCHAN_FOREVER) > 0)
        ;
    _exit(1);
}

static pid_t spawn(void (*run)(int port, unsigned seed), int port, unsigned seed)
{
    fflush(NULL);
    pid_t child = fork();

    if (child == 0) {
        run(port, seed);
        _exit(1);
    }
    return child;
}

static void run_reader(int port, unsigned seed)
{
    (void)seed;
    read_for_ever(port);
}

static void kill_and_reap(pid_t child)
{
    int status;

    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
}

/* Reads to the end of file; how many bytes came, all of them right. */
static uint64_t drain(struct vchan *v, uint64_t position)
{
    uint8_t data[7000];
    ssize_t r;

    while ((r = vchan_read(v, data, sizeof(data), 5000)) > 0) {
        assert_true(pattern_matches(data, (size_t)r, position));
        position += (uint64_t)r;
    }
    assert_int_equal(r, 0);
    return position;
}

static void what_a_killed_writer_published_arrives(void **state)
{
    (void)state;
    for (unsigned round = 0; round < (unsigned)rounds(100); round++) {
        int port = next_port++;
        struct vchan *v = open_as(0, 1, port, VCHAN_OPEN_SERVER);
        uint8_t data[3000];
        uint64_t position = 0;

        watchdog(20);
        *shared = (struct shared){0};
        pid_t child = spawn(write_for_ever, port, round);
        assert_true(vchan_wait(v, VCHAN_IS_CONNECTED, 5000) > 0);
        for (unsigned reads = round % 50; reads > 0; reads--) {
            ssize_t r = vchan_read(v, data, sizeof(data), 5000);
            assert_true(r > 0 && pattern_matches(data, (size_t)r, position));
            position += (uint64_t)r;
        }
        usleep(round * 7 % 500);
        kill_and_reap(child);
        position = drain(v, position);
        assert_true(position >= shared->published && position <= shared->started);
        assert_int_equal(vchan_write(v, "x", 1, 0), -EPIPE);
        assert_true(vchan_state(v) & VCHAN_IS_GONE);
        vchan_close(v);
    }
}

static void a_writer_hears_that_its_reader_was_killed(void **state)
{
    static uint8_t data[100000];

    (void)state;
    for (unsigned round = 0; round < (unsigned)rounds(50); round++) {
        int port = next_port++;
        struct vchan *v = open_as(0, 1, port, VCHAN_OPEN_SERVER);
        ssize_t r = 1;

        watchdog(20);
        pid_t child = spawn(run_reader, port, 0);
        assert_true(vchan_wait(v, VCHAN_IS_CONNECTED, 5000) > 0);
        for (unsigned i = 0; i < round && r > 0; i++)
            r = vchan_write(v, data, sizeof(data), 5000);
        assert_true(r > 0);
        kill_and_reap(child);
        while ((r = vchan_write(v, data, sizeof(data), 5000)) > 0)
            ;
        assert_int_equal(r, -EPIPE);
        vchan_close(v);
    }
}

/* Kills it once the first thread, the caller, sleeps. */
static void *kill_soon(void *context)
{
    wait_until_asleep(getpid());
    kill(*(pid_t *)context, SIGKILL);
    return NULL;
}

static void stay(int port, unsigned seed)
{
    struct vchan *v = open_as(1, 0, port, VCHAN_OPEN_CLIENT);

    (void)seed;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (vchan_write(v, "!", 1, 0) == 1) /* here I am */
        pause();
}

static void a_death_wakes_a_blocked_reader(void **state)
{
    int port = next_port++;
    struct vchan *v = open_as(0, 1, port, VCHAN_OPEN_SERVER);
    pthread_t thread;
    char in;

    (void)state;
    watchdog(20);
    pid_t child = spawn(stay, port, 0);
    assert_int_equal(vchan_read(v, &in, 1, 5000), 1);
    pthread_create(&thread, NULL, kill_soon, &child);
    assert_int_equal(vchan_read(v, &in, 1, 5000), 0);
    pthread_join(thread, NULL);
    waitpid(child, NULL, 0);
    vchan_close(v);
}

static void the_port_of_a_killed_server_is_free(void **state)
{
    int port = next_port++;

    (void)state;
    watchdog(20);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)open_as(0, 1, port, VCHAN_OPEN_SERVER);
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
    struct vchan *v = NULL;
    int r = -EADDRINUSE;
    for (int i = 0; i < 500 && r == -EADDRINUSE; i++, usleep(1000))
        r = native_open(0, 1, port, VCHAN_OPEN_SERVER, 0, &v);
    assert_int_equal(r, 0);
    vchan_close(v);
}

struct flow {
    struct vchan *v;
    uint64_t total;
    bool sound;
};

static void *flow_write(void *context)
{
    struct flow *flow = context;
    uint8_t data[3000];

    for (uint64_t done = 0; done < flow->total;) {
        size_t n = flow->total - done < sizeof(data) ? (size_t)(flow->total - done) : sizeof(data);
        pattern_fill(data, n, done);
        ssize_t r = vchan_write(flow->v, data, n, VCHAN_FOREVER);
        if (r <= 0)
            return NULL;
        done += (uint64_t)r;
        if (done % 64 == 0)
            usleep(100);
    }
    flow->sound = true;
    return NULL;
}

static void restart_broker(void)
{
    vchand_stop();
    vchand_start("");
}

static void channels_go_on_when_the_broker_is_killed(void **state)
{
    int port = next_port++;
    struct flow flow = {.v = open_as(0, 1, port, VCHAN_OPEN_SERVER),
                        .total = (uint64_t)rounds(4 << 20)};
    struct vchan *client = open_as(1, 0, port, VCHAN_OPEN_CLIENT);
    uint8_t data[2000];
    pthread_t thread;

    (void)state;
    watchdog(60);
    pthread_create(&thread, NULL, flow_write, &flow);
    for (uint64_t position = 0; position < flow.total;) {
        if (position == 0)
            vchand_kill();
        ssize_t r = vchan_read(client, data, sizeof(data), 5000);
        assert_true(r > 0 && pattern_matches(data, (size_t)r, position));
        position += (uint64_t)r;
    }
    pthread_join(thread, NULL);
    assert_true(flow.sound);
    double cpu_s = thread_cpu_s();
    assert_int_equal(vchan_read(client, data, 1, 300), -ETIMEDOUT);
    assert_true(thread_cpu_s() - cpu_s < 0.1);
    vchan_close(flow.v);
    assert_int_equal(vchan_read(client, data, 1, 5000), 0);
    vchan_close(client);
    restart_broker();
}

static void a_death_is_noticed_without_a_broker(void **state)
{
    int port = next_port++;
    struct vchan *v = open_as(0, 1, port, VCHAN_OPEN_SERVER);
    pthread_t thread;
    char in;

    (void)state;
    watchdog(20);
    pid_t child = spawn(stay, port, 0);
    assert_int_equal(vchan_read(v, &in, 1, 5000), 1);
    vchand_kill();
    assert_int_equal(vchan_read(v, &in, 1, 100), -ETIMEDOUT);
    pthread_create(&thread, NULL, kill_soon, &child);
    assert_int_equal(vchan_read(v, &in, 1, 5000), 0);
    assert_int_equal(vchan_write(v, "x", 1, 5000), -EPIPE);
    pthread_join(thread, NULL);
    waitpid(child, NULL, 0);
    vchan_close(v);
    restart_broker();
}

static void a_server_that_waits_ends_with_the_broker(void **state)
{
    int port = next_port++;
    struct vchan *v = open_as(0, 1, port, VCHAN_OPEN_SERVER);
    char data[8192] = {0};

    (void)state;
    watchdog(20);
    setenv("VCHAN_DOMAIN", "0", 1);
    libvchan_t *server = libvchan_server_init(1, next_port++, 0, 0);
    assert_int_equal(libvchan_is_open(server), VCHAN_WAITING);
    vchand_kill();
    assert_int_equal(vchan_read(v, data, 1, 5000), 0);
    ssize_t r;
    while ((r = vchan_write(v, data, sizeof(data), 5000)) > 0)
        ;
    assert_int_equal(r, -EPIPE);
    while (libvchan_wait(server) == 0)
        ;
    assert_int_equal(errno, EPIPE);
    assert_int_equal(libvchan_is_open(server), VCHAN_DISCONNECTED);
    libvchan_close(server);
    vchan_close(v);
    restart_broker();
}

static int all_setup(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    vchand_start("");
    return 0;
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(what_a_killed_writer_published_arrives),
        cmocka_unit_test(a_writer_hears_that_its_reader_was_killed),
        cmocka_unit_test(a_death_wakes_a_blocked_reader),
        cmocka_unit_test(the_port_of_a_killed_server_is_free),
        cmocka_unit_test(channels_go_on_when_the_broker_is_killed),
        cmocka_unit_test(a_death_is_noticed_without_a_broker),
        cmocka_unit_test(a_server_that_waits_ends_with_the_broker),
    };

    return cmocka_run_group_tests(cases, all_setup, broker_teardown);
}
