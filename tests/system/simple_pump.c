/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program as people write them for Qubes' libvchan (after its vchan-simple): standard input goes
 * to the channel, what comes from it goes to standard output, in one select loop. Knows nothing of
 * vchan but libvchan.h.
 *
 *     simple_pump server|client DOMAIN PORT
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#include <libvchan.h>

#define BUFFER_SIZE 5000

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void write_all(int fd, const char *data, int size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, (size_t)size);
        if (n < 0)
            die("write");
        data += n;
        size -= (int)n;
    }
}

/* What there is room for; the rest of standard input waits. Returns 0 at its end. */
static int from_stdin(libvchan_t *ctrl)
{
    char buffer[BUFFER_SIZE];
    int space = libvchan_buffer_space(ctrl);
    size_t size = space < BUFFER_SIZE ? (size_t)space : BUFFER_SIZE;

    if (size == 0)
        return 1;
    ssize_t n = read(0, buffer, size);
    if (n < 0)
        die("read");
    if (n > 0 && libvchan_write(ctrl, buffer, (size_t)n) != n)
        die("libvchan_write");
    return n > 0;
}

static void to_stdout(libvchan_t *ctrl)
{
    char buffer[BUFFER_SIZE];

    while (libvchan_data_ready(ctrl) > 0) {
        int n = libvchan_read(ctrl, buffer, sizeof(buffer));
        if (n < 0)
            die("libvchan_read");
        write_all(1, buffer, n);
    }
}

static void pump(libvchan_t *ctrl, int until_stdin_ends)
{
    int vchan_fd = libvchan_fd_for_select(ctrl), more = 1;

    while (libvchan_is_open(ctrl) != VCHAN_DISCONNECTED && (more || !until_stdin_ends)) {
        fd_set readable;
        FD_ZERO(&readable);
        FD_SET(vchan_fd, &readable);
        if (more && libvchan_buffer_space(ctrl) > 0)
            FD_SET(0, &readable);
        if (select(vchan_fd + 1, &readable, NULL, NULL, NULL) < 0)
            die("select");
        if (FD_ISSET(vchan_fd, &readable))
            libvchan_wait(ctrl);
        to_stdout(ctrl);
        if (FD_ISSET(0, &readable))
            more = from_stdin(ctrl);
    }
    to_stdout(ctrl);
}

int main(int argc, char **argv)
{
    libvchan_t *ctrl;

    if (argc != 4)
        return 2;
    int is_server = strcmp(argv[1], "server") == 0;
    if (is_server)
        ctrl = libvchan_server_init(atoi(argv[2]), atoi(argv[3]), 4096, 4096);
    else
        ctrl = libvchan_client_init(atoi(argv[2]), atoi(argv[3]));
    if (!ctrl)
        die("libvchan init");
    pump(ctrl, !is_server);
    libvchan_close(ctrl);
    return 0;
}
