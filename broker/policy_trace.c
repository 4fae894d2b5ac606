/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/policy_trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "broker/policy_field.h"
#include "broker/policy_trace_state.h"

static const char *const reasons[] = {
    [POLICY_NO_REASON] = "none",
    [POLICY_STALLS] = "stalls",
    [POLICY_IDLE] = "idle",
    [POLICY_SURPLUS] = "surplus",
    [POLICY_UNREAD] = "unread",
    [POLICY_FAIR_SHARE] = "fair-share",
    [POLICY_EQUAL_SHARE] = "equal-share",
    [POLICY_ACTIVE] = "active",
    [POLICY_FOUR_FIFTHS] = "four-fifths",
    [POLICY_INACTIVE] = "inactive",
    [POLICY_NOT_READ] = "not-read",
    [POLICY_AT_MAX] = "at-max",
    [POLICY_AT_QUOTA] = "at-quota",
    [POLICY_REGION_FULL] = "region-full",
    [POLICY_DWELLS] = "dwells",
    [POLICY_READER_BUSY] = "reader-busy",
    [POLICY_NO_HELP] = "no-help",
    [POLICY_LATER] = "later",
    [POLICY_FRAGMENTED] = "fragmented",
};

const char *policy_trace_reason(enum policy_reason reason)
{
    return reasons[reason];
}

int policy_trace_reason_find(const char *word)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (strcmp(reasons[i], word) == 0)
            return (int)i;
    return -EINVAL;
}

int policy_trace_state_init(struct policy_trace_state *state)
{
    /* Mostly untouched, so that they cost address space, not memory. */
    state->rings = calloc(POLICY_TRACE_RINGS_MAX, sizeof(*state->rings));
    state->domains =
        calloc(POLICY_TRACE_ZONES_MAX * (size_t)POLICY_TRACE_DOMAINS_MAX, sizeof(*state->domains));
    if (state->rings && state->domains)
        return 0;
    policy_trace_state_deinit(state);
    return -ENOMEM;
}

void policy_trace_state_deinit(struct policy_trace_state *state)
{
    free(state->rings);
    free(state->domains);
    *state = (struct policy_trace_state){0};
}

struct policy_domain *policy_trace_domains(const struct policy_trace_state *state, uint32_t zone)
{
    return &state->domains[zone * (size_t)POLICY_TRACE_DOMAINS_MAX];
}

struct policy_trace_writer {
    struct policy_trace_state state; /* as last written */
};

struct policy_trace_writer *policy_trace_writer_new(void)
{
    struct policy_trace_writer *writer = calloc(1, sizeof(*writer));

    if (writer && policy_trace_state_init(&writer->state) < 0) {
        free(writer);
        writer = NULL;
    }
    return writer;
}

void policy_trace_writer_free(struct policy_trace_writer *writer)
{
    if (!writer)
        return;
    policy_trace_state_deinit(&writer->state);
    free(writer);
}

static void write_field(FILE *out, const void *object, const struct policy_field *field)
{
    fprintf(out, " %s=%" PRIu64, field->name, policy_field_get(object, field));
}

static void write_all(FILE *out, const void *object, const struct policy_fields *fields)
{
    for (size_t i = 0; i < fields->count; i++)
        write_field(out, object, &fields->fields[i]);
    fputc('\n', out);
}

void policy_trace_write_header(FILE *out)
{
    fprintf(out, "vchan-trace %u\n", POLICY_TRACE_VERSION);
}

void policy_trace_write_config(FILE *out, const struct policy *policy,
                               const struct policy_config *config)
{
    fprintf(out, "config policy=%s", policy->name);
    write_all(out, config, &policy_config_fields);
}

void policy_trace_write_gap(FILE *out, uint64_t rounds)
{
    fprintf(out, "gap %" PRIu64 "\n", rounds);
}

static uint64_t number_of(const struct policy_ring *ring)
{
    return (uint64_t)ring->channel * 2 + ring->ring;
}

static bool fits(uint32_t zone, const struct policy_input *input)
{
    for (size_t i = 0; i < input->ring_count; i++)
        if (number_of(input->rings[i]) >= POLICY_TRACE_RINGS_MAX)
            return false;
    return zone < POLICY_TRACE_ZONES_MAX && input->domain_count <= POLICY_TRACE_DOMAINS_MAX;
}

static void write_domains(struct policy_trace_writer *writer, FILE *out, uint32_t zone,
                          const struct policy_input *input)
{
    struct policy_domain *known = policy_trace_domains(&writer->state, zone);

    for (size_t i = 0; i < input->domain_count; i++) {
        const struct policy_domain *now = &input->domains[i];
        if (now->domain == known[i].domain && now->charged_bytes == known[i].charged_bytes &&
            now->quota_bytes == known[i].quota_bytes)
            continue;
        fprintf(out, "domain %zu", i);
        write_all(out, now, &policy_domain_fields);
        known[i] = *now;
    }
}

static void write_rings(struct policy_trace_writer *writer, FILE *out,
                        const struct policy_input *input)
{
    for (size_t i = 0; i < input->ring_count; i++) {
        const struct policy_ring *now = input->rings[i];
        struct policy_ring *known = &writer->state.rings[number_of(now)];
        fprintf(out, "ring %" PRIu64, number_of(now));
        for (size_t field = 0; field < policy_ring_fields.count; field++) {
            const struct policy_field *which = &policy_ring_fields.fields[field];
            if (policy_field_get(now, which) != policy_field_get(known, which))
                write_field(out, now, which);
        }
        fputc('\n', out);
        *known = *now;
    }
}

int policy_trace_write_round(struct policy_trace_writer *writer, FILE *out, uint32_t zone,
                             const struct policy_input *input,
                             const struct policy_decision *decisions, size_t count)
{
    if (!fits(zone, input))
        return -E2BIG;
    fprintf(out, "round zone=%u", zone);
    write_all(out, input, &policy_round_fields);
    write_domains(writer, out, zone, input);
    write_rings(writer, out, input);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "decision %" PRIu64 " %s", number_of(input->rings[decisions[i].index]),
                policy_trace_reason(decisions[i].reason));
        write_all(out, &decisions[i], &policy_decision_fields);
    }
    fputs("end\n", out);
    return 0;
}
