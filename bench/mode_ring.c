/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bench/mode_ring.c - our ring beside the ideal one. */
#include "bench/duel.h"
#include "bench/mode.h"

#define SECONDS 20.0
#define RING_BYTES (1u << 20)

int mode_ring(struct report *report, const struct mode_options *options)
{
    size_t ring_bytes = options->ring_bytes ? options->ring_bytes : RING_BYTES;
    struct subject subjects[] = {
        {.name = "ideal", .calls = &subject_ideal, .ring_bytes = ring_bytes},
        {.name = "ring", .calls = &subject_ring, .ring_bytes = ring_bytes},
    };
    struct duel duel = {
        .subjects = subjects,
        .subjects_count = sizeof(subjects) / sizeof(subjects[0]),
        .sizes = options->sizes,
        .sizes_count = options->sizes_count,
        .seconds = options->seconds > 0 ? options->seconds : SECONDS,
        .cpus = options->cpus,
    };

    report_number(report, "ring_bytes", (double)ring_bytes, 0, "bytes");
    duel_run(report, &duel);
    return 0;
}
