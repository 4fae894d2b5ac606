/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * broker/policy_field.h - the fields of the policies' structures by name, for traces.
 */
#ifndef VCHAN_BROKER_POLICY_FIELD_H
#define VCHAN_BROKER_POLICY_FIELD_H

#include <stddef.h>
#include <stdint.h>

struct policy_field {
    const char *name;
    size_t offset;
    size_t bytes;
    uint64_t most; /* that a value may be */
};

struct policy_fields {
    const struct policy_field *fields;
    size_t count;
};

extern const struct policy_fields policy_ring_fields, policy_config_fields, policy_domain_fields,
    policy_round_fields, policy_decision_fields;

uint64_t policy_field_get(const void *object, const struct policy_field *field);
void policy_field_set(void *object, const struct policy_field *field, uint64_t value);

/*
 * By name; *hint: where to begin, set to what comes after the one found. NULL: there is none.
 */
const struct policy_field *policy_field_find(const struct policy_fields *fields, const char *name,
                                             size_t *hint);

#endif
