/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/policy_field.h"

#include <string.h>

#include "broker/policy.h"

/* No region is larger; the policies' arithmetic has room above it. */
#define BYTES_MOST ((uint64_t)1 << 50)
#define POLICY_REASON_LAST POLICY_FRAGMENTED
#define FIELD(type, name, most) \
    { \
#name, offsetof(struct type, name), sizeof(((struct type *)0)->name), most \
    }

static const struct policy_field ring[] = {
    FIELD(policy_ring, incarnation, UINT64_MAX),
    FIELD(policy_ring, channel, UINT32_MAX),
    FIELD(policy_ring, ring, UINT32_MAX),
    FIELD(policy_ring, domain, UINT32_MAX),
    FIELD(policy_ring, weight, UINT32_MAX),
    FIELD(policy_ring, size_bytes, BYTES_MOST),
    FIELD(policy_ring, min_bytes, BYTES_MOST),
    FIELD(policy_ring, max_bytes, UINT64_MAX),
    FIELD(policy_ring, promised_bytes, BYTES_MOST),
    FIELD(policy_ring, moving, 1),
    FIELD(policy_ring, interval_ns, UINT64_MAX),
    FIELD(policy_ring, last_interval_ns, UINT64_MAX),
    FIELD(policy_ring, sent_bytes, BYTES_MOST),
    FIELD(policy_ring, last_sent_bytes, BYTES_MOST),
    FIELD(policy_ring, received_bytes, BYTES_MOST),
    FIELD(policy_ring, last_received_bytes, BYTES_MOST),
    FIELD(policy_ring, stalls, UINT64_MAX),
    FIELD(policy_ring, last_stalls, UINT64_MAX),
    FIELD(policy_ring, stall_ns, UINT64_MAX),
    FIELD(policy_ring, last_stall_ns, UINT64_MAX),
    FIELD(policy_ring, sender_sleeps, UINT64_MAX),
    FIELD(policy_ring, receiver_sleeps, UINT64_MAX),
    FIELD(policy_ring, operations, UINT64_MAX),
    FIELD(policy_ring, stalled, 1),
    FIELD(policy_ring, held_bytes, BYTES_MOST),
    FIELD(policy_ring, peak_bytes, BYTES_MOST),
    FIELD(policy_ring, lately_bytes, BYTES_MOST),
    FIELD(policy_ring, recall, POLICY_RECALL_MAX),
    FIELD(policy_ring, active_ns, UINT64_MAX),
    FIELD(policy_ring, received_ns, UINT64_MAX),
    FIELD(policy_ring, stalled_ns, UINT64_MAX),
    FIELD(policy_ring, drain_rate, UINT64_MAX),
    FIELD(policy_ring, starved_ns, UINT64_MAX),
    FIELD(policy_ring, changed_ns, UINT64_MAX),
    FIELD(policy_ring, former_bytes, BYTES_MOST),
    FIELD(policy_ring, grew, 1),
    FIELD(policy_ring, judging, 1),
    FIELD(policy_ring, no_help, 1),
    FIELD(policy_ring, patience, POLICY_PATIENCE_MAX),
    FIELD(policy_ring, refused, POLICY_REASON_LAST),
};

static const struct policy_field config[] = {
    FIELD(policy_config, period_ms, UINT64_MAX),
    FIELD(policy_config, notifications, UINT64_MAX),
    FIELD(policy_config, dwell_ms, UINT64_MAX),
    FIELD(policy_config, grow_dwell_ms, UINT64_MAX),
    FIELD(policy_config, stall_permille, UINT64_MAX),
    FIELD(policy_config, grow_percent, UINT64_MAX),
    FIELD(policy_config, pressure_percent, UINT64_MAX),
    FIELD(policy_config, shrink_percent, UINT64_MAX),
    FIELD(policy_config, hysteresis_percent, UINT64_MAX),
    FIELD(policy_config, calm_ms, UINT64_MAX),
    FIELD(policy_config, idle_ms, UINT64_MAX),
    FIELD(policy_config, unread_ms, UINT64_MAX),
    FIELD(policy_config, horizon_ms, UINT64_MAX),
    FIELD(policy_config, cache_bytes, UINT64_MAX),
    FIELD(policy_config, alpha_percent, UINT64_MAX),
    FIELD(policy_config, reserve_permille, UINT64_MAX),
    FIELD(policy_config, inactive_ms, UINT64_MAX),
    FIELD(policy_config, moves_max, UINT64_MAX),
    FIELD(policy_config, move_bytes_max, UINT64_MAX),
};

static const struct policy_field domain[] = {
    FIELD(policy_domain, domain, UINT32_MAX),
    FIELD(policy_domain, charged_bytes, BYTES_MOST),
    FIELD(policy_domain, quota_bytes, BYTES_MOST),
};

static const struct policy_field input[] = {
    FIELD(policy_input, now_ns, UINT64_MAX),
    FIELD(policy_input, total_bytes, BYTES_MOST),
    FIELD(policy_input, free_bytes, BYTES_MOST),
    FIELD(policy_input, largest_free_bytes, BYTES_MOST),
    FIELD(policy_input, pressure, 1),
    FIELD(policy_input, some, 1),
    FIELD(policy_input, all_refusals, 1),
    FIELD(policy_input, level_bytes, BYTES_MOST),
};

static const struct policy_field decision[] = {
    FIELD(policy_decision, refused, 1),
    FIELD(policy_decision, from_bytes, BYTES_MOST),
    FIELD(policy_decision, to_bytes, BYTES_MOST),
    FIELD(policy_decision, number, UINT64_MAX),
};

const struct policy_fields policy_ring_fields = {ring, sizeof(ring) / sizeof(ring[0])};
const struct policy_fields policy_config_fields = {config, sizeof(config) / sizeof(config[0])};
const struct policy_fields policy_domain_fields = {domain, sizeof(domain) / sizeof(domain[0])};
const struct policy_fields policy_round_fields = {input, sizeof(input) / sizeof(input[0])};
const struct policy_fields policy_decision_fields = {decision,
                                                     sizeof(decision) / sizeof(decision[0])};

uint64_t policy_field_get(const void *object, const struct policy_field *field)
{
    const char *from = (const char *)object + field->offset;
    uint64_t value = 0;
    uint32_t word;
    bool flag;

    if (field->bytes == sizeof(value)) {
        memcpy(&value, from, sizeof(value));
    } else if (field->bytes == sizeof(word)) {
        memcpy(&word, from, sizeof(word));
        value = word;
    } else {
        memcpy(&flag, from, sizeof(flag));
        value = flag;
    }
    return value;
}

void policy_field_set(void *object, const struct policy_field *field, uint64_t value)
{
    char *to = (char *)object + field->offset;
    uint32_t word = (uint32_t)value;
    bool flag = value != 0;

    if (field->bytes == sizeof(value))
        memcpy(to, &value, sizeof(value));
    else if (field->bytes == sizeof(word))
        memcpy(to, &word, sizeof(word));
    else
        memcpy(to, &flag, sizeof(flag));
}

const struct policy_field *policy_field_find(const struct policy_fields *fields, const char *name,
                                             size_t *hint)
{
    for (size_t i = 0; i < fields->count; i++) {
        size_t at = (*hint + i) % fields->count;
        if (strcmp(fields->fields[at].name, name) == 0) {
            *hint = at + 1;
            return &fields->fields[at];
        }
    }
    return NULL;
}
