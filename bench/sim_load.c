/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/sim_load.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define WRITE_RATE 2e9 /* bytes a second: a copy from the cache */
#define READ_RATE 1e9
#define PAUSE_NS 2e6
#define PAUSE_GAP_NS 100e6

/* Groups of equals. */
enum { CONSTANT, UNIFORM, BURSTY, ALONE };

static const struct sim_demand reader = {
    .write_rate = WRITE_RATE,
    .read_rate = READ_RATE,
    .pause_ns = PAUSE_NS,
    .pause_gap_ns = PAUSE_GAP_NS,
};

static void constant(struct sim_demand *demand, size_t i, size_t of, double share)
{
    /* What comes in 8 ms is from a 256th of a share to half of one. */
    double held = share / 2 / pow(2, 7 * (double)i / (double)of);

    *demand = reader;
    demand->steady_rate = held / (4 * PAUSE_NS) * 1e9;
    demand->read_rate = fmax(demand->read_rate, 4 * demand->steady_rate);
    demand->write_rate = fmax(demand->write_rate, 4 * demand->steady_rate);
    demand->pause_ns = 0;
    demand->equals = ALONE + (unsigned)i;
}

/* How much faster a reader drains than bytes come, on average. */
#define READ_FACTOR 3

static void uniform(struct sim_demand *demand, size_t i, size_t of, double share)
{
    (void)i;
    (void)of;
    *demand = reader;
    demand->burst_bytes = share / 2;
    demand->gap_ns = 100e6;
    demand->random = true;
    demand->equals = UNIFORM;
    demand->read_rate = READ_FACTOR * demand->burst_bytes / demand->gap_ns * 1e9;
}

static void bursty(struct sim_demand *demand, size_t i, size_t of, double share)
{
    (void)i;
    (void)of;
    *demand = reader;
    demand->burst_bytes = share * 4;
    demand->gap_ns = 10e9;
    demand->random = true;
    demand->equals = BURSTY;
    /* A burst takes half a second to drain: a twentieth of the gap. */
    demand->read_rate = share * 8;
}

static void skewed(struct sim_demand *demand, size_t i, size_t of, double share)
{
    double harmonic = log((double)of) + 0.5772 + 0.5 / (double)of;

    *demand = reader;
    demand->burst_bytes = share / 4 * (double)of / harmonic / (double)(i + 1);
    demand->gap_ns = 100e6;
    demand->random = true;
    demand->read_rate = READ_FACTOR * demand->burst_bytes / demand->gap_ns * 1e9;
    demand->write_rate = fmax(demand->write_rate, demand->burst_bytes * 40);
    demand->equals = ALONE + (unsigned)i;
}

static void mixed(struct sim_demand *demand, size_t i, size_t of, double share)
{
    size_t quarter = (of + 3) / 4;

    switch (i % 4) {
    case 0:
        constant(demand, i / 4, quarter, share);
        break;
    case 1:
        bursty(demand, i / 4, quarter, share);
        break;
    case 2:
        skewed(demand, i / 4, quarter, share);
        break;
    default:
        *demand = reader;
        demand->equals = CONSTANT;
    }
    if (demand->equals >= ALONE)
        demand->equals = ALONE + (unsigned)i;
}

static const struct {
    const char *name;
    void (*make)(struct sim_demand *demand, size_t i, size_t of, double share);
} loads[] = {
    {"constant", constant}, {"uniform", uniform}, {"bursty", bursty},
    {"skewed", skewed},     {"mixed", mixed},
};
#define LOADS (sizeof(loads) / sizeof(loads[0]))

bool sim_load_known(const char *name)
{
    struct sim_demand demand;

    return sim_load_make(name, 4096, 1, &demand) == 0;
}

int sim_load_make(const char *name, uint64_t region_bytes, size_t ring_count,
                  struct sim_demand *demands)
{
    double share = (double)region_bytes / (double)ring_count;

    for (size_t load = 0; load < LOADS; load++) {
        if (strcmp(loads[load].name, name) != 0)
            continue;
        for (size_t i = 0; i < ring_count; i++)
            loads[load].make(&demands[i], i, ring_count, share);
        return 0;
    }
    return -EINVAL;
}
