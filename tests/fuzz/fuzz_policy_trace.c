/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any text as a trace: it is read, or refused with a sentence; and any policy gets through it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/policy_trace.h"

#define DECISIONS_MAX (4096u + POLICY_REFUSALS_MAX)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(const struct policy_trace_round *round)
{
    static struct policy_decision decisions[DECISIONS_MAX];

    for (size_t i = 0; i < POLICY_COUNT; i++) {
        size_t count = policies[i].plan(&round->input, &round->config, decisions, DECISIONS_MAX);
        for (size_t at = 0; at < count; at++)
            if (decisions[at].index >= round->input.ring_count)
                abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[POLICY_TRACE_ERROR_BYTES] = "";
    struct policy_trace_round round;
    int r;

    if (size == 0)
        return 0;
    FILE *stream = fmemopen((void *)(uintptr_t)data, size, "r");
    struct policy_trace_reader *reader = stream ? policy_trace_reader_new(stream, "fuzz") : NULL;
    if (!reader)
        abort();
    while ((r = policy_trace_read(reader, &round, error)) == 1)
        ask(&round);
    if (r != 0 && (r != -EINVAL || !error[0]))
        abort();
    policy_trace_reader_free(reader);
    fclose(stream);
    return 0;
}
