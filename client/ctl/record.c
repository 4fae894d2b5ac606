/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vchanctl record: what the broker's policy is asked and says, from now on, into a file. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/ctl.h"

#define PIECE_BYTES 65536u

struct recording {
    int from, to;
    uint64_t bytes, rounds;
    bool line_begins; /* at the next byte */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static uint64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A round is over with each line that begins with an e (broker/policy_trace.h). */
static void count_rounds(struct recording *recording, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        recording->rounds += recording->line_begins && text[i] == 'e';
        recording->line_begins = text[i] == '\n';
    }
    recording->bytes += bytes;
}

static int write_all(int file, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(file, text, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* 1: go on. 0: the broker has ended it. */
static int copy_piece(struct recording *recording)
{
    char piece[PIECE_BYTES];
    ssize_t n = read(recording->from, piece, sizeof(piece));

    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 1 : -errno;
    if (n == 0)
        return 0;
    count_rounds(recording, piece, (size_t)n);
    int r = write_all(recording->to, piece, (size_t)n);
    return r < 0 ? r : 1;
}

/* Until the time is over (0: there is no such time), a signal comes, or the broker ends it. */
static int copy(struct recording *recording, unsigned for_ms)
{
    uint64_t end_ms = for_ms ? clock_ms() + for_ms : UINT64_MAX;
    int r = 1;

    while (r == 1 && !interrupted) {
        struct pollfd wait = {.fd = recording->from, .events = POLLIN};
        uint64_t now_ms = clock_ms();
        if (now_ms >= end_ms)
            break;
        uint64_t left_ms = end_ms - now_ms;
        if (poll(&wait, 1, left_ms < 1000 ? (int)left_ms : 1000) > 0)
            r = copy_piece(recording);
    }
    return r < 0 ? r : 0;
}

static int open_file(const char *path)
{
    if (strcmp(path, "-") == 0)
        return dup(STDOUT_FILENO);
    return open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
}

static void catch_interrupts(void)
{
    /* Without SA_RESTART: it is to end the waiting. */
    const struct sigaction action = {.sa_handler = on_interrupt};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int begin(struct ctl *ctl, struct recording *recording)
{
    struct proto_record_reply reply;

    return broker_link_call_descriptor(&ctl->link, PROTO_RECORD, NULL, 0, &reply, sizeof(reply),
                                       &recording->from);
}

static int record_run(struct ctl *ctl, int argc, char **argv)
{
    struct recording recording = {.from = -1, .to = -1, .line_begins = true};

    (void)argc;
    int r = begin(ctl, &recording);
    if (r < 0)
        return ctl_fail(ctl, r, "cannot record");
    recording.to = open_file(argv[0]);
    if (recording.to < 0) {
        fprintf(stderr, "vchanctl: %s: %s\n", argv[0], strerror(errno));
        close(recording.from);
        return CTL_FAILED;
    }
    catch_interrupts();
    r = copy(&recording, ctl->options & CTL_OPTION_SECONDS ? ctl->seconds_ms : 0);
    close(recording.from);
    if (close(recording.to) < 0 && r == 0)
        r = -errno;
    if (r < 0) {
        fprintf(stderr, "vchanctl: %s: %s\n", argv[0], strerror(-r));
        return CTL_FAILED;
    }
    fprintf(stderr, "%llu rounds, %llu bytes\n", (unsigned long long)recording.rounds,
            (unsigned long long)recording.bytes);
    return CTL_OK;
}

const struct ctl_command record_command = {
    .name = "record",
    .arguments = "FILE",
    .summary = "record what the policy is asked and decides, to be replayed",
    .help = "Writes each round of the rebalancer from now on into FILE (-: standard output):\n"
            "what the policy was told of each ring that it was asked about, and what it\n"
            "decided. It ends after --seconds, when it is interrupted, or with the broker.\n"
            "Where FILE is too slow, rounds are left out, and the gap is marked; the broker\n"
            "does not wait. Domain 0 only.\n"
            "\n"
            "vchan-bench sim --replay FILE gives the policy the same again and compares,\n"
            "vchan-bench sim --trace FILE simulates the load. The format, lines of text, is\n"
            "described in broker/policy_trace.h.\n",
    .options = CTL_OPTION_SECONDS,
    .arguments_min = 1,
    .arguments_max = 1,
    .run = record_run,
};
