/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_resize.c - what a writer notices of its ring being resized and moved all the time.
 *
 * Three processes: this one writes small messages at a steady pace and times each (from asking for
 * space until it is published); one reads and compares every byte; one does the broker's part
 * (bench/resizer.h). With two CPUs for three, the resizer shares the reader's; it wakes as often in
 * the phases in which it publishes nothing, which alternate with the others.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"
#include "bench/resizer.h"
#include "ring/consumer.h"
#include "ring/order.h"
#include "ring/producer.h"

#define CYCLES 100000u
#define PAUSE_US 250u
#define MESSAGE_BYTES 64u
#define WRITE_EVERY_NS 200.0
#define RESIZING_MS 200.0
#define RESTING_MS 100.0
#define PHASES_MAX 100000u

enum phase { PHASE_RESTING, PHASE_RESIZING, PHASES };

struct writing {
    struct ring_producer producer;
    struct histogram current;        /* of this phase */
    struct histogram phases[PHASES]; /* of all */
    struct histogram hit;            /* writes that went over to another generation */
    double p999_ns[PHASES][PHASES_MAX];
    size_t p999_count[PHASES];
    uint64_t next; /* ticks: when the next write is due */
};

/* What stands in the stream's word number n. */
static inline uint64_t stream_word(uint64_t n)
{
    return (n + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static inline void write_one(struct writing *writing)
{
    struct ring_producer *producer = &writing->producer;
    uint64_t message[MESSAGE_BYTES / 8], switches = producer->switch_count;
    struct ring_span span;
    int r;

    for (size_t i = 0; i < MESSAGE_BYTES / 8; i++)
        message[i] = stream_word(producer->tail / 8 + i);
    uint64_t start = measure_ticks();
    while ((r = ring_producer_reserve(producer, MESSAGE_BYTES, MESSAGE_BYTES, &span)) == -EAGAIN)
        order_relax();
    if (r < 0)
        children_fail("the writer: %s", strerror(-r));
    memcpy(span.data, message, MESSAGE_BYTES);
    ring_producer_commit(producer, MESSAGE_BYTES);
    uint64_t took = measure_ticks() - start;
    histogram_add(&writing->current, took);
    if (producer->switch_count != switches)
        histogram_add(&writing->hit, took);
}

static void write_for(struct writing *writing, enum phase phase, double ms)
{
    uint64_t end = measure_ticks() + measure_ticks_of_ns(ms * 1e6), now;
    uint64_t period = measure_ticks_of_ns(WRITE_EVERY_NS);

    memset(&writing->current, 0, sizeof(writing->current));
    writing->next = measure_ticks();
    do {
        while ((now = measure_ticks()) < writing->next)
            order_relax();
        /* Who was held up does not catch up: that would be another load. */
        writing->next = (now - writing->next < period ? writing->next : now) + period;
        write_one(writing);
    } while (now < end);
    if (writing->p999_count[phase] < PHASES_MAX)
        writing->p999_ns[phase][writing->p999_count[phase]++] =
            histogram_quantile_ns(&writing->current, 0.999);
    histogram_merge(&writing->phases[phase], &writing->current);
}

/* Ends when the writer has closed; exit status 0 when every byte up to then was right. */
static _Noreturn void read_all(struct resizer *resizer, uint64_t *verified)
{
    struct ring_consumer consumer;
    struct ring_span span;
    int r;

    ring_consumer_init(&consumer, resizer->page, LAYOUT_SERVER_SENDS, &resizer->memory, 0);
    while ((r = ring_consumer_peek(&consumer, MESSAGE_BYTES, &span)) == 0 || r == -EAGAIN) {
        if (r == -EAGAIN) {
            order_relax();
            continue;
        }
        size_t n = span.size - span.size % 8;
        for (size_t i = 0; i < n; i += 8) {
            uint64_t word = stream_word((consumer.head + i) / 8);
            if (memcmp(span.data + i, &word, sizeof(word)) != 0)
                children_fail("byte %llu differs", (unsigned long long)(consumer.head + i));
        }
        ring_consumer_release(&consumer, n);
        order_store_release(verified, consumer.head);
    }
    if (r != -EPIPE)
        children_fail("the reader: %s", strerror(-r));
    _exit(0);
}

static void report_phase(struct report *report, const char *name, const struct histogram *histogram)
{
    report_row(report, (struct report_cell[]){
                           {.text = name},
                           {.number = histogram_quantile_ns(histogram, 0.5) / 1e3},
                           {.number = histogram_quantile_ns(histogram, 0.99) / 1e3},
                           {.number = histogram_quantile_ns(histogram, 0.999) / 1e3},
                           {.number = histogram_quantile_ns(histogram, 0.9999) / 1e3},
                           {.number = histogram_most_ns(histogram) / 1e3},
                           {.number = (double)histogram->count},
                       });
}

static void report_pauses(struct report *report, struct writing *writing)
{
    static const struct report_column columns[] = {
        {"writes", "writes", 12, REPORT_TEXT},
        {"p50_us", "p50 us", 9, 3},
        {"p99_us", "p99 us", 9, 3},
        {"p99_9_us", "p99.9", 9, 3},
        {"p99_99_us", "p99.99", 9, 3},
        {"max_us", "max", 11, 3},
        {"count", "of", 12, 0},
    };
    const struct histogram *phases = writing->phases;
    double median_ns[PHASES];

    report_table(report, "pauses", columns, sizeof(columns) / sizeof(columns[0]));
    report_phase(report, "resting", &phases[PHASE_RESTING]);
    report_phase(report, "resizing", &phases[PHASE_RESIZING]);
    report_phase(report, "hit", &writing->hit);
    report_table_end(report);
    for (int i = 0; i < PHASES; i++)
        median_ns[i] = measure_median(writing->p999_ns[i], writing->p999_count[i]);
    report_number(report, "p99_9_increase_us",
                  (histogram_quantile_ns(&phases[PHASE_RESIZING], 0.999) -
                   histogram_quantile_ns(&phases[PHASE_RESTING], 0.999)) /
                      1e3,
                  3, "us, all writes");
    report_number(report, "p99_9_increase_of_phase_medians_us",
                  (median_ns[PHASE_RESIZING] - median_ns[PHASE_RESTING]) / 1e3, 3,
                  "us, median of the phases' p99.9");
    report_number(report, "hit_permille",
                  1e3 * (double)writing->hit.count / (double)phases[PHASE_RESIZING].count, 3,
                  "of the writes met a new generation");
}

/*
 * Writes in turns until there were enough cycles, or no time is left. Returns seconds spent
 * resizing.
 */
static double write_phases(struct writing *writing, struct resizer_control *control,
                           uint64_t cycles, double seconds)
{
    uint64_t end_ns = measure_now_ns() + (uint64_t)(seconds * 1e9), resizing_ns = 0;

    while (order_load_acquire(&control->cycles) < cycles &&
           (seconds <= 0 || measure_now_ns() < end_ns)) {
        write_for(writing, PHASE_RESTING, RESTING_MS);
        order_store_release(&control->publishing, 1);
        uint64_t start_ns = measure_now_ns();
        write_for(writing, PHASE_RESIZING, RESIZING_MS);
        resizing_ns += measure_now_ns() - start_ns;
        order_store_release(&control->publishing, 0);
    }
    return (double)resizing_ns * 1e-9;
}

int mode_resize(struct report *report, const struct mode_options *options)
{
    uint64_t cycles = options->cycles ? options->cycles : CYCLES;
    struct writing *writing = calloc(1, sizeof(*writing));
    uint64_t *verified =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct resizer resizer;

    if (!writing || verified == MAP_FAILED)
        children_fail("out of memory");
    measure_ticks_per_ns();
    resizer_init(&resizer, options->pause_us ? options->pause_us : PAUSE_US);
    /* First, so that it gets the CPU that the reader then spins on. */
    pid_t mover = children_fork("the resizer", options->cpus[1]);
    if (mover == 0) {
        resizer_run(&resizer);
        _exit(0);
    }
    while (!order_load_acquire(&resizer.control->ready))
        usleep(1000);
    pid_t reader = children_fork("the reader", options->cpus[1]);
    if (reader == 0)
        read_all(&resizer, verified);
    measure_pin(options->cpus[0]);
    ring_producer_init(&writing->producer, resizer.page, LAYOUT_SERVER_SENDS, &resizer.memory, 0,
                       RESIZER_BLOCKS_MIN * LAYOUT_BLOCK_BYTES);
    /* Without --cycles, --seconds alone decides. */
    double seconds = write_phases(writing, resizer.control,
                                  options->cycles || options->seconds <= 0 ? cycles : UINT64_MAX,
                                  options->seconds);
    children_may_end(reader);
    children_may_end(mover);
    order_store_release(&resizer.control->stop, 1);
    ring_producer_close(&writing->producer);
    if (children_wait(reader) != 0 || children_wait(mover) != 0)
        children_fail("the reader or the resizer failed; the measurement is void");
    if (order_load_acquire(verified) != writing->producer.tail)
        children_fail("%llu bytes were written, %llu read",
                      (unsigned long long)writing->producer.tail, (unsigned long long)*verified);
    const struct resizer_control *control = resizer.control;
    report_number(report, "message_bytes", MESSAGE_BYTES, 0, "bytes");
    report_number(report, "write_every_ns", WRITE_EVERY_NS, 0, "ns");
    report_number(report, "ring_min_bytes", RESIZER_BLOCKS_MIN * LAYOUT_BLOCK_BYTES, 0, "bytes");
    report_number(report, "ring_max_bytes", RESIZER_BLOCKS_MAX * LAYOUT_BLOCK_BYTES, 0, "bytes");
    report_number(report, "cycles", (double)control->cycles, 0, "generations");
    report_number(report, "grows", (double)control->grows, 0, "");
    report_number(report, "shrinks", (double)control->shrinks, 0, "");
    report_number(report, "moves", (double)control->moves, 0, "of the same size");
    report_number(report, "cycles_per_s", (double)control->cycles / seconds, 0, "");
    report_number(report, "verified_bytes", (double)*verified, 0, "bytes, all that were written");
    report_pauses(report, writing);
    ring_producer_deinit(&writing->producer);
    resizer_deinit(&resizer);
    munmap(verified, 4096);
    free(writing);
    return 0;
}
