/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/subject_kernel.c - what programs would use instead: AF_UNIX stream sockets and pipes,
 * blocking.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/loops.h"

struct kernel_state {
    int ends[2][2]; /* [reader's side][0: its reading end, 1: the other side's writing end] */
    int in, out;
};

static struct kernel_state *kernel_state_new(struct subject *subject)
{
    subject->state = calloc(1, sizeof(struct kernel_state));
    if (!subject->state)
        children_fail("out of memory");
    return subject->state;
}

static void unix_prepare(struct subject *subject)
{
    struct kernel_state *state = kernel_state_new(subject);
    int pair[2], bytes = (int)subject->ring_bytes;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        children_fail("socketpair: %s", strerror(errno));
    /* Beyond net.core.wmem_max only root may go; what it gets otherwise is its best. */
    for (int i = 0; i < 2 && bytes > 0; i++)
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
            (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    state->ends[SUBJECT_LEADER][0] = state->ends[SUBJECT_FOLLOWER][1] = pair[0];
    state->ends[SUBJECT_FOLLOWER][0] = state->ends[SUBJECT_LEADER][1] = pair[1];
}

static void pipe_prepare(struct subject *subject)
{
    struct kernel_state *state = kernel_state_new(subject);

    for (int side = 0; side < 2; side++) {
        if (pipe2(state->ends[side], O_CLOEXEC) < 0)
            children_fail("pipe: %s", strerror(errno));
        if (subject->ring_bytes)
            (void)fcntl(state->ends[side][1], F_SETPIPE_SZ, (int)subject->ring_bytes);
    }
}

static void kernel_open(struct subject *subject, enum subject_side side)
{
    struct kernel_state *state = subject->state;

    state->in = state->ends[side][0];
    state->out = state->ends[!side][1];
}

/* The ends that are not ours stay open: nobody waits for an end of file. */
static void kernel_close(struct subject *subject)
{
    struct kernel_state *state = subject->state;

    close(state->in);
    if (state->out != state->in)
        close(state->out);
    free(state);
}

LOOPS_INLINE void kernel_send(struct subject *subject, const void *data, size_t n)
{
    int out = ((struct kernel_state *)subject->state)->out;
    const uint8_t *from = data;

    while (n > 0) {
        ssize_t done = write(out, from, n);
        if (done < 0 && errno != EINTR)
            children_fail("%s: write: %s", subject->name, strerror(errno));
        if (done > 0) {
            from += done;
            n -= (size_t)done;
        }
    }
}

LOOPS_INLINE void kernel_receive(struct subject *subject, void *data, size_t n)
{
    int in = ((struct kernel_state *)subject->state)->in;
    uint8_t *to = data;

    while (n > 0) {
        ssize_t done = read(in, to, n);
        if (done == 0 || (done < 0 && errno != EINTR))
            children_fail("%s: read: %s", subject->name, done ? strerror(errno) : "end of file");
        if (done > 0) {
            to += done;
            n -= (size_t)done;
        }
    }
}

SUBJECT_LOOPS(kernel, kernel_send, kernel_receive)

const struct subject_calls subject_unix = {
    .prepare = unix_prepare,
    .open = kernel_open,
    .close = kernel_close,
    SUBJECT_LOOP_CALLS(kernel),
};
const struct subject_calls subject_pipe = {
    .prepare = pipe_prepare,
    .open = kernel_open,
    .close = kernel_close,
    SUBJECT_LOOP_CALLS(kernel),
};
