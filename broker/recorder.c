/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/recorder.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/policy_trace.h"

struct recorder {
    int socket;
    struct policy_trace_writer *writer;
    char *pending; /* heap */
    size_t pending_bytes, sent_bytes;
    uint64_t missing; /* rounds left out since the last one */
    bool begun;
    bool over;
    /* As last written. */
    const struct policy *policy;
    struct policy_config config;
};

struct recorder *recorder_new(int socket)
{
    struct recorder *recorder = calloc(1, sizeof(*recorder));

    if (!recorder) {
        close(socket);
        return NULL;
    }
    recorder->socket = socket;
    recorder->writer = policy_trace_writer_new();
    if (!recorder->writer) {
        recorder_free(recorder);
        return NULL;
    }
    return recorder;
}

void recorder_free(struct recorder *recorder)
{
    if (!recorder)
        return;
    recorder_flush(recorder);
    close(recorder->socket);
    policy_trace_writer_free(recorder->writer);
    free(recorder->pending);
    free(recorder);
}

bool recorder_flush(struct recorder *recorder)
{
    struct pollfd socket = {.fd = recorder->socket};

    while (!recorder->over && recorder->sent_bytes < recorder->pending_bytes) {
        ssize_t n =
            send(recorder->socket, recorder->pending + recorder->sent_bytes,
                 recorder->pending_bytes - recorder->sent_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            recorder->over = true;
        else
            recorder->sent_bytes += (size_t)n;
    }
    /* One that has gone while there was nothing to send. */
    if (poll(&socket, 1, 0) == 1 && (socket.revents & (POLLHUP | POLLERR)))
        recorder->over = true;
    return !recorder->over;
}

/* Appends text to what is pending. */
static void append(struct recorder *recorder, const char *text, size_t bytes)
{
    size_t left = recorder->pending_bytes - recorder->sent_bytes;
    char *all = malloc(left + bytes);

    if (!all) {
        recorder->over = true;
        return;
    }
    if (left > 0)
        memcpy(all, recorder->pending + recorder->sent_bytes, left);
    memcpy(all + left, text, bytes);
    free(recorder->pending);
    recorder->pending = all;
    recorder->pending_bytes = left + bytes;
    recorder->sent_bytes = 0;
}

/* What has to be said before the round. */
static void write_preface(struct recorder *recorder, FILE *out, const struct policy *policy,
                          const struct policy_config *config)
{
    if (!recorder->begun)
        policy_trace_write_header(out);
    recorder->begun = true;
    if (policy != recorder->policy ||
        memcmp(config, &recorder->config, sizeof(recorder->config)) != 0)
        policy_trace_write_config(out, policy, config);
    recorder->policy = policy;
    recorder->config = *config;
    if (recorder->missing > 0)
        policy_trace_write_gap(out, recorder->missing);
    recorder->missing = 0;
}

void recorder_round(struct recorder *recorder, uint32_t zone, const struct policy *policy,
                    const struct policy_config *config, const struct policy_input *input,
                    const struct policy_decision *decisions, size_t count)
{
    char *text = NULL;
    size_t bytes;

    if (recorder->over)
        return;
    if (recorder->pending_bytes - recorder->sent_bytes > RECORDER_PENDING_MAX) {
        recorder->missing++;
        return;
    }
    FILE *out = open_memstream(&text, &bytes);
    if (!out) {
        recorder->over = true;
        return;
    }
    write_preface(recorder, out, policy, config);
    if (policy_trace_write_round(recorder->writer, out, zone, input, decisions, count) < 0)
        recorder->missing++;
    if (fclose(out) == 0)
        append(recorder, text, bytes);
    else
        recorder->over = true;
    free(text);
    recorder_flush(recorder);
}

int recorder_socket(const struct recorder *recorder)
{
    return recorder->socket;
}

short recorder_events(const struct recorder *recorder)
{
    return recorder->sent_bytes < recorder->pending_bytes ? POLLOUT : 0;
}
