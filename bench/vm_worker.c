/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/vm_worker.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/measure.h"
#include "client/vchan.h"
#include "ring/order.h"

#define LOOK_MS 20
#define OPEN_PATIENCE_MS 30000
#define CHUNK_BYTES_MAX (1u << 20)

struct flow {
    struct worker *worker;
    unsigned id;
    int peer, port;
    bool server, sends;
    uint32_t chunk_bytes, on_us, off_us, kibs; /* of a sender */
    uint32_t visit_us;                         /* of a receiver */
    struct vchan *v;                           /* shared by the two flows of a channel */
    pthread_t thread;
    uint64_t bytes;         /* plain: all that it has sent or received */
    struct histogram times; /* ns, of whole chunks */
    struct vchan_direction_statistics before;
};

struct worker {
    struct flow flows[VM_FLOWS_MAX];
    unsigned count;
    uint32_t running; /* atomic: a slice is */
    uint32_t stop;    /* atomic */
    /* Writers that are in a slice; they count themselves out. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned busy;
    uint64_t slice; /* number of the current one; under the lock */
};

static _Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;

    fputs("failed ", stdout);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
    exit(1);
}

static void pause_us(uint64_t us)
{
    const struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};

    nanosleep(&time, NULL);
}

/* All of a chunk, or what the end of the slice leaves of it. */
static bool write_chunk(struct flow *flow, const uint8_t *chunk)
{
    uint64_t begun_ns = measure_now_ns();
    size_t done = 0;

    while (done < flow->chunk_bytes) {
        ssize_t n = vchan_write(flow->v, chunk + done, flow->chunk_bytes - done, LOOK_MS);
        if (n < 0 && n != -ETIMEDOUT && n != -EINTR)
            fail("flow %u: write: %s", flow->id, strerror((int)-n));
        if (n > 0) {
            done += (size_t)n;
            order_store_plain(&flow->bytes, flow->bytes + (size_t)n);
        }
        if (!order_load_acquire(&flow->worker->running))
            return false;
    }
    histogram_add(&flow->times, measure_now_ns() - begun_ns);
    return true;
}

/* Until the slice ends. */
static void send_slice(struct flow *flow, const uint8_t *chunk)
{
    /* Senders begin their first burst one after the other. */
    uint64_t period_us = (uint64_t)flow->on_us + flow->off_us;
    uint64_t shift_us = period_us ? flow->id * (uint64_t)flow->on_us % period_us : 0;
    uint64_t begun_ns = measure_now_ns();
    uint64_t sent_bytes = 0;

    while (order_load_acquire(&flow->worker->running)) {
        uint64_t time_us = (measure_now_ns() - begun_ns) / 1000 + shift_us;
        if (flow->off_us && time_us % period_us >= flow->on_us) {
            pause_us(500);
            continue;
        }
        uint64_t on_us =
            flow->off_us ? time_us / period_us * flow->on_us + time_us % period_us : time_us;
        if (flow->kibs && sent_bytes > on_us * flow->kibs * 1024 / 1000000) {
            pause_us(200);
            continue;
        }
        if (!write_chunk(flow, chunk))
            return;
        sent_bytes += flow->chunk_bytes;
    }
}

static void *send_always(void *argument)
{
    struct flow *flow = argument;
    struct worker *worker = flow->worker;
    static const uint8_t chunk[CHUNK_BYTES_MAX];
    uint64_t slice = 0;

    for (;;) {
        pthread_mutex_lock(&worker->lock);
        while (worker->slice == slice)
            pthread_cond_wait(&worker->changed, &worker->lock);
        slice = worker->slice;
        pthread_mutex_unlock(&worker->lock);
        send_slice(flow, chunk);
        pthread_mutex_lock(&worker->lock);
        if (--worker->busy == 0)
            pthread_cond_broadcast(&worker->changed);
        pthread_mutex_unlock(&worker->lock);
    }
    return NULL;
}

static void *receive_always(void *argument)
{
    struct flow *flow = argument;
    struct vchan_span span;
    int r;

    do {
        r = vchan_peek(flow->v, 1, &span, VCHAN_FOREVER);
        if (r == 0) {
            order_store_plain(&flow->bytes, flow->bytes + span.size);
            vchan_release(flow->v, span.size);
            pause_us(flow->visit_us);
        }
    } while (r == 0 || r == -EINTR);
    if (r != -EPIPE && !order_load_acquire(&flow->worker->stop))
        fail("flow %u: read: %s", flow->id, strerror(-r));
    return NULL;
}

/* The other flow of the same channel, if that has been opened. */
static struct vchan *opened_already(const struct worker *worker, const struct flow *flow)
{
    for (const struct flow *other = worker->flows; other < flow; other++)
        if (other->peer == flow->peer && other->port == flow->port)
            return other->v;
    return NULL;
}

/* A guest may still be booting, its peer's agent may not be there yet. */
static void open_flow(struct flow *flow)
{
    uint64_t end_ns = measure_now_ns() + OPEN_PATIENCE_MS * UINT64_C(1000000);
    int r;

    flow->v = opened_already(flow->worker, flow);
    while (!flow->v) {
        r = vchan_open(flow->peer, flow->port, flow->server ? VCHAN_OPEN_SERVER : VCHAN_OPEN_CLIENT,
                       NULL, &flow->v);
        if (r == 0)
            break;
        if ((r != -EHOSTDOWN && r != -ENOENT && r != -ENODEV && r != -ECONNREFUSED) ||
            measure_now_ns() > end_ns)
            fail("flow %u: domain %d port %d: %s: %s", flow->id, flow->peer, flow->port,
                 strerror(-r), vchan_explain());
        pause_us(50000);
    }
}

/* Servers first: an end that connects waits for its server, which may be another worker's. */
static void connect_all(struct worker *worker)
{
    for (int server = 1; server >= 0; server--)
        for (unsigned i = 0; i < worker->count; i++)
            if (worker->flows[i].server == server)
                open_flow(&worker->flows[i]);
    for (unsigned i = 0; i < worker->count; i++) {
        struct flow *flow = &worker->flows[i];
        int r = vchan_wait(flow->v, VCHAN_IS_CONNECTED, OPEN_PATIENCE_MS);
        if (r < 0)
            fail("flow %u: nobody connects to port %d: %s", flow->id, flow->port, strerror(-r));
        r = pthread_create(&flow->thread, NULL, flow->sends ? send_always : receive_always, flow);
        if (r)
            fail("thread: %s", strerror(r));
    }
    puts("connected");
}

static struct vchan_direction_statistics statistics_of(const struct flow *flow)
{
    struct vchan_statistics statistics;
    int r = vchan_statistics(flow->v, &statistics);

    if (r < 0)
        fail("flow %u: %s", flow->id, strerror(-r));
    return statistics.sending;
}

static void print_sent(const struct flow *flow, uint64_t bytes)
{
    const struct vchan_direction_statistics after = statistics_of(flow), *before = &flow->before;

    printf("sent %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", flow->id, bytes,
           after.stalls - before->stalls, after.stall_ns - before->stall_ns,
           after.generation - before->generation);
}

static void print_times(const struct worker *worker)
{
    static struct histogram all;

    memset(&all, 0, sizeof(all));
    for (unsigned i = 0; i < worker->count; i++)
        histogram_merge(&all, &worker->flows[i].times);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        if (all.buckets[i] > 0)
            printf("times %zu %" PRIu64 "\n", i, all.buckets[i]);
}

static void run_slice(struct worker *worker, unsigned ms)
{
    uint64_t before[VM_FLOWS_MAX];
    unsigned senders = 0;

    for (unsigned i = 0; i < worker->count; i++) {
        struct flow *flow = &worker->flows[i];
        before[i] = order_load_plain(&flow->bytes);
        if (!flow->sends)
            continue;
        senders++;
        memset(&flow->times, 0, sizeof(flow->times));
        flow->before = statistics_of(flow);
    }
    order_store_release(&worker->running, 1);
    pthread_mutex_lock(&worker->lock);
    worker->busy = senders;
    worker->slice++;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
    pause_us((uint64_t)ms * 1000);
    order_store_release(&worker->running, 0);
    pthread_mutex_lock(&worker->lock);
    while (worker->busy > 0)
        pthread_cond_wait(&worker->changed, &worker->lock);
    pthread_mutex_unlock(&worker->lock);
    for (unsigned i = 0; i < worker->count; i++) {
        struct flow *flow = &worker->flows[i];
        uint64_t bytes = order_load_plain(&flow->bytes) - before[i];
        if (flow->sends)
            print_sent(flow, bytes);
        else
            printf("received %u %" PRIu64 "\n", flow->id, bytes);
    }
    print_times(worker);
    puts("done");
}

static void add_flow(struct worker *worker, const char *line)
{
    struct flow flow = {.worker = worker};
    char role[8];

    if (worker->count == VM_FLOWS_MAX)
        fail("more than %u flows", VM_FLOWS_MAX);
    if (sscanf(line, "send %u %d %d %7s %u %u %u %u", &flow.id, &flow.peer, &flow.port, role,
               &flow.chunk_bytes, &flow.on_us, &flow.off_us, &flow.kibs) == 8)
        flow.sends = true;
    else if (sscanf(line, "receive %u %d %d %7s %u", &flow.id, &flow.peer, &flow.port, role,
                    &flow.visit_us) != 5)
        fail("what is \"%.60s\"?", line);
    if (flow.sends && (flow.chunk_bytes == 0 || flow.chunk_bytes > CHUNK_BYTES_MAX))
        fail("flow %u: chunks are 1 to %u bytes", flow.id, CHUNK_BYTES_MAX);
    flow.server = strcmp(role, "server") == 0;
    worker->flows[worker->count++] = flow;
}

int vm_worker_run(void)
{
    static struct worker worker = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                   .changed = PTHREAD_COND_INITIALIZER};
    char line[256];
    unsigned ms;

    while (fgets(line, sizeof(line), stdin) && strcmp(line, "quit\n") != 0) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "connect") == 0)
            connect_all(&worker);
        else if (sscanf(line, "slice %u", &ms) == 1)
            run_slice(&worker, ms);
        else
            add_flow(&worker, line);
        fflush(stdout);
    }
    order_store_release(&worker.stop, 1);
    /* Threads and handles end with the process, which is what the other ends see. */
    return 0;
}
