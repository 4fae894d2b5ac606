/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * chat server|client DOMAIN PORT - joins the terminal to a channel: what you type goes to the other
 * end, what it says is printed. Shows the select loop of libvchan programs.
 *
 *     VCHAN_DOMAIN=5 chat server 6 7001
 *     VCHAN_DOMAIN=6 chat client 5 7001
 */
#include <libvchan.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

/*
 * All that there is to read, without waiting. False: the other end has gone and everything is read.
 */
static bool print_what_came(libvchan_t *channel)
{
    char buffer[4096];

    while (libvchan_data_ready(channel) > 0) {
        int n = libvchan_read(channel, buffer, sizeof(buffer));
        if (n <= 0)
            return false;
        if (write(STDOUT_FILENO, buffer, (size_t)n) != n)
            return false;
    }
    return libvchan_is_open(channel) != VCHAN_DISCONNECTED;
}

/* False: the end of the input, or nobody to say it to. */
static bool say_a_line(libvchan_t *channel)
{
    char line[4096];
    ssize_t n = read(STDIN_FILENO, line, sizeof(line));

    return n > 0 && libvchan_write(channel, line, (size_t)n) == (int)n;
}

static void talk(libvchan_t *channel)
{
    int fd = libvchan_fd_for_select(channel);

    /*
     * The descriptor says that something has happened; libvchan_wait takes note of it and does not
     * block then.
     */
    while (print_what_came(channel)) {
        fd_set readable;

        FD_ZERO(&readable);
        FD_SET(fd, &readable);
        FD_SET(STDIN_FILENO, &readable);
        if (select(fd + 1, &readable, NULL, NULL, NULL) < 0)
            return;
        if (FD_ISSET(fd, &readable))
            libvchan_wait(channel);
        if (FD_ISSET(STDIN_FILENO, &readable) && !say_a_line(channel))
            return;
    }
}

int main(int argc, char **argv)
{
    libvchan_t *channel;

    if (argc != 4 || (strcmp(argv[1], "server") != 0 && strcmp(argv[1], "client") != 0)) {
        fprintf(stderr, "usage: chat server|client DOMAIN PORT\n");
        return 2;
    }
    if (strcmp(argv[1], "server") == 0)
        channel = libvchan_server_init(atoi(argv[2]), atoi(argv[3]), 4096, 4096);
    else
        channel = libvchan_client_init(atoi(argv[2]), atoi(argv[3]));
    if (!channel) {
        perror("chat");
        return 1;
    }
    talk(channel);
    libvchan_close(channel);
    return 0;
}
