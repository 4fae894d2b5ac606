/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/ucx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/children.h"
#include "bench/subject.h"

#define PROGRAM "ucx_perftest"
#define PORT_FIRST 23337
#define PORTS 1000
#define LISTEN_TRIES 100
#define ITERATIONS_MIN 200.0
#define ITERATIONS_MAX 3e6

bool ucx_is_installed(void)
{
    char directories[4096], path[4352], *rest = directories, *directory;

    snprintf(directories, sizeof(directories), "%s", getenv("PATH") ? getenv("PATH") : "");
    while ((directory = strsep(&rest, ":"))) {
        snprintf(path, sizeof(path), "%s/" PROGRAM, directory);
        if (access(path, X_OK) == 0)
            return true;
    }
    return false;
}

/* Is somebody listening on this port? Without disturbing him. */
static bool is_listened_to(int port)
{
    FILE *table = fopen("/proc/net/tcp", "re");
    char line[256];
    bool found = false;

    while (table && !found && fgets(line, sizeof(line), table)) {
        unsigned local, state;
        found = sscanf(line, "%*d: %*x:%x %*x:%*x %x", &local, &state) == 2 && (int)local == port &&
                state == 0x0a;
    }
    if (table)
        fclose(table);
    return found;
}

static int free_port(void)
{
    int port = PORT_FIRST + getpid() % PORTS;

    while (is_listened_to(port))
        port++;
    return port;
}

/*
 * How many it needs for that long, roughly: the bandwidth and latency that the transport has about
 * everywhere.
 */
static double iterations_for(bool round_trip, size_t bytes, double ms)
{
    double ns = round_trip ? 300.0 + (double)bytes / 5.0 : 80.0 + (double)bytes / 7.0;
    double iterations = ms * 1e6 / ns;

    return iterations < ITERATIONS_MIN ? ITERATIONS_MIN : fmin(iterations, ITERATIONS_MAX);
}

/*
 * The line of numbers, comma-separated: iterations, percentile, average and overall latency (us),
 * average and overall bandwidth, average and overall message rate (a second).
 */
static bool parse(const char *line, double *latency_us, double *messages_per_s)
{
    return sscanf(line, "%*f,%*f,%*f,%lf,%*f,%*f,%*f,%lf", latency_us, messages_per_s) == 2;
}

static double read_result(int output, bool round_trip, size_t bytes)
{
    FILE *stream = fdopen(output, "r");
    double value = (double)NAN, latency_us, messages_per_s;
    char line[1024];

    if (!stream)
        children_fail("out of memory");
    while (fgets(line, sizeof(line), stream))
        if (parse(line, &latency_us, &messages_per_s))
            value = round_trip ? 2e3 * latency_us /* it counts one way */
                               : messages_per_s * (double)bytes;
    fclose(stream);
    return value;
}

static double run(const char *test, bool round_trip, size_t bytes, double ms, const int cpus[2])
{
    double iterations = iterations_for(round_trip, bytes, ms);
    char port[16], size[32], count[32], warm_up[32], cpu[2][16];
    int number = free_port(), output;

    setenv("UCX_TLS", "posix,self", 1);
    setenv("UCX_NET_DEVICES", "lo", 1);
    setenv("UCX_LOG_LEVEL", "error", 1);
    snprintf(port, sizeof(port), "%d", number);
    snprintf(size, sizeof(size), "%zu", bytes);
    snprintf(count, sizeof(count), "%.0f", iterations);
    snprintf(warm_up, sizeof(warm_up), "%.0f", iterations / 10);
    for (int i = 0; i < 2; i++)
        snprintf(cpu[i], sizeof(cpu[i]), "%d", cpus[i] < 0 ? i : cpus[i]);
    const char *const server[] = {PROGRAM, "-p", port, "-c", cpu[1], NULL};
    const char *const client[] = {PROGRAM, "127.0.0.1", "-p", port, "-c", cpu[0],
                                  "-t",    test,        "-s", size, "-n", count,
                                  "-w",    warm_up,     "-f", "-v", NULL};
    pid_t serving = children_spawn("ucx_perftest's server", cpus[1], server, NULL);
    children_may_end(serving);
    for (int i = 0; i < LISTEN_TRIES && !is_listened_to(number); i++)
        usleep(5000);
    pid_t asking = children_spawn("ucx_perftest", cpus[0], client, &output);
    children_may_end(asking);
    double value = read_result(output, round_trip, bytes);
    if (children_wait(asking) != 0) {
        children_end(serving);
        return (double)NAN;
    }
    children_wait(serving);
    return value;
}

static double tag_external(struct subject *subject, bool round_trip, size_t bytes, double ms,
                           const int cpus[2])
{
    (void)subject;
    return run(round_trip ? "tag_lat" : "tag_bw", round_trip, bytes, ms, cpus);
}

static double stream_external(struct subject *subject, bool round_trip, size_t bytes, double ms,
                              const int cpus[2])
{
    (void)subject;
    return run(round_trip ? "stream_lat" : "stream_bw", round_trip, bytes, ms, cpus);
}

const struct subject_calls subject_ucx_tag = {.external = tag_external};
const struct subject_calls subject_ucx_stream = {.external = stream_external};
