/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * echo-server DOMAIN PORT - sends back to DOMAIN whatever it writes to PORT, until it closes.
 *
 * Written against libvchan.h alone: compiles unchanged where Qubes' library is installed.
 *     VCHAN_DOMAIN=5 echo-server 6 7000
 */
#include <libvchan.h>
#include <stdio.h>
#include <stdlib.h>

static int echo_until_closed(libvchan_t *channel)
{
    static char buffer[65536];
    long long total = 0;
    int n;

    while ((n = libvchan_read(channel, buffer, sizeof(buffer))) > 0) {
        if (libvchan_write(channel, buffer, (size_t)n) != n) {
            perror("echo-server: write");
            return 1;
        }
        total += n;
    }
    fprintf(stderr, "echo-server: the client has closed after %lld bytes\n", total);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: echo-server DOMAIN PORT\n");
        return 2;
    }

    libvchan_t *channel = libvchan_server_init(atoi(argv[1]), atoi(argv[2]), 4096, 4096);
    if (!channel) {
        perror("echo-server: libvchan_server_init");
        return 1;
    }
    int status = echo_until_closed(channel);
    libvchan_close(channel);
    return status;
}
