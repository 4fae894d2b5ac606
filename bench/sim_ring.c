/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/sim_ring.h"

#include <math.h>

#define SLICE_S (SIM_SLICE_NS / 1e9)
#define NS_PER_S 1e9
/* Less than a byte is none. */
#define NOTHING 0.5

static double min_double(double a, double b)
{
    return a < b ? a : b;
}

static double max_double(double a, double b)
{
    return a > b ? a : b;
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t draw(struct sim_ring *ring)
{
    uint64_t z = ring->random += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* More than 0, at most 1. */
static double draw_fraction(struct sim_ring *ring)
{
    return (double)((draw(ring) >> 11) + 1) / 9007199254740992.0;
}

static double draw_exponential(struct sim_ring *ring, double mean)
{
    return -log(draw_fraction(ring)) * mean;
}

static uint64_t draw_gap_ns(struct sim_ring *ring)
{
    const struct sim_demand *demand = ring->demand;

    return (uint64_t)(demand->random ? draw_exponential(ring, demand->gap_ns) : demand->gap_ns);
}

static void next_pause(struct sim_ring *ring, uint64_t after_ns)
{
    ring->pause_begins_ns = after_ns + (uint64_t)draw_exponential(ring, ring->demand->pause_gap_ns);
    ring->pause_ends_ns =
        ring->pause_begins_ns + (uint64_t)draw_exponential(ring, ring->demand->pause_ns);
}

void sim_ring_init(struct sim_ring *ring, const struct sim_demand *demand, uint64_t seed,
                   uint64_t number)
{
    *ring = (struct sim_ring){
        .demand = demand,
        .random = seed * 0x2545f4914f6cdd1d + number,
        .burst_ns = SIM_NEVER,
        .pause_begins_ns = SIM_NEVER,
        .pause_ends_ns = SIM_NEVER,
        .asleep = true,
    };
    draw(ring);
    if (demand->burst_bytes > 0)
        ring->burst_ns = (uint64_t)(draw_fraction(ring) * demand->gap_ns);
    if (demand->pause_ns > 0)
        next_pause(ring, 0);
}

static const struct sim_step *current_step(struct sim_ring *ring, uint64_t now_ns)
{
    const struct sim_demand *demand = ring->demand;

    while (ring->step + 1 < demand->step_count && demand->steps[ring->step + 1].at_ns < now_ns)
        ring->step++;
    return demand->step_count && demand->steps[ring->step].at_ns < now_ns
               ? &demand->steps[ring->step]
               : NULL;
}

/* The bytes that have come to the producer in this slice. */
static void arrive(struct sim_ring *ring, uint64_t now_ns)
{
    const struct sim_demand *demand = ring->demand;
    double bytes = demand->steady_rate * SLICE_S;

    if (demand->steps) {
        const struct sim_step *step = current_step(ring, now_ns);
        bytes = step ? step->offered * SLICE_S : 0;
    }
    while (ring->burst_ns < now_ns) {
        bytes += demand->random ? draw_exponential(ring, demand->burst_bytes) : demand->burst_bytes;
        uint64_t gap_ns = draw_gap_ns(ring);
        ring->burst_ns += gap_ns > SIM_SLICE_NS ? gap_ns : SIM_SLICE_NS;
    }
    ring->offered_bytes += bytes;
    ring->backlog_bytes += bytes;
}

/* For how much of this slice the consumer reads, if there is something. */
static double reading_ns(struct sim_ring *ring, uint64_t now_ns)
{
    uint64_t begin_ns = now_ns - SIM_SLICE_NS;
    double reading = SIM_SLICE_NS;

    while (ring->pause_ends_ns <= begin_ns)
        next_pause(ring, ring->pause_ends_ns);
    for (;;) {
        uint64_t from = ring->pause_begins_ns > begin_ns ? ring->pause_begins_ns : begin_ns;
        uint64_t to = ring->pause_ends_ns < now_ns ? ring->pause_ends_ns : now_ns;
        if (from >= now_ns)
            break;
        reading -= (double)(to - from);
        if (ring->pause_ends_ns >= now_ns)
            break;
        next_pause(ring, ring->pause_ends_ns);
    }
    if (ring->asleep)
        reading -= SIM_WAKE_NS;
    return max_double(reading, 0);
}

/* What its consumer can drain in this slice. */
static double drainable(struct sim_ring *ring, uint64_t now_ns)
{
    double reading = reading_ns(ring, now_ns);
    double rate = ring->demand->read_rate;

    if (ring->demand->steps) {
        const struct sim_step *step = current_step(ring, now_ns);
        rate = step ? step->drained : 0;
    }
    return min_double(rate * reading / NS_PER_S,
                      (double)ring->size_bytes * reading / SIM_HANDOVER_NS);
}

/* The most held at once: while the producer writes faster than the consumer reads. */
static void note_high(struct sim_ring *ring, double written, double drained)
{
    double writing_s = written / ring->demand->write_rate;
    double meanwhile = min_double(drained * writing_s / SLICE_S, written);
    double high = ring->held_bytes + written - meanwhile + min_double(written, SIM_MESSAGE_BYTES);

    high = min_double(high, (double)ring->size_bytes);
    ring->high_bytes = max_double(ring->high_bytes, max_double(high, ring->held_bytes));
}

bool sim_ring_slice(struct sim_ring *ring, uint64_t now_ns, bool late)
{
    arrive(ring, now_ns);
    double drained = drainable(ring, now_ns);
    double space = max_double((double)ring->size_bytes - ring->held_bytes, 0);
    double wanted = min_double(ring->backlog_bytes, ring->demand->write_rate * SLICE_S);
    double written = min_double(wanted, space + drained);
    double received = min_double(drained, ring->held_bytes + written);
    bool was_stalled = ring->stalled;

    note_high(ring, written, drained);
    if (wanted - written > NOTHING) {
        double stall_ns = SIM_SLICE_NS * (1 - written / wanted);
        ring->stall_ns += stall_ns;
        ring->late_stall_ns += late ? stall_ns : 0;
    }
    ring->stalled = wanted - written > NOTHING;
    ring->stalls += ring->stalled && !was_stalled;
    ring->backlog_bytes -= written;
    ring->sent_bytes += written;
    ring->received_bytes += received;
    ring->drain_bytes = max_double(ring->drain_bytes - received, 0);
    ring->held_bytes += written - received;
    if (ring->held_bytes < NOTHING) {
        ring->held_bytes = 0;
        ring->consumer_sleeps += written > 0;
    }
    ring->asleep = ring->held_bytes == 0;
    return ring->stalled && !was_stalled;
}

uint64_t sim_ring_due_ns(const struct sim_ring *ring, uint64_t now_ns)
{
    if (ring->backlog_bytes > 0 || ring->held_bytes > 0 || ring->demand->steady_rate > 0 ||
        ring->demand->steps)
        return now_ns;
    return ring->burst_ns;
}

void sim_ring_sample(const struct sim_ring *ring, struct ring_sample *sample)
{
    *sample = (struct ring_sample){
        .sent_bytes = (uint64_t)ring->sent_bytes,
        .received_bytes = (uint64_t)ring->received_bytes,
        .high_water_bytes = (uint64_t)ring->high_bytes,
        .held_bytes = (uint64_t)ring->held_bytes,
        .sent_operations = (uint64_t)ring->sent_bytes / SIM_MESSAGE_BYTES,
        .received_operations = (uint64_t)ring->received_bytes / SIM_MESSAGE_BYTES,
        .stalls = ring->stalls,
        .stall_ns = (uint64_t)ring->stall_ns,
        .producer_sleeps = ring->stalls,
        .consumer_sleeps = ring->consumer_sleeps,
        .stalled = ring->stalled,
        .consumer_armed = ring->asleep,
        .producer_armed = ring->stalled,
    };
}
