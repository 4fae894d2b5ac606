/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/measure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CALIBRATION_NS 20000000u

double measure_ticks_per_ns(void)
{
    static double ticks_per_ns;

    if (ticks_per_ns == 0) {
        uint64_t start_ns = measure_now_ns(), start = measure_ticks(), now_ns;

        do
            now_ns = measure_now_ns();
        while (now_ns - start_ns < CALIBRATION_NS);
        ticks_per_ns = (double)(measure_ticks() - start) / (double)(now_ns - start_ns);
    }
    return ticks_per_ns;
}

uint64_t measure_ticks_of_ns(double ns)
{
    return (uint64_t)(ns * measure_ticks_per_ns());
}

int measure_pin(int cpu)
{
    static cpu_set_t allowed;
    static bool known;
    cpu_set_t set;

    if (!known && sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return -errno;
    known = true;
    set = allowed;
    if (cpu >= 0) {
        CPU_ZERO(&set);
        CPU_SET((size_t)cpu, &set);
    }
    return sched_setaffinity(0, sizeof(set), &set) < 0 ? -errno : 0;
}

uint64_t measure_cpu_ns(pid_t pid)
{
    struct timespec used;
    clockid_t clock;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

uint64_t measure_waited_ns(void)
{
    char text[128];
    uint64_t ran_ns, waited_ns;
    int fd = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    return sscanf(text, "%" SCNu64 " %" SCNu64, &ran_ns, &waited_ns) == 2 ? waited_ns : 0;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double measure_quantile(double *values, size_t count, double fraction)
{
    if (count == 0)
        return (double)NAN;
    qsort(values, count, sizeof(*values), compare);
    double place = fraction * (double)(count - 1);
    size_t below = (size_t)place;
    size_t above = below + 1 < count ? below + 1 : below;
    return values[below] + (place - (double)below) * (values[above] - values[below]);
}

double measure_median(double *values, size_t count)
{
    return measure_quantile(values, count, 0.5);
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    if (from->most > into->most)
        into->most = from->most;
}

static double bucket_end(unsigned bucket)
{
    unsigned shift = bucket >> HISTOGRAM_SUB_BITS;
    uint64_t low = bucket & ((1u << HISTOGRAM_SUB_BITS) - 1u);

    if (shift == 0)
        return (double)(low + 1);
    return ldexp((double)(low + 1 + (1u << HISTOGRAM_SUB_BITS)), (int)shift - 1);
}

double histogram_quantile_ns(const struct histogram *histogram, double fraction)
{
    double wanted = fraction * (double)histogram->count;
    uint64_t seen = 0;

    if (histogram->count == 0)
        return (double)NAN;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if ((double)seen >= wanted && seen > 0) {
            double end = bucket_end(i);
            return (end < (double)histogram->most ? end : (double)histogram->most) /
                   measure_ticks_per_ns();
        }
    }
    return histogram_most_ns(histogram);
}

double histogram_most_ns(const struct histogram *histogram)
{
    return histogram->count ? (double)histogram->most / measure_ticks_per_ns() : (double)NAN;
}
