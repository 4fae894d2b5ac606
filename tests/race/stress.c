/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/race/stress.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring/consumer.h"
#include "ring/geometry.h"
#include "ring/order.h"
#include "ring/producer.h"

#define LONGEST_S 40.0
#define SLOTS 6u             /* extents that the ring moves among */
#define SLOT_BLOCKS 4u       /* the largest size of each */
#define RUBBISH 0xee
#define PATIENCE_MS 2000     /* a wake-up that takes longer was lost */
#define DATA_OFFSET 8192u
#define SLOT_BYTES (SLOT_BLOCKS * LAYOUT_BLOCK_BYTES)
#define REGION_BYTES (DATA_OFFSET + SLOTS * SLOT_BYTES)

/* In memory shared by the three; what the ends report. */
struct shared_report {
    int stop;
    int failed;
    int producer_done, consumer_done;
    char why[160];
};

struct stress {
    const struct stress_options *options;
    struct ring_memory memory;
    struct layout_channel_page *page;
    uint8_t *all; /* the whole region, for the broker */
    int data_event, space_event;
    struct shared_report *report;
    struct ring_geometry geometry;
    unsigned current_slot, old_slot;
};

struct random {
    uint64_t state;
};

static uint32_t next_random(struct random *r, uint32_t below)
{
    r->state = r->state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((r->state >> 33) % below);
}

static uint8_t stream_byte(uint64_t position)
{
    return (uint8_t)((position * 0x9e3779b97f4a7c15ull) >> 56);
}

__attribute__((format(printf, 2, 3))) static void fail(struct stress *s, const char *format, ...)
{
    int expected = 0;
    va_list list;

    if (!__atomic_compare_exchange_n(&s->report->failed, &expected, 1, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return;
    va_start(list, format);
    vsnprintf(s->report->why, sizeof(s->report->why), format, list);
    va_end(list);
}

static bool is_over(const struct stress *s)
{
    return __atomic_load_n(&s->report->failed, __ATOMIC_ACQUIRE);
}

static bool must_stop(const struct stress *s)
{
    return __atomic_load_n(&s->report->stop, __ATOMIC_ACQUIRE) || is_over(s);
}

static void ring_doorbell(int event)
{
    uint64_t one = 1;

    if (write(event, &one, sizeof(one)) < 0)
        abort();
}

static void sleep_on(struct stress *s, int event, const char *who)
{
    struct pollfd pollfd = {.fd = event, .events = POLLIN};
    uint64_t count;

    if (poll(&pollfd, 1, PATIENCE_MS) == 0 && !must_stop(s))
        fail(s, "the %s sleeps and nobody wakes it", who);
    if (read(event, &count, sizeof(count)) < 0 && errno != EAGAIN)
        abort();
}

static void linger(struct random *random)
{
    uint32_t what = next_random(random, 2000);

    if (what == 0)
        usleep(2000 + next_random(random, 3000)); /* the other end runs dry, the ring is idle */
    else if (what < 30)
        usleep(next_random(random, 400));
    else if (what < 250)
        for (uint32_t i = next_random(random, 200); i > 0; i--)
            order_relax();
}

/*
 * In each second run the consumer waits for many bytes now and then, in the others the producer for
 * the whole ring to be empty. Who did both would rightly wait for ever.
 */
static bool reads_in_lumps(const struct stress *s)
{
    return s->options->seed % 2;
}

static void produce_some(struct stress *s, struct ring_producer *p, struct random *random)
{
    struct ring_span span;
    size_t n = 1 + next_random(random, next_random(random, 4) ? 300 : LAYOUT_BLOCK_BYTES);
    bool promised = false,
         all = p->view.size && !reads_in_lumps(s) && next_random(random, 16) == 0;

    if (all) {
        /* only when everything is read: if the consumer sleeps by mistake, both do */
        n = p->view.size;
    } else if (next_random(random, 8) == 0) {
        size_t promise = ring_producer_promise(p, SLOT_BYTES);
        linger(random);
        if (promise > 0) {
            n = promise;
            promised = true;
        }
    }
    for (;;) {
        int r = ring_producer_reserve(p, n, n, &span);
        if (r == 0)
            break;
        if (promised && r != -EPIPE) {
            fail(s, "%zu bytes were promised, reserve says %s", n, strerror(-r));
            return;
        }
        if (r == -EPIPE || (r == -EMSGSIZE && all) || must_stop(s))
            return;
        if (r != -EAGAIN) {
            fail(s, "reserve says %s", strerror(-r));
            return;
        }
        linger(random);
        if (ring_producer_arm(p, n))
            sleep_on(s, s->space_event, "producer");
        ring_producer_disarm(p);
    }
    linger(random);
    for (size_t i = 0; i < n; i++)
        span.data[i] = stream_byte(p->tail + i);
    if (ring_producer_commit(p, n))
        ring_doorbell(s->data_event);
}

static void *producer_main(void *argument)
{
    struct stress *s = argument;
    struct random random = {s->options->seed * 2 + 1};
    struct ring_producer p;

    ring_producer_init(&p, s->page, LAYOUT_SERVER_SENDS, &s->memory, 0, LAYOUT_BLOCK_BYTES);
    while (!must_stop(s)) {
        produce_some(s, &p, &random);
        linger(&random);
    }
    ring_producer_close(&p);
    ring_doorbell(s->data_event);
    ring_producer_deinit(&p);
    __atomic_store_n(&s->report->producer_done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *consumer_main(void *argument)
{
    struct stress *s = argument;
    struct random random = {s->options->seed * 2 + 77};
    struct ring_consumer c;
    struct ring_span span;

    ring_consumer_init(&c, s->page, LAYOUT_SERVER_SENDS, &s->memory, 0);
    while (!is_over(s)) {
        int r = ring_consumer_peek(&c, 1, &span);
        if (r == -EPIPE)
            break;
        if (r == -EAGAIN) {
            linger(&random);
            /* Who waits for more takes what is there when it is woken, be it less. */
            size_t wanted = reads_in_lumps(s) && next_random(&random, 4) == 0
                                ? 1 + next_random(&random, SLOT_BYTES)
                                : 1;
            bool sleep = ring_consumer_arm(&c, wanted);
            if (ring_consumer_owes_doorbell(&c))
                ring_doorbell(s->space_event);
            if (sleep)
                sleep_on(s, s->data_event, "consumer");
            ring_consumer_disarm(&c);
            continue;
        }
        if (r < 0) {
            fail(s, "peek says %s", strerror(-r));
            break;
        }
        linger(&random);
        size_t n = 1 + next_random(&random, (uint32_t)span.size);
        for (size_t i = 0; i < n; i++)
            if (span.data[i] != stream_byte(c.head + i)) {
                fail(s, "byte %llu is %02x and should be %02x", (unsigned long long)(c.head + i),
                     span.data[i], stream_byte(c.head + i));
                break;
            }
        if (ring_consumer_release(&c, n))
            ring_doorbell(s->space_event);
        linger(&random);
    }
    ring_consumer_close(&c);
    ring_doorbell(s->space_event);
    ring_consumer_deinit(&c);
    __atomic_store_n(&s->report->consumer_done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static struct ring_extent slot_extent(unsigned slot, uint64_t blocks)
{
    return (struct ring_extent){DATA_OFFSET + (uint64_t)slot * SLOT_BYTES,
                                blocks * LAYOUT_BLOCK_BYTES};
}

/*
 * A free slot is full of rubbish, and stays so: whoever writes there writes into somebody else's
 * memory.
 */
static void fill_slot(struct stress *s, unsigned slot)
{
    memset(s->all + slot_extent(slot, 1).offset, RUBBISH, SLOT_BYTES);
}

static void check_slot(struct stress *s, unsigned slot)
{
    const uint8_t *bytes = s->all + slot_extent(slot, 1).offset;

    for (unsigned i = 0; i < SLOT_BYTES; i++)
        if (bytes[i] != RUBBISH) {
            fail(s, "byte %u of an extent was written after it was freed", i);
            return;
        }
}

static void old_is_free(struct stress *s)
{
    /* For TSan the rubbish would be a race with a late, checked read of nothing. */
    if (!s->options->threads)
        fill_slot(s, s->old_slot);
}

static void move_ring(struct stress *s, struct random *random, struct stress_result *result)
{
    unsigned slot = next_random(random, SLOTS);

    if (slot == s->current_slot || s->geometry.old.size)
        return;
    if (!s->options->threads)
        check_slot(s, slot);
    s->old_slot = s->current_slot;
    s->current_slot = slot;
    result->generations++;
    if (ring_geometry_publish(&s->geometry,
                              slot_extent(slot, 1 + next_random(random, SLOT_BLOCKS))) == 1)
        ring_doorbell(s->space_event);
}

/*
 * The grace period of the real broker takes milliseconds. All who take part here have registered,
 * so the expedited command is one too, and a thousand times more of them fit into the test.
 */
static void grace_period(struct stress_result *result)
{
    if ((result->reclaimed + result->pinned) % 64 == 63)
        order_grace_period();
    else
        order_sleep(false);
}

static void take_back(struct stress *s, unsigned dead, struct stress_result *result)
{
    struct ring_extent old;

    if (!s->geometry.old.size)
        return;
    if (ring_geometry_followed(&s->geometry, &old)) {
        result->followed++;
        old_is_free(s);
    } else if (ring_reclaim_begin(&s->geometry, dead)) {
        grace_period(result);
        if (ring_reclaim_finish(&s->geometry, dead, &old) == RING_NOT_PINNED) {
            result->reclaimed++;
            old_is_free(s);
        } else {
            result->pinned++;
        }
    }
}

static void set_up(struct stress *s, const struct stress_options *options)
{
    int fd = memfd_create("stress", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, REGION_BYTES) < 0)
        abort();
    *s = (struct stress){.options = options};
    s->memory = (struct ring_memory){
        .descriptor = fd, .size_bytes = REGION_BYTES, .data_offset = DATA_OFFSET};
    if (ring_memory_map_page(&s->memory, LAYOUT_CHANNEL_PAGE_BYTES, &s->page) < 0)
        abort();
    s->all = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    s->report =
        mmap(NULL, sizeof(*s->report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s->data_event = eventfd(0, EFD_NONBLOCK);
    s->space_event = eventfd(0, EFD_NONBLOCK);
    s->page->channel.state = LAYOUT_CHANNEL_CONNECTED;
    s->page->channel.fence_sleep = options->fence || !order_register();
    for (unsigned slot = 1; slot < SLOTS; slot++)
        fill_slot(s, slot);
    ring_geometry_init(&s->geometry, &s->page->ring[LAYOUT_SERVER_SENDS], slot_extent(0, 1));
}

static void tear_down(struct stress *s)
{
    munmap(s->all, REGION_BYTES);
    munmap(s->report, sizeof(*s->report));
    ring_memory_unmap_page(s->page);
    close(s->memory.descriptor);
    close(s->data_event);
    close(s->space_event);
}

static pid_t spawn(struct stress *s, void *(*body)(void *))
{
    pid_t pid = fork();

    if (pid == 0) {
        s->page->channel.fence_sleep |= !order_register();
        body(s);
        _exit(0);
    }
    return pid;
}

static void bury(struct stress *s, pid_t pid, uint32_t gone_bit)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    __atomic_fetch_or(&s->page->channel.gone, gone_bit, __ATOMIC_RELEASE);
    ring_doorbell(s->data_event);
    ring_doorbell(s->space_event);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A run in which little happened shows little: on a busy machine it takes longer. */
static bool is_enough(const struct stress *s, const struct stress_result *result)
{
    return order_load_acquire(&s->geometry.shared->consumer.head) > STRESS_BYTES_MIN &&
           result->generations > STRESS_GENERATIONS_MIN && result->followed > STRESS_FOLLOWED_MIN;
}

static void broker_work(struct stress *s, double seconds, unsigned dead,
                        struct stress_result *result)
{
    struct random random = {s->options->seed * 2 + 99};
    double begin_s = now_s(), spent_s;

    do {
        move_ring(s, &random, result);
        usleep(next_random(&random, 8) ? next_random(&random, 60) : next_random(&random, 1500));
        take_back(s, dead, result);
        spent_s = now_s() - begin_s;
    } while (!is_over(s) && (spent_s < seconds || (!is_enough(s, result) && spent_s < LONGEST_S)));
}

/* Ends that are not asked to die finish by themselves, and in time. */
static void wait_done(struct stress *s, const int *done, const char *who)
{
    for (int ms = 0; !__atomic_load_n(done, __ATOMIC_ACQUIRE) && !is_over(s); ms++) {
        if (ms > 2 * PATIENCE_MS)
            fail(s, "the %s does not finish", who);
        usleep(1000);
    }
}

static void check_end(struct stress *s)
{
    const struct layout_ring *ring = s->geometry.shared;

    if (!s->options->kill_consumer && ring->consumer.head != ring->producer.tail)
        fail(s, "%llu bytes were published, %llu arrived", (unsigned long long)ring->producer.tail,
             (unsigned long long)ring->consumer.head);
    /*
     * Whatever happened: when an end is dead, or all is read, the broker gets the old extent back.
     */
    unsigned dead = (s->options->kill_producer ? RING_PRODUCER_DEAD : 0) |
                    (s->options->kill_consumer ? RING_CONSUMER_DEAD : 0);
    struct stress_result ignored = {0};
    for (int i = 0; i < 3 && s->geometry.old.size; i++)
        take_back(s, dead, &ignored);
    if (s->geometry.old.size)
        fail(s, "the old extent cannot be taken back in the end");
}

static void run_processes(struct stress *s, struct stress_result *result)
{
    const struct stress_options *o = s->options;
    pid_t producer = spawn(s, producer_main), consumer = spawn(s, consumer_main);

    broker_work(s, o->seconds, 0, result);
    if (o->kill_producer)
        bury(s, producer, LAYOUT_GONE_SERVER);
    if (o->kill_consumer) {
        bury(s, consumer, LAYOUT_GONE_CLIENT);
        broker_work(s, 0.05, RING_CONSUMER_DEAD, result);
    }
    __atomic_store_n(&s->report->stop, 1, __ATOMIC_RELEASE);
    ring_doorbell(s->space_event);
    if (!o->kill_producer)
        wait_done(s, &s->report->producer_done, "producer");
    if (!o->kill_consumer)
        wait_done(s, &s->report->consumer_done, "consumer");
    if (is_over(s)) {
        if (!o->kill_producer)
            kill(producer, SIGKILL);
        if (!o->kill_consumer)
            kill(consumer, SIGKILL);
    }
    if (!o->kill_producer)
        waitpid(producer, NULL, 0);
    if (!o->kill_consumer)
        waitpid(consumer, NULL, 0);
}

static void run_threads(struct stress *s, struct stress_result *result)
{
    pthread_t producer, consumer;

    pthread_create(&producer, NULL, producer_main, s);
    pthread_create(&consumer, NULL, consumer_main, s);
    broker_work(s, s->options->seconds, 0, result);
    __atomic_store_n(&s->report->stop, 1, __ATOMIC_RELEASE);
    ring_doorbell(s->space_event);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
}

void stress_run(const struct stress_options *options, struct stress_result *result)
{
    struct stress s;

    *result = (struct stress_result){0};
    set_up(&s, options);
    if (options->threads)
        run_threads(&s, result);
    else
        run_processes(&s, result);
    if (!is_over(&s))
        check_end(&s);
    result->bytes = s.page->ring[LAYOUT_SERVER_SENDS].consumer.head;
    result->failed = s.report->failed;
    memcpy(result->why, s.report->why, sizeof(result->why));
    tear_down(&s);
}
