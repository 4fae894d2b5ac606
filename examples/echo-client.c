/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * echo-client DOMAIN PORT WORD... - sends each word to the server of DOMAIN on PORT and prints what
 * comes back.
 *
 *     VCHAN_DOMAIN=6 echo-client 5 7000 hello there
 */
#include <libvchan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One word there and back. 0, or 1 with a message. */
static int echo_word(libvchan_t *channel, const char *word)
{
    char answer[4096];
    size_t length = strlen(word);

    if (length > sizeof(answer)) {
        fprintf(stderr, "echo-client: a word is longer than %zu bytes\n", sizeof(answer));
        return 1;
    }
    if (libvchan_send(channel, word, length) != (int)length) {
        perror("echo-client: send");
        return 1;
    }
    if (libvchan_recv(channel, answer, length) != (int)length) {
        perror("echo-client: recv");
        return 1;
    }
    printf("sent \"%s\", got back \"%.*s\"\n", word, (int)length, answer);
    return 0;
}

int main(int argc, char **argv)
{
    int status = 0;

    if (argc < 4) {
        fprintf(stderr, "usage: echo-client DOMAIN PORT WORD...\n");
        return 2;
    }

    libvchan_t *channel = libvchan_client_init(atoi(argv[1]), atoi(argv[2]));
    if (!channel) {
        perror("echo-client: libvchan_client_init");
        return 1;
    }
    for (int i = 3; i < argc && status == 0; i++)
        status = echo_word(channel, argv[i]);
    libvchan_close(channel);
    return status;
}
