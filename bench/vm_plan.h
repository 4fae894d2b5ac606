/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/vm_plan.h - who sends what to whom in `vchan-bench vm`.
 *
 * The host is domain 0, guests are domains 1 to N. There is a channel between the host and each
 * guest, and one from each guest to the next (with one guest: none; two guests have two). Both ends
 * of every channel send. Receivers come by every VISIT_US and take all there is, so what a sender
 * can hand over is bounded by its ring: memory is what is short.
 *
 *   steady  each sends at the same moderate rate: there is nothing to gain by moving memory
 *   bursty  each sends ten times as much for half a second every four, one after the other
 *   mixed   a third does this, a third that, a third sends next to nothing
 */
#ifndef VCHAN_BENCH_VM_PLAN_H
#define VCHAN_BENCH_VM_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define VM_GUESTS_MAX 16u
#define VM_PLAN_FLOWS_MAX (4u * VM_GUESTS_MAX)

/* One direction of one channel. */
struct vm_flow {
    unsigned from, to; /* domains */
    unsigned port;
    bool from_serves;
    uint32_t chunk_bytes, on_us, off_us, kibs; /* as a worker's "send" */
    uint32_t visit_us;
};

struct vm_plan {
    unsigned guests;
    unsigned count;
    struct vm_flow flows[VM_PLAN_FLOWS_MAX];
};

/* False: there is no such profile. */
bool vm_plan_make(struct vm_plan *plan, unsigned guests, const char *profile);

#endif
