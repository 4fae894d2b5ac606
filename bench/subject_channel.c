/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/subject_channel.c - the public API against a broker: both of its faces, blocking calls as
 * programs make them.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "bench/loops.h"
#include "client/libvchan.h"
#include "client/vchan.h"

/* The leader plays this domain and serves, the follower that one. */
#define LEADER_DOMAIN 0
#define FOLLOWER_DOMAIN 1

static void channel_prepare(struct subject *subject)
{
    (void)subject; /* the ends find one another through the broker */
}

static void vchan_bench_open(struct subject *subject, enum subject_side side)
{
    struct vchan_options options = {
        .local_domain = side == SUBJECT_LEADER ? LEADER_DOMAIN : FOLLOWER_DOMAIN,
        .receive_min = subject->ring_bytes,
        .send_min = subject->ring_bytes,
        .socket_path = subject->socket_path,
    };
    struct vchan *v = NULL;
    int r = side == SUBJECT_LEADER
                ? vchan_open(FOLLOWER_DOMAIN, subject->port, VCHAN_OPEN_SERVER, &options, &v)
                : vchan_open(LEADER_DOMAIN, subject->port, VCHAN_OPEN_CLIENT, &options, &v);

    if (r < 0)
        children_fail("%s: open: %s: %s", subject->name, strerror(-r), vchan_explain());
    subject->state = v;
}

static void vchan_bench_close(struct subject *subject)
{
    vchan_close(subject->state);
}

LOOPS_INLINE void vchan_bench_send(struct subject *subject, const void *data, size_t n)
{
    const uint8_t *from = data;

    while (n > 0) {
        ssize_t done = vchan_write(subject->state, from, n, VCHAN_FOREVER);
        if (done < 0 && done != -EINTR)
            children_fail("%s: write: %s", subject->name, strerror((int)-done));
        if (done > 0) {
            from += done;
            n -= (size_t)done;
        }
    }
}

LOOPS_INLINE void vchan_bench_receive(struct subject *subject, void *data, size_t n)
{
    uint8_t *to = data;

    while (n > 0) {
        ssize_t done = vchan_read(subject->state, to, n, VCHAN_FOREVER);
        if (done == 0 || (done < 0 && done != -EINTR))
            children_fail("%s: read: %s", subject->name,
                          done ? strerror((int)-done) : "end of file");
        if (done > 0) {
            to += done;
            n -= (size_t)done;
        }
    }
}

/* libvchan finds the broker and its own domain in the environment. */
static void libvchan_open(struct subject *subject, enum subject_side side)
{
    bool leads = side == SUBJECT_LEADER;

    setenv("VCHAN_DOMAIN", leads ? "0" : "1", 1);
    static_assert(LEADER_DOMAIN == 0 && FOLLOWER_DOMAIN == 1, "as the strings say");
    subject->state = leads ? libvchan_server_init(FOLLOWER_DOMAIN, subject->port,
                                                  subject->ring_bytes, subject->ring_bytes)
                           : libvchan_client_init(LEADER_DOMAIN, subject->port);
    if (!subject->state)
        children_fail("%s: init: %s", subject->name, strerror(errno));
    unsetenv("VCHAN_DOMAIN");
}

static void libvchan_bench_close(struct subject *subject)
{
    libvchan_close(subject->state);
}

/* One send and one recv; what is larger goes as a stream, as both copy at the same time then. */
#define LIBVCHAN_SEND_MAX 65536u

LOOPS_INLINE void libvchan_bench_send(struct subject *subject, const void *data, size_t n)
{
    int done = n <= LIBVCHAN_SEND_MAX ? libvchan_send(subject->state, data, n)
                                      : libvchan_write(subject->state, data, n);

    if (__builtin_expect(done != (int)n, 0))
        children_fail("%s: send: %d of %zu: %s", subject->name, done, n, strerror(errno));
}

LOOPS_INLINE void libvchan_bench_receive(struct subject *subject, void *data, size_t n)
{
    uint8_t *to = data;

    while (n > 0) {
        int done = n <= LIBVCHAN_SEND_MAX ? libvchan_recv(subject->state, to, n)
                                          : libvchan_read(subject->state, to, n);
        if (__builtin_expect(done <= 0, 0))
            children_fail("%s: recv: %s", subject->name, strerror(errno));
        to += done;
        n -= (size_t)done;
    }
}

SUBJECT_LOOPS(vchan, vchan_bench_send, vchan_bench_receive)
SUBJECT_LOOPS(libvchan, libvchan_bench_send, libvchan_bench_receive)

const struct subject_calls subject_vchan = {
    .prepare = channel_prepare,
    .open = vchan_bench_open,
    .close = vchan_bench_close,
    SUBJECT_LOOP_CALLS(vchan),
};
const struct subject_calls subject_libvchan = {
    .prepare = channel_prepare,
    .open = libvchan_open,
    .close = libvchan_bench_close,
    SUBJECT_LOOP_CALLS(libvchan),
};
