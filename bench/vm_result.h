/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench/vm_result.h - what the workers of `vchan-bench vm` measured, slice by slice, and how it is
 * told: a table by policy, one by flow, a CSV with everything, plots by gnuplot.
 */
#ifndef VCHAN_BENCH_VM_RESULT_H
#define VCHAN_BENCH_VM_RESULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/measure.h"
#include "bench/report.h"
#include "bench/vm_plan.h"

#define VM_POLICIES_MAX 4u

struct vm_flow_figures {
    uint64_t sent_bytes, received_bytes;
    uint64_t stalls, stall_ns;
    uint64_t generations; /* times its ring was resized or moved */
};

struct vm_slice {
    unsigned policy;
    double seconds;
    struct vm_flow_figures flows[VM_PLAN_FLOWS_MAX];
    struct histogram times; /* of the writes of whole chunks, all senders, ns */
};

struct vm_result {
    struct vm_slice **slices;
    size_t count;
};

/* A new, empty slice, which the result owns. NULL: out of memory. */
struct vm_slice *vm_result_add(struct vm_result *result, unsigned policy, double seconds);
void vm_result_deinit(struct vm_result *result);

/* A line that a worker answered (bench/vm_worker.h). False: it makes no sense. */
bool vm_slice_take(struct vm_slice *slice, const char *line, unsigned flows);

void vm_result_report(const struct vm_result *result, const struct vm_plan *plan,
                      char *const *policies, unsigned policy_count, struct report *report);

/* Makes the directory unless it is there. 0, or -1 with a message: files cannot be made in it. */
int vm_result_directory(const char *directory);

/*
 * Makes vm.csv, vm.gnuplot and, where gnuplot is installed, vm.svg and vm.png in a directory.
 * 0, or -1 with a message on standard error.
 */
int vm_result_write(const struct vm_result *result, const struct vm_plan *plan,
                    char *const *policies, unsigned policy_count, const char *directory,
                    const char *accel);

#endif
