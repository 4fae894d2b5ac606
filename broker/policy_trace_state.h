/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/policy_trace_state.h - what lines of a trace are relative to: the same for who writes and
 * who reads it.
 */
#ifndef VCHAN_BROKER_POLICY_TRACE_STATE_H
#define VCHAN_BROKER_POLICY_TRACE_STATE_H

#include "broker/policy_trace.h"

#define POLICY_TRACE_DOMAINS_MAX 32768u

struct policy_trace_state {
    struct policy_ring *rings;     /* by number */
    struct policy_domain *domains; /* POLICY_TRACE_DOMAINS_MAX of each zone */
};

int policy_trace_state_init(struct policy_trace_state *state); /* 0, -ENOMEM */
void policy_trace_state_deinit(struct policy_trace_state *state);
struct policy_domain *policy_trace_domains(const struct policy_trace_state *state, uint32_t zone);

/* -EINVAL: there is no such reason. */
int policy_trace_reason_find(const char *word);

#endif
