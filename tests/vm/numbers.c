/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stream in which every lost, repeated or moved byte shows.
 *
 *     numbers             0, 1, 2, ... as 64-bit words on standard output, until that is closed
 *     numbers COUNT       so many of them
 *     numbers --check     reads them; prints a line for every 8192 (64 KiB) that were right, and
 *                         their number at the end of file. 1 at the first wrong one, or a torn one.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 8192 };

static uint64_t words[BATCH];

static int generate(uint64_t count)
{
    for (uint64_t at = 0; at < count;) {
        size_t batch = count - at < BATCH ? (size_t)(count - at) : BATCH;
        const char *bytes = (const char *)words;
        size_t left = batch * sizeof(words[0]);

        for (size_t i = 0; i < batch; i++)
            words[i] = at + i;
        while (left > 0) {
            ssize_t n = write(1, bytes, left);

            if (n <= 0) {
                perror("numbers: write");
                return 1;
            }
            bytes += n;
            left -= (size_t)n;
        }
        at += batch;
    }
    return 0;
}

static bool are_right(size_t count, uint64_t first)
{
    for (size_t i = 0; i < count; i++) {
        if (words[i] != first + i) {
            printf("WRONG: number %" PRIu64 " is %" PRIu64 "\n", first + i, words[i]);
            return false;
        }
    }
    return true;
}

static int check(void)
{
    uint64_t first = 0; /* of what is in words */
    size_t held = 0;    /* bytes there */
    ssize_t n;

    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((n = read(0, (char *)words + held, sizeof(words) - held)) > 0) {
        held += (size_t)n;
        if (held < sizeof(words))
            continue;
        if (!are_right(BATCH, first))
            return 1;
        first += BATCH;
        held = 0;
        printf("%" PRIu64 "\n", first);
    }
    if (n < 0)
        perror("numbers: read");
    if (!are_right(held / sizeof(words[0]), first))
        return 1;
    printf("%" PRIu64 " in all\n", first + held / sizeof(words[0]));
    if (held % sizeof(words[0]) != 0)
        printf("WRONG: and %zu bytes\n", held % sizeof(words[0]));
    return n < 0 || held % sizeof(words[0]) != 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--check") == 0)
        return check();
    return generate(argc > 1 ? strtoull(argv[1], NULL, 10) : UINT64_MAX);
}
