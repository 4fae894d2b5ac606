/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench/mode_channel.c - the public API beside what programs would use instead. */
#include "bench/duel.h"
#include "bench/mode.h"
#include "bench/private_broker.h"
#include "bench/ucx.h"

#define SECONDS 90.0
#define RING_BYTES (1u << 20)
#define PORT 7000
/* For each message size; with less time than that UCX is left out. */
#define UCX_SECONDS 6.0

int mode_channel(struct report *report, const struct mode_options *options)
{
    size_t ring_bytes = options->ring_bytes ? options->ring_bytes : RING_BYTES;
    double seconds = options->seconds > 0 ? options->seconds : SECONDS;
    bool with_ucx = ucx_is_installed() && seconds >= UCX_SECONDS * (double)options->sizes_count;
    struct private_broker broker;
    struct subject subjects[] = {
        {.name = "vchan", .calls = &subject_vchan, .ring_bytes = ring_bytes, .port = PORT},
        {.name = "libvchan",
         .calls = &subject_libvchan,
         .ring_bytes = ring_bytes,
         .port = PORT + 1},
        {.name = "ideal ring", .calls = &subject_ideal, .ring_bytes = ring_bytes},
        {.name = "unix", .calls = &subject_unix, .sleeps = true},
        {.name = "unix 1M", .calls = &subject_unix, .ring_bytes = ring_bytes, .sleeps = true},
        {.name = "pipe", .calls = &subject_pipe, .sleeps = true},
        {.name = "pipe 1M", .calls = &subject_pipe, .ring_bytes = ring_bytes, .sleeps = true},
        {.name = "ucx tag", .calls = &subject_ucx_tag},
        {.name = "ucx stream", .calls = &subject_ucx_stream},
    };
    struct duel duel = {
        .subjects = subjects,
        .subjects_count = sizeof(subjects) / sizeof(subjects[0]) - (with_ucx ? 0 : 2),
        .sizes = options->sizes,
        .sizes_count = options->sizes_count,
        .seconds = seconds,
        .cpus = options->cpus,
    };

    private_broker_start(&broker, options->socket_path);
    subjects[0].socket_path = broker.socket_path;
    report_number(report, "ring_bytes", (double)ring_bytes, 0, "bytes");
    report_flag(report, "ucx_installed", ucx_is_installed());
    report_flag(report, "ucx_measured", with_ucx);
    duel_run(report, &duel);
    private_broker_stop(&broker);
    return 0;
}
