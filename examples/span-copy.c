/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * span-copy send|receive DOMAIN PORT - standard input to a channel, or a channel to standard
 * output, without a buffer of its own: read(2) fills the ring itself, write(2) empties it. Shows
 * the native interface, vchan.h.
 *
 *     VCHAN_DOMAIN=5 span-copy send 6 7002 < file
 *     VCHAN_DOMAIN=6 span-copy receive 5 7002 > copy
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vchan.h>

#define AT_MOST ((size_t)1 << 20)

/*
 * Between reserve and commit the broker cannot move the ring: so wait for input first, not in
 * there.
 */
static void wait_for_input(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    poll(&input, 1, -1);
}

/* 0 at the end of the input, or a negative errno of the channel. */
static int send_all(struct vchan *channel)
{
    struct vchan_span span;

    for (;;) {
        wait_for_input();
        int r = vchan_reserve(channel, 1, AT_MOST, &span, VCHAN_FOREVER);
        if (r < 0)
            return r;
        ssize_t n = read(STDIN_FILENO, span.data, span.size);
        vchan_commit(channel, n > 0 ? (size_t)n : 0);
        if (n <= 0)
            return 0;
    }
}

static int receive_all(struct vchan *channel)
{
    struct vchan_span span;

    for (;;) {
        int r = vchan_peek(channel, 1, &span, VCHAN_FOREVER);
        if (r == -EPIPE)
            return 0; /* the other end has closed, and everything is read */
        if (r < 0)
            return r;
        ssize_t n = write(STDOUT_FILENO, span.data, span.size);
        vchan_release(channel, n > 0 ? (size_t)n : 0);
        if (n < 0)
            return -errno;
    }
}

int main(int argc, char **argv)
{
    struct vchan *channel;

    if (argc != 4 || (strcmp(argv[1], "send") != 0 && strcmp(argv[1], "receive") != 0)) {
        fprintf(stderr, "usage: span-copy send|receive DOMAIN PORT\n");
        return 2;
    }
    /* Whoever comes first serves. */
    int r = vchan_open(atoi(argv[2]), atoi(argv[3]), VCHAN_OPEN_RENDEZVOUS, NULL, &channel);
    if (r < 0) {
        fprintf(stderr, "span-copy: %s: %s\n", strerror(-r), vchan_explain());
        return 1;
    }
    r = strcmp(argv[1], "send") == 0 ? send_all(channel) : receive_all(channel);
    vchan_close(channel);
    if (r < 0)
        fprintf(stderr, "span-copy: %s\n", strerror(-r));
    return r < 0;
}
