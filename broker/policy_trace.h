/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/policy_trace.h - what a policy was asked and what it said, as text: to be recorded from a
 * live broker, and replayed.
 *
 * Format, version 1. Lines of words with one space between them, at most POLICY_TRACE_LINE_MAX
 * bytes long, in this order:
 *
 *   vchan-trace 1
 *   config policy=NAME period_ms=N ...       before the first round, and when it has changed: each
 *                                            field of struct policy_config
 *   gap N                                    N rounds are missing here: the reader was too slow
 *   round zone=N now_ns=N total_bytes=N free_bytes=N largest_free_bytes=N pressure=B some=B
 *         all_refusals=B level_bytes=N       (one line) begins a round of the policy
 *   domain SLOT domain=N charged_bytes=N quota_bytes=N
 *                                            of this zone, if it has changed
 *   ring NUMBER channel=N ring=N ...         one line for each ring that the policy is asked about,
 *                                            in the order of the question: those fields of struct
 *                                            policy_ring that differ from the ring's last line (all
 *                                            0 at first). NUMBER: channel * 2 + ring
 *   decision NUMBER REASON refused=B from_bytes=N to_bytes=N number=N
 *                                            in the order of the answer
 *   end
 *
 * Numbers are decimal, B is 0 or 1. Names are those of the fields in broker/policy.h. A file may
 * break off anywhere: a round without its end did not happen.
 *
 * Pure but for memory and the stream that is read. The reader trusts nothing: what is malformed or
 * out of range is an error that names file and line.
 */
#ifndef VCHAN_BROKER_POLICY_TRACE_H
#define VCHAN_BROKER_POLICY_TRACE_H

#include <stdint.h>
#include <stdio.h>

#include "broker/policy.h"

#define POLICY_TRACE_VERSION 1u
#define POLICY_TRACE_LINE_MAX 4096u
#define POLICY_TRACE_RINGS_MAX (1u << 21)
#define POLICY_TRACE_ZONES_MAX 256u
#define POLICY_TRACE_ERROR_BYTES 256u

struct policy_trace_writer;

/* NULL: no memory. */
struct policy_trace_writer *policy_trace_writer_new(void);
void policy_trace_writer_free(struct policy_trace_writer *writer); /* NULL is ignored */

/* Writes to any stream, which the caller looks after. */
void policy_trace_write_header(FILE *out);
void policy_trace_write_config(FILE *out, const struct policy *policy,
                               const struct policy_config *config);
void policy_trace_write_gap(FILE *out, uint64_t rounds);
/* 0, or -E2BIG: a number of a ring, a zone or a domain is too large; nothing is written. */
int policy_trace_write_round(struct policy_trace_writer *writer, FILE *out, uint32_t zone,
                             const struct policy_input *input,
                             const struct policy_decision *decisions, size_t count);

/* One round as it was read; all of it is the reader's, until the next one. */
struct policy_trace_round {
    unsigned line; /* of its beginning */
    uint32_t zone;
    const struct policy *policy;
    struct policy_config config;
    struct policy_input input; /* ready to be given to any policy */
    const struct policy_decision *decisions;
    size_t decision_count;
    uint64_t missing; /* rounds, before this one */
};

struct policy_trace_reader;

/* name: how messages call the stream, which the caller closes. NULL: no memory. */
struct policy_trace_reader *policy_trace_reader_new(FILE *in, const char *name);
void policy_trace_reader_free(struct policy_trace_reader *reader); /* NULL is ignored */

/* 1: the next round. 0: there is none. -EINVAL, -EIO, -ENOMEM, with the sentence in error. */
int policy_trace_read(struct policy_trace_reader *reader, struct policy_trace_round *round,
                      char error[POLICY_TRACE_ERROR_BYTES]);

/* The word for a reason in a trace ("stalls"). */
const char *policy_trace_reason(enum policy_reason reason);

#endif
