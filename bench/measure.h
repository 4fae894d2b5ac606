/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/measure.h - clocks, CPUs, and what is computed from many measurements.
 *
 * Ticks are the CPU's own counter (rdtsc on x86: about 10 ns to read, no system call), nanoseconds
 * CLOCK_MONOTONIC's.
 */
#ifndef VCHAN_BENCH_MEASURE_H
#define VCHAN_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

static inline uint64_t measure_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t measure_ticks(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#else
    return measure_now_ns();
#endif
}

/* Found out at the first call (20 ms), in this process and those forked from it later. */
double measure_ticks_per_ns(void);
uint64_t measure_ticks_of_ns(double ns);

/*
 * Binds this thread to a CPU; -1: to those that it was allowed at the first call, which must come
 * before anything is bound. 0 or -errno.
 */
int measure_pin(int cpu);

/* CPU time that a process has used so far, all threads; 0 when it cannot be told. */
uint64_t measure_cpu_ns(pid_t pid);

/*
 * How long this process's main thread was ready and waited for a CPU that somebody else had, so
 * far; 0 when it cannot be told.
 */
uint64_t measure_waited_ns(void);

/* Sort the values in place. fraction 0.5 is the median. NAN when there are none. */
double measure_quantile(double *values, size_t count, double fraction);
double measure_median(double *values, size_t count);

/*
 * Counts of ticks in buckets that are at most 1/64 wide of their value. Adding is a few
 * instructions, so that it can stand beside what is measured.
 */
#define HISTOGRAM_SUB_BITS 6u
#define HISTOGRAM_BUCKETS ((64u - HISTOGRAM_SUB_BITS + 1u) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t most;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t ticks)
{
    if (ticks < 1u << HISTOGRAM_SUB_BITS)
        return (unsigned)ticks;
    unsigned shift = 63u - HISTOGRAM_SUB_BITS - (unsigned)__builtin_clzll(ticks);
    return ((shift + 1u) << HISTOGRAM_SUB_BITS) + (unsigned)(ticks >> shift) -
           (1u << HISTOGRAM_SUB_BITS);
}

static inline void histogram_add(struct histogram *histogram, uint64_t ticks)
{
    histogram->buckets[histogram_bucket(ticks)]++;
    histogram->count++;
    if (ticks > histogram->most)
        histogram->most = ticks;
}

void histogram_merge(struct histogram *into, const struct histogram *from);

/*
 * The upper edge of the bucket that the quantile lies in, and the largest, in nanoseconds. NAN when
 * it is empty.
 */
double histogram_quantile_ns(const struct histogram *histogram, double fraction);
double histogram_most_ns(const struct histogram *histogram);

#endif
