/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An end that stays in the middle of an operation for as long as somebody wants.
 *
 *     holder PEER PORT
 *
 * Connects to the server of that domain and port, writes "before\n", reserves a span and fills it
 * in part, says "holding", waits for a line on standard input, and then goes on as if nothing had
 * happened: publishes "within\n", writes "after\n" and closes.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vchan.h>

static void check(int r, const char *what)
{
    if (r < 0)
        errx(1, "%s: %s: %s", what, strerror(-r), vchan_explain());
}

int main(int argc, char **argv)
{
    static const char within[] = "within\n";
    struct vchan_span span;
    struct vchan *v;
    char line[64];

    if (argc != 3)
        errx(2, "usage: holder PEER PORT");
    check(vchan_open(atoi(argv[1]), atoi(argv[2]), VCHAN_OPEN_CLIENT, NULL, &v), "open");
    check((int)vchan_write(v, "before\n", 7, VCHAN_FOREVER), "write");
    check(vchan_reserve(v, sizeof(within) - 1, 4096, &span, VCHAN_FOREVER), "reserve");
    memcpy(span.data, within, 3);
    puts("holding");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin))
        errx(1, "nobody says when to go on");
    memcpy((char *)span.data + 3, within + 3, sizeof(within) - 1 - 3);
    vchan_commit(v, sizeof(within) - 1);
    check((int)vchan_write(v, "after\n", 6, VCHAN_FOREVER), "write");
    vchan_close(v);
    puts("closed");
    return 0;
}
