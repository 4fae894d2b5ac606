/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of the libraries: a broker for all cases of an executable, and channels between domain
 * 0, which serves, and domain 1. A prefix tells the interface: libvchan_ or native (vchan).
 */
#ifndef VCHAN_TESTS_SYSTEM_PAIR_H
#define VCHAN_TESTS_SYSTEM_PAIR_H

#include <sys/select.h>

#include <libvchan.h>
#include <vchan.h>

#include "tests/system/vchand_fixture.h"

/* Of the next channel. */
static int next_port = 1000;

struct pair {
    libvchan_t *server, *client;
};

static inline struct pair pair_open(size_t read_min, size_t write_min)
{
    struct pair pair;
    int port = next_port++;

    as_domain(0);
    pair.server = libvchan_server_init(1, port, read_min, write_min);
    assert_non_null(pair.server);
    as_domain(1);
    pair.client = libvchan_client_init(0, port);
    assert_non_null(pair.client);
    return pair;
}

static inline void pair_close(struct pair *pair)
{
    libvchan_close(pair->client);
    libvchan_close(pair->server);
}

struct native_pair {
    struct vchan *server, *client;
};

/* size: the least of either ring, 0 for the default. */
static inline int native_open(int domain, int peer, int port, unsigned flags, size_t size,
                              struct vchan **out)
{
    const struct vchan_options options = {
        .local_domain = domain, .receive_min = size, .send_min = size};

    return vchan_open(peer, port, flags, &options, out);
}

static inline struct native_pair native_pair_open(size_t size)
{
    struct native_pair pair;
    int port = next_port++;

    assert_int_equal(native_open(0, 1, port, VCHAN_OPEN_SERVER, size, &pair.server), 0);
    assert_int_equal(native_open(1, 0, port, VCHAN_OPEN_CLIENT, 0, &pair.client), 0);
    return pair;
}

static inline void native_pair_close(struct native_pair *pair)
{
    vchan_close(pair->client);
    vchan_close(pair->server);
}

/* Until the descriptor of the handle is readable. */
static inline void select_on(libvchan_t *handle)
{
    int fd = libvchan_fd_for_select(handle);
    fd_set set;

    FD_ZERO(&set);
    FD_SET(fd, &set);
    if (select(fd + 1, &set, NULL, NULL, NULL) < 0)
        abort();
}

/*
 * Until a thread (its gettid; a process's first thread has its pid) sleeps in the kernel, as one
 * does that blocks in a call: what is done next meets a sleeper and not one that is on its way. A
 * watchdog ends it if the thread never sleeps.
 */
static inline void wait_until_asleep(pid_t thread)
{
    char path[64], text[512];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)thread);
    for (;; usleep(500)) {
        FILE *file = fopen(path, "r");
        if (!file)
            abort();
        const char *name_end = fgets(text, sizeof(text), file) ? strrchr(text, ')') : NULL;
        fclose(file);
        if (name_end && name_end[1] == ' ' && name_end[2] == 'S')
            return;
    }
}

/* The same for a thread that stores its gettid there when it starts; 0 until then. */
static inline void wait_until_started_and_asleep(const pid_t *thread)
{
    pid_t id;

    while ((id = __atomic_load_n(thread, __ATOMIC_ACQUIRE)) == 0)
        usleep(500);
    wait_until_asleep(id);
}

static inline void tell_thread(pid_t *thread)
{
    __atomic_store_n(thread, gettid(), __ATOMIC_RELEASE);
}

/* A third thread on a handle that one reads and one writes: it only waits. */
struct third {
    libvchan_t *handle;
    pid_t thread; /* atomic */
    int stop;     /* atomic */
    int waits;    /* atomic */
};

static inline void *third_run(void *context)
{
    struct third *third = context;

    tell_thread(&third->thread);
    while (!__atomic_load_n(&third->stop, __ATOMIC_ACQUIRE) && libvchan_wait(third->handle) == 0)
        __atomic_add_fetch(&third->waits, 1, __ATOMIC_RELAXED);
    return NULL;
}

/* A minute for each case, and the broker for all of them. */
static inline int case_setup(void **state)
{
    (void)state;
    watchdog(60);
    return 0;
}

static inline int broker_setup(void **state)
{
    (void)state;
    vchand_start("");
    return 0;
}

/* Rings stay as large as they were asked for. */
static inline int broker_setup_fixed_rings(void **state)
{
    (void)state;
    vchand_start("[rebalance]\nring-default-max = 4K\n");
    return 0;
}

static inline int broker_teardown(void **state)
{
    (void)state;
    return vchand_stop();
}

#define CASE(name) cmocka_unit_test_setup(name, case_setup)

#endif
