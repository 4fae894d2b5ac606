/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_latency.c - round trips of 64 bytes, in two worlds: one message right after the other,
 * so that ends that spin a little never sleep; and one in a while, so that both sleep and a wake-up
 * each way is paid.
 */
#include "bench/duel.h"
#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"
#include "bench/private_broker.h"

#include <stdlib.h>

#define SECONDS 10.0
#define RING_BYTES (1u << 16)
#define PORT 7100
#define BYTES 64u
#define PAUSE_US 1000u

static void report_sleeping(struct report *report, struct subject *subjects, size_t count,
                            uint64_t messages, const int cpus[2])
{
    static const struct report_column columns[] = {
        {"subject", "subject", 14, REPORT_TEXT},
        {"p50_us", "p50 us", 9, 2},
        {"p90_us", "p90 us", 9, 2},
        {"p99_us", "p99 us", 9, 2},
        {"max_us", "max us", 9, 2},
        {"round_trips", "of", 7, 0},
    };
    struct histogram *round_trips = calloc(1, sizeof(*round_trips));
    struct pair *pair = pair_new(subjects, count, cpus);

    if (!round_trips)
        children_fail("out of memory");
    report_number(report, "pause_us", PAUSE_US, 0, "us before each");
    report_table(report, "sleeping", columns, sizeof(columns) / sizeof(columns[0]));
    for (size_t i = 0; i < count; i++) {
        *round_trips = (struct histogram){0};
        pair_doze(pair, i, BYTES, messages, PAUSE_US, round_trips);
        report_row(report, (struct report_cell[]){
                               {.text = subjects[i].name},
                               {.number = histogram_quantile_ns(round_trips, 0.5) / 1e3},
                               {.number = histogram_quantile_ns(round_trips, 0.9) / 1e3},
                               {.number = histogram_quantile_ns(round_trips, 0.99) / 1e3},
                               {.number = histogram_most_ns(round_trips) / 1e3},
                               {.number = (double)round_trips->count},
                           });
    }
    report_table_end(report);
    pair_free(pair);
    free(round_trips);
}

int mode_latency(struct report *report, const struct mode_options *options)
{
    double seconds = options->seconds > 0 ? options->seconds : SECONDS;
    struct private_broker broker;
    struct subject spinning[] = {
        {.name = "ideal ring", .calls = &subject_ideal, .ring_bytes = RING_BYTES},
        {.name = "ring", .calls = &subject_ring, .ring_bytes = RING_BYTES},
        {.name = "libvchan", .calls = &subject_libvchan, .ring_bytes = RING_BYTES, .port = PORT},
        {.name = "vchan", .calls = &subject_vchan, .ring_bytes = RING_BYTES, .port = PORT + 1},
        {.name = "unix", .calls = &subject_unix, .sleeps = true},
        {.name = "pipe", .calls = &subject_pipe, .sleeps = true},
    };
    struct subject sleeping[] = {
        {.name = "libvchan",
         .calls = &subject_libvchan,
         .ring_bytes = RING_BYTES,
         .port = PORT + 2},
        {.name = "vchan", .calls = &subject_vchan, .ring_bytes = RING_BYTES, .port = PORT + 3},
        {.name = "unix", .calls = &subject_unix, .sleeps = true},
        {.name = "pipe", .calls = &subject_pipe, .sleeps = true},
    };
    size_t sleepers = sizeof(sleeping) / sizeof(sleeping[0]);
    struct duel duel = {
        .subjects = spinning,
        .subjects_count = sizeof(spinning) / sizeof(spinning[0]),
        .sizes = (const size_t[]){BYTES},
        .sizes_count = 1,
        .seconds = seconds / 2,
        .round_trip_only = true,
        .cpus = options->cpus,
    };

    private_broker_start(&broker, options->socket_path);
    spinning[3].socket_path = sleeping[1].socket_path = broker.socket_path;
    report_open(report, "spinning");
    duel_run(report, &duel);
    report_close(report);
    double messages = seconds / 2 / (double)sleepers / (PAUSE_US * 1.2e-6);
    report_sleeping(report, sleeping, sleepers, (uint64_t)messages + 2, options->cpus);
    private_broker_stop(&broker);
    return 0;
}
