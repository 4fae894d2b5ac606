/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/mode_open.c - what opening costs while many channels are open, and what these cost while
 * nothing happens.
 *
 * A child holds the server ends (domain 1), this process the client ends (domain 0). Opening is
 * timed in batches: the child offers a batch of ports, this process connects to one after the
 * other, each timed.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/measure.h"
#include "bench/mode.h"
#include "bench/private_broker.h"
#include "client/vchan.h"

#define CHANNELS 1000u
#define BATCH 100u
#define SECONDS 10.0
#define PORT 10000
#define CLIENT_DOMAIN 0
#define SERVER_DOMAIN 1

enum order { ORDER_OPEN, ORDER_CLOSE_LAST, ORDER_GET_READY, ORDER_IDLE };

struct request {
    enum order order;
    unsigned count; /* of channels; milliseconds for ORDER_IDLE */
};

struct ends {
    struct vchan **handles;
    struct pollfd *polls;
    unsigned count, room;
    struct vchan_options options;
};

static void ends_init(struct ends *ends, unsigned room, int domain, const char *socket_path)
{
    *ends = (struct ends){
        .handles = calloc(room, sizeof(*ends->handles)),
        .room = room,
        .options = {.local_domain = domain, .socket_path = socket_path},
    };
    if (!ends->handles)
        children_fail("out of memory");
}

/* Ports follow from how many are open. */
static void open_one(struct ends *ends, int peer, unsigned flags)
{
    int r = vchan_open(peer, PORT + (int)ends->count, flags, &ends->options,
                       &ends->handles[ends->count]);

    if (r < 0)
        children_fail("open %u: %s: %s", ends->count, strerror(-r), vchan_explain());
    ends->count++;
}

static void close_last(struct ends *ends, unsigned count)
{
    while (count-- > 0)
        vchan_close(ends->handles[--ends->count]);
}

/*
 * As a program with many channels waits: for data on any of them. In two steps, as getting ready is
 * not idling.
 */
static void get_ready(struct ends *ends)
{
    ends->polls = calloc(ends->count, sizeof(*ends->polls));
    if (!ends->polls)
        children_fail("out of memory");
    for (unsigned i = 0; i < ends->count; i++) {
        if (vchan_poll_arm(ends->handles[i], VCHAN_CAN_READ) != 0)
            children_fail("channel %u has data, or an end, that nobody sent", i);
        ends->polls[i] = (struct pollfd){.fd = vchan_poll_fd(ends->handles[i]), .events = POLLIN};
    }
}

static void idle(struct ends *ends, unsigned ms)
{
    uint64_t end_ns = measure_now_ns() + (uint64_t)ms * 1000000u, now_ns;

    while ((now_ns = measure_now_ns()) < end_ns)
        if (poll(ends->polls, ends->count, (int)((end_ns - now_ns) / 1000000u) + 1) != 0)
            children_fail("an idle channel became readable");
    free(ends->polls);
}

static _Noreturn void serve(int orders, unsigned room, const char *socket_path)
{
    struct request request;
    struct ends ends;

    ends_init(&ends, room, SERVER_DOMAIN, socket_path);
    while (read(orders, &request, sizeof(request)) == (ssize_t)sizeof(request)) {
        if (request.order == ORDER_OPEN)
            for (unsigned i = 0; i < request.count; i++)
                open_one(&ends, CLIENT_DOMAIN, VCHAN_OPEN_SERVER);
        else if (request.order == ORDER_CLOSE_LAST)
            close_last(&ends, request.count);
        else if (request.order == ORDER_GET_READY)
            get_ready(&ends);
        else
            idle(&ends, request.count);
        if (write(orders, "", 1) != 1)
            break;
    }
    _exit(0);
}

static void tell(int orders, enum order order, unsigned count)
{
    struct request request = {order, count};

    if (write(orders, &request, sizeof(request)) != (ssize_t)sizeof(request))
        children_fail("the server ends do not listen: %s", strerror(errno));
}

static void wait_done(int orders)
{
    char done;

    if (read(orders, &done, 1) != 1)
        children_fail("the server ends do not answer: %s", strerror(errno));
}

struct opening {
    struct histogram clients, closes;
    uint64_t opening_ns, serving_ns;
};

static void measure_batch(struct ends *ends, int orders, struct opening *opening)
{
    uint64_t start_ns = measure_now_ns();

    tell(orders, ORDER_OPEN, BATCH);
    wait_done(orders);
    uint64_t served_ns = measure_now_ns();
    for (unsigned i = 0; i < BATCH; i++) {
        uint64_t start = measure_ticks();
        open_one(ends, SERVER_DOMAIN, VCHAN_OPEN_CLIENT);
        histogram_add(&opening->clients, measure_ticks() - start);
    }
    opening->opening_ns += measure_now_ns() - served_ns;
    opening->serving_ns += served_ns - start_ns;
    for (unsigned i = 0; i < BATCH; i++) {
        uint64_t start = measure_ticks();
        close_last(ends, 1);
        histogram_add(&opening->closes, measure_ticks() - start);
    }
    tell(orders, ORDER_CLOSE_LAST, BATCH);
    wait_done(orders);
}

static void report_opening(struct report *report, const struct opening *opening)
{
    double opens = (double)opening->clients.count;

    report_number(report, "opens", opens, 0, "clients connected");
    report_number(report, "opens_per_s", opens / (double)opening->opening_ns * 1e9, 0,
                  "client ends");
    report_number(report, "serves_per_s", opens / (double)opening->serving_ns * 1e9, 0,
                  "server ends");
    report_number(report, "open_p50_us", histogram_quantile_ns(&opening->clients, 0.5) / 1e3, 1,
                  "us");
    report_number(report, "open_p99_us", histogram_quantile_ns(&opening->clients, 0.99) / 1e3, 1,
                  "us");
    report_number(report, "open_max_us", histogram_most_ns(&opening->clients) / 1e3, 1, "us");
    report_number(report, "close_p50_us", histogram_quantile_ns(&opening->closes, 0.5) / 1e3, 1,
                  "us");
    report_number(report, "close_p99_us", histogram_quantile_ns(&opening->closes, 0.99) / 1e3, 1,
                  "us");
}

static void measure_idle(struct report *report, struct ends *ends, int orders, pid_t broker,
                         pid_t server, double seconds)
{
    const pid_t pids[] = {broker, server, getpid()};
    static const char *const keys[] = {"idle_broker_cpu_percent", "idle_servers_cpu_percent",
                                       "idle_clients_cpu_percent"};
    uint64_t before_ns[3];
    double total = 0;
    unsigned ms = (unsigned)(seconds * 1e3);

    tell(orders, ORDER_GET_READY, 0);
    get_ready(ends);
    wait_done(orders);
    usleep(500000); /* what the last closing started is over */
    for (int i = 0; i < 3; i++)
        before_ns[i] = measure_cpu_ns(pids[i]);
    uint64_t start_ns = measure_now_ns();
    tell(orders, ORDER_IDLE, ms);
    idle(ends, ms);
    wait_done(orders);
    double took_ns = (double)(measure_now_ns() - start_ns);
    report_number(report, "idle_seconds", took_ns / 1e9, 1, "s");
    for (int i = 0; i < 3; i++) {
        double percent = 100.0 * (double)(measure_cpu_ns(pids[i]) - before_ns[i]) / took_ns;
        report_number(report, keys[i], percent, 3, "% of a CPU");
        total += percent;
    }
    report_number(report, "idle_cpu_percent", total, 3, "% of a CPU, all of it");
}

int mode_open(struct report *report, const struct mode_options *options)
{
    double seconds = options->seconds > 0 ? options->seconds : SECONDS;
    unsigned channels = options->channels ? options->channels : CHANNELS;
    struct opening *opening = calloc(1, sizeof(*opening));
    struct rlimit files;
    struct private_broker broker;
    struct ends ends;
    int orders[2];

    /* The broker, our child, needs many as well. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (!opening || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, orders) < 0)
        children_fail("cannot begin: %s", strerror(errno));
    private_broker_start(&broker, options->socket_path);
    pid_t server = children_fork("the process with the server ends", -1);
    if (server == 0)
        serve(orders[1], channels + BATCH, broker.socket_path);
    ends_init(&ends, channels + BATCH, CLIENT_DOMAIN, broker.socket_path);
    tell(orders[0], ORDER_OPEN, channels);
    wait_done(orders[0]);
    for (unsigned i = 0; i < channels; i++)
        open_one(&ends, SERVER_DOMAIN, VCHAN_OPEN_CLIENT);
    report_number(report, "channels", channels, 0, "open meanwhile");
    uint64_t end_ns = measure_now_ns() + (uint64_t)(seconds / 2 * 1e9);
    do
        measure_batch(&ends, orders[0], opening);
    while (measure_now_ns() < end_ns);
    report_opening(report, opening);
    measure_idle(report, &ends, orders[0], private_broker_pid(&broker), server, seconds / 2);
    close_last(&ends, ends.count);
    children_end(server);
    private_broker_stop(&broker);
    close(orders[0]);
    close(orders[1]);
    free(ends.handles);
    free(opening);
    return 0;
}
