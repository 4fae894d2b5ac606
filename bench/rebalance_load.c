/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/rebalance_load.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/children.h"
#include "ring/order.h"

#define PORT 9000
#define PIECE_BYTES 65536u
#define WAIT_MS 100
#define NS_PER_MS 1000000ull

static const struct rebalance_load loads[] = {
    {"bursty",
     "0.02 shares, and each 4 s a burst of 0.4 s at 3 shares, one stream after the other"},
    {"skewed", "one in 8 streams 3 shares, two in 8 0.75 shares, the others 0.05 shares"},
    {"uniform", "1.25 shares each"},
    {"constant", "one in 4 streams 1.5 shares, the others 0.25 shares"},
};

const struct rebalance_load *rebalance_load_at(size_t index)
{
    return index < sizeof(loads) / sizeof(loads[0]) ? &loads[index] : NULL;
}

struct stream_rate rebalance_load_rate(const struct rebalance_load *load, unsigned stream,
                                       unsigned streams, double share)
{
    const bool first_of_4 = stream % 4 == 0, first_of_8 = stream % 8 == 0;

    if (load == &loads[0])
        return (struct stream_rate){
            .bytes_per_s = 0.02 * share,
            .burst_bytes_per_s = 3 * share,
            .burst_at_s = 1e-3 * LOAD_BURST_EVERY_MS * stream / streams,
        };
    if (load == &loads[1] && first_of_8)
        return (struct stream_rate){.bytes_per_s = 3 * share, .group = 0};
    if (load == &loads[1])
        return stream % 8 == 3 || stream % 8 == 6
                   ? (struct stream_rate){.bytes_per_s = 0.75 * share, .group = 1}
                   : (struct stream_rate){.bytes_per_s = 0.05 * share, .group = 2};
    if (load == &loads[2])
        return (struct stream_rate){.bytes_per_s = 1.25 * share};
    return first_of_4 ? (struct stream_rate){.bytes_per_s = 1.5 * share, .group = 0}
                      : (struct stream_rate){.bytes_per_s = 0.25 * share, .group = 1};
}

double rebalance_load_due(const struct stream_rate *rate, double seconds)
{
    const double every_s = 1e-3 * LOAD_BURST_EVERY_MS, burst_s = 1e-3 * LOAD_BURST_MS;
    double due = rate->bytes_per_s * seconds;

    for (double at_s = rate->burst_at_s; rate->burst_bytes_per_s > 0 && at_s < seconds;
         at_s += every_s)
        due += rate->burst_bytes_per_s * (seconds - at_s < burst_s ? seconds - at_s : burst_s);
    return due;
}

struct worker {
    struct rebalance_side *side;
    unsigned channel;
    pthread_t writer, reader;
};

struct rebalance_threads {
    struct worker workers[LOAD_CHANNELS_MAX];
};

static void sleep_until(uint64_t ns)
{
    const struct timespec at = {.tv_sec = (time_t)(ns / 1000000000u),
                                .tv_nsec = (long)(ns % 1000000000u)};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

static uint64_t await_start(struct rebalance_shared *shared)
{
    uint64_t start_ns;

    while ((start_ns = order_load_acquire(&shared->start_ns)) == 0)
        usleep(1000);
    sleep_until(start_ns);
    return start_ns;
}

/* All of the message, or until time is over: false. */
static bool write_message(struct vchan *v, uint64_t until_ns)
{
    static const uint8_t message[LOAD_MESSAGE_BYTES];

    for (size_t done = 0; done < sizeof(message);) {
        ssize_t n = vchan_write(v, message + done, sizeof(message) - done, WAIT_MS);
        if (n > 0)
            done += (size_t)n;
        else if (measure_now_ns() >= until_ns)
            return false;
        else if (n != -ETIMEDOUT && n != -EINTR)
            children_fail("rebalance: write: %s", strerror((int)-n));
    }
    return true;
}

static void *write_all(void *argument)
{
    struct worker *worker = argument;
    struct rebalance_shared *shared = worker->side->shared;
    const unsigned stream = 2 * worker->channel + worker->side->side;
    struct vchan *v = worker->side->handles[worker->channel];
    const uint64_t start_ns = await_start(shared);
    uint64_t now_ns = start_ns, tick_ns = start_ns, messages = 0;

    while (now_ns < shared->until_ns) {
        double due = rebalance_load_due(&shared->rates[stream], (double)(now_ns - start_ns) * 1e-9);
        for (uint64_t all = (uint64_t)(due / LOAD_MESSAGE_BYTES); messages < all; messages++) {
            uint64_t begin = measure_ticks();
            if (!write_message(v, shared->until_ns))
                return NULL;
            if (now_ns >= shared->from_ns)
                histogram_add(&shared->writes[stream], measure_ticks() - begin);
        }
        /* The next tick after now: who was held up has more due, and no more ticks. */
        now_ns = measure_now_ns();
        while (tick_ns <= now_ns)
            tick_ns += LOAD_WRITE_MS * NS_PER_MS;
        sleep_until(tick_ns);
        now_ns = measure_now_ns();
    }
    return NULL;
}

/* Takes what is there now, and looks at every byte. False: nobody will write any more. */
static bool read_once(struct vchan *v, uint8_t *sink)
{
    size_t left = vchan_readable(v);
    struct vchan_span span;
    int r = 0;

    while (left > 0 && (r = vchan_peek(v, 1, &span, 0)) == 0) {
        size_t n = span.size < left ? span.size : left;
        n = n < PIECE_BYTES ? n : PIECE_BYTES;
        memcpy(sink, span.data, n);
        vchan_release(v, n);
        left -= n;
    }
    if (r < 0 && r != -EAGAIN && r != -EPIPE)
        children_fail("rebalance: read: %s", strerror(-r));
    return r != -EPIPE;
}

static void *read_all(void *argument)
{
    struct worker *worker = argument;
    struct rebalance_shared *shared = worker->side->shared;
    const unsigned stream = 2 * worker->channel + 1 - worker->side->side;
    struct vchan *v = worker->side->handles[worker->channel];
    uint8_t *sink = malloc(PIECE_BYTES);
    const uint64_t start_ns = await_start(shared);

    if (!sink)
        children_fail("out of memory");
    /* Spread, so that not all come at once. */
    uint64_t tick_ns = start_ns + stream * 7 % LOAD_READ_MS * NS_PER_MS;
    while (tick_ns < shared->until_ns + 2 * LOAD_READ_MS * NS_PER_MS) {
        sleep_until(tick_ns);
        if (!read_once(v, sink))
            break;
        for (uint64_t now_ns = measure_now_ns(); tick_ns <= now_ns;)
            tick_ns += LOAD_READ_MS * NS_PER_MS;
    }
    free(sink);
    return NULL;
}

void rebalance_side_open(struct rebalance_side *side)
{
    for (unsigned i = 0; i < side->channels; i++) {
        const bool serves = side->side == 0;
        const struct vchan_options options = {.local_domain = (int)side->side,
                                              .socket_path = side->socket_path};
        int r =
            vchan_open(serves ? 1 : 0, (int)(PORT + i),
                       serves ? VCHAN_OPEN_SERVER : VCHAN_OPEN_CLIENT, &options, &side->handles[i]);
        if (r < 0)
            children_fail("rebalance: channel %u: %s: %s", i, strerror(-r), vchan_explain());
    }
    __atomic_add_fetch(&side->shared->ready, 1, __ATOMIC_RELEASE);
}

struct rebalance_threads *rebalance_side_start(struct rebalance_side *side)
{
    struct rebalance_threads *threads = calloc(1, sizeof(*threads));

    if (!threads)
        children_fail("out of memory");
    for (unsigned i = 0; i < side->channels; i++) {
        struct worker *worker = &threads->workers[i];
        *worker = (struct worker){.side = side, .channel = i};
        if (pthread_create(&worker->writer, NULL, write_all, worker) != 0 ||
            pthread_create(&worker->reader, NULL, read_all, worker) != 0)
            children_fail("rebalance: cannot make a thread");
    }
    return threads;
}

void rebalance_side_join(struct rebalance_side *side, struct rebalance_threads *threads)
{
    for (unsigned i = 0; i < side->channels; i++) {
        pthread_join(threads->workers[i].writer, NULL);
        pthread_join(threads->workers[i].reader, NULL);
    }
    free(threads);
}
