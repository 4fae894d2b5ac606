/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_load.c - work for the rebalancer to look at: a few channels, one of which is hot, and
 * not always the same.
 *
 * Each channel has a writer (this process, domain 0) and a reader (a child, domains 1, 2, ...). The
 * hot channel's writer writes all the time; the others a kilobyte now and then. Readers come by
 * once a millisecond and take what is there: so what a channel carries is the size of its ring, a
 * thousand times a second, and more memory is more bytes.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"
#include "bench/private_broker.h"
#include "client/vchan.h"
#include "ring/order.h"

#define CHANNELS 4u
#define CHANNELS_MAX 256u
#define SECONDS 20.0
#define PHASE_SECONDS 4.0
#define PORT 9000
#define CHUNK_BYTES 16384u
#define TRICKLE_BYTES 1024u
#define TRICKLE_US 5000
#define READER_US 1000
#define WAIT_MS 100

struct load {
    unsigned channels;
    unsigned hot;  /* atomic */
    uint32_t stop; /* atomic */
    struct vchan *handles[CHANNELS_MAX];
    const char *socket_path;
};

struct worker {
    struct load *load;
    unsigned number;
    pthread_t thread;
};

/* Opens all channels of one side; number i is to domain i + 1. */
static void open_all(struct load *load, bool serve)
{
    for (unsigned i = 0; i < load->channels; i++) {
        int domain = (int)i + 1;
        struct vchan_options options = {.local_domain = serve ? 0 : domain,
                                        .socket_path = load->socket_path};
        int r = vchan_open(serve ? domain : 0, PORT, serve ? VCHAN_OPEN_SERVER : VCHAN_OPEN_CLIENT,
                           &options, &load->handles[i]);
        if (r < 0)
            children_fail("load: channel %u: %s: %s", i, strerror(-r), vchan_explain());
    }
}

static void *write_always(void *argument)
{
    struct worker *worker = argument;
    struct load *load = worker->load;
    static const uint8_t chunk[CHUNK_BYTES];

    while (!order_load_acquire(&load->stop)) {
        bool hot = order_load_plain(&load->hot) == worker->number;
        ssize_t n = vchan_write(load->handles[worker->number], chunk,
                                hot ? CHUNK_BYTES : TRICKLE_BYTES, WAIT_MS);
        if (n < 0 && n != -ETIMEDOUT && n != -EINTR)
            children_fail("load: channel %u: write: %s", worker->number, strerror((int)-n));
        if (!hot)
            usleep(TRICKLE_US);
    }
    return NULL;
}

static void *read_in_turns(void *argument)
{
    struct worker *worker = argument;
    struct vchan *v = worker->load->handles[worker->number];
    struct vchan_span span;
    int r;

    do {
        r = vchan_peek(v, 1, &span, VCHAN_FOREVER);
        if (r == 0)
            vchan_release(v, span.size);
        usleep(READER_US);
    } while (r == 0 || r == -EINTR);
    if (r != -EPIPE)
        children_fail("load: channel %u: read: %s", worker->number, strerror(-r));
    return NULL;
}

static void start_all(struct load *load, struct worker *workers, void *(*body)(void *))
{
    for (unsigned i = 0; i < load->channels; i++) {
        workers[i] = (struct worker){.load = load, .number = i};
        int error = pthread_create(&workers[i].thread, NULL, body, &workers[i]);
        if (error)
            children_fail("load: thread: %s", strerror(error));
    }
}

static void join_all(struct load *load, struct worker *workers)
{
    for (unsigned i = 0; i < load->channels; i++)
        pthread_join(workers[i].thread, NULL);
}

static _Noreturn void read_side(struct load *load, struct worker *workers)
{
    open_all(load, false);
    start_all(load, workers, read_in_turns);
    join_all(load, workers);
    for (unsigned i = 0; i < load->channels; i++)
        vchan_close(load->handles[i]);
    _exit(0);
}

static void report_phase(struct report *report, struct load *load, unsigned phase,
                         struct vchan_direction_statistics *before, double seconds)
{
    for (unsigned i = 0; i < load->channels; i++) {
        struct vchan_statistics now;
        vchan_statistics(load->handles[i], &now);
        report_row(report,
                   (struct report_cell[]){
                       {.number = phase},
                       {.number = i + 1},
                       {.text = load->hot == i ? "hot" : ""},
                       {.number = (double)(now.sending.bytes_read - before[i].bytes_read) /
                                  seconds * 1e-6},
                       {.number = (double)now.sending.size_bytes / 1024},
                       {.number = (double)(now.sending.generation - before[i].generation)},
                       {.number = (double)(now.sending.stalls - before[i].stalls)},
                       {.number = (double)(now.sending.stall_ns - before[i].stall_ns) * 1e-6},
                   });
        before[i] = now.sending;
    }
}

static void run_phases(struct report *report, struct load *load, double seconds)
{
    static const struct report_column columns[] = {
        {"phase", "phase", 5, 0},         {"domain", "to domain", 9, 0},
        {"load", "load", 4, REPORT_TEXT}, {"mb_per_s", "MB/s", 9, 1},
        {"ring_kib", "ring KiB", 8, 0},   {"generations", "moves", 5, 0},
        {"stalls", "stalls", 8, 0},       {"stall_ms", "stalled ms", 10, 1},
    };
    double phase_seconds =
        seconds / load->channels < PHASE_SECONDS ? seconds / load->channels : PHASE_SECONDS;
    struct vchan_direction_statistics before[CHANNELS_MAX] = {0};
    uint64_t end_ns = measure_now_ns() + (uint64_t)(seconds * 1e9);

    report_table(report, "phases", columns, sizeof(columns) / sizeof(columns[0]));
    for (unsigned phase = 0; measure_now_ns() + (uint64_t)(phase_seconds * 0.5e9) < end_ns;
         phase++) {
        order_store_plain(&load->hot, phase % load->channels);
        uint64_t start_ns = measure_now_ns();
        usleep((useconds_t)(phase_seconds * 1e6));
        report_phase(report, load, phase, before, (double)(measure_now_ns() - start_ns) * 1e-9);
    }
    report_table_end(report);
}

int mode_load(struct report *report, const struct mode_options *options)
{
    struct load *load = calloc(1, sizeof(*load));
    struct worker *workers = calloc(CHANNELS_MAX, sizeof(*workers));
    struct private_broker broker;

    if (!load || !workers)
        children_fail("out of memory");
    load->channels = options->channels ? options->channels : CHANNELS;
    if (load->channels > CHANNELS_MAX - 1) {
        fprintf(stderr, "vchan-bench: load takes at most %u channels\n", CHANNELS_MAX - 1);
        return 2;
    }
    private_broker_start(&broker, options->socket_path);
    load->socket_path = broker.socket_path;
    pid_t readers = children_fork("the process that reads", -1);
    if (readers == 0)
        read_side(load, workers);
    open_all(load, true);
    start_all(load, workers, write_always);
    run_phases(report, load, options->seconds > 0 ? options->seconds : SECONDS);
    order_store_release(&load->stop, 1);
    join_all(load, workers);
    children_may_end(readers);
    for (unsigned i = 0; i < load->channels; i++)
        vchan_close(load->handles[i]);
    if (children_wait(readers) != 0)
        children_fail("load: the readers failed");
    private_broker_stop(&broker);
    free(workers);
    free(load);
    return 0;
}
