/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/policy.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void policy_config_init(struct policy_config *config)
{
    *config = (struct policy_config){
        .period_ms = 100,
        .notifications = 100,
        .dwell_ms = 250,
        .grow_dwell_ms = 20,
        .stall_permille = 20,
        .grow_percent = 200,
        .pressure_percent = 400,
        .shrink_percent = 12,
        .hysteresis_percent = 25,
        .calm_ms = 2000,
        .idle_ms = 3000,
        .unread_ms = 1000,
        .horizon_ms = 500,
        .cache_bytes = 1u << 20,
        .alpha_percent = 100,
        .reserve_permille = 30,
        .moves_max = 256,
        .move_bytes_max = 256u << 20,
    };
}

/*
 * The name of the first field outside its range; the upper ends keep the policies' arithmetic in 64
 * bits.
 */
const char *policy_config_check(const struct policy_config *config)
{
#define HOUR_MS 3600000u
    const struct {
        const char *name;
        uint64_t value, least, most;
    } ranges[] = {
        {"period_ms", config->period_ms, 10, 60000},
        {"notifications", config->notifications, 0, UINT32_MAX},
        {"dwell_ms", config->dwell_ms, 0, HOUR_MS},
        {"grow_dwell_ms", config->grow_dwell_ms, 0, HOUR_MS},
        {"stall_permille", config->stall_permille, 1, 1000},
        {"grow_percent", config->grow_percent, 101, 1600},
        {"pressure_percent", config->pressure_percent, 101, 1600},
        {"shrink_percent", config->shrink_percent, 1, 50},
        {"hysteresis_percent", config->hysteresis_percent, 0, 90},
        {"calm_ms", config->calm_ms, 100, HOUR_MS},
        {"idle_ms", config->idle_ms, 100, HOUR_MS},
        {"unread_ms", config->unread_ms, 100, HOUR_MS},
        {"horizon_ms", config->horizon_ms, 1, HOUR_MS},
        {"cache_bytes", config->cache_bytes, 4096, (uint64_t)1 << 48},
        {"alpha_percent", config->alpha_percent, 1, 10000},
        {"reserve_permille", config->reserve_permille, 0, 900},
        {"moves_max", config->moves_max, 1, 4096},
        {"inactive_ms", config->inactive_ms, 0, HOUR_MS},
        {"move_bytes_max", config->move_bytes_max, 4096, (uint64_t)1 << 48},
    };
#undef HOUR_MS
    static_assert(sizeof(ranges) / sizeof(ranges[0]) == sizeof(*config) / sizeof(uint64_t),
                  "a range for each field");

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (ranges[i].value < ranges[i].least || ranges[i].value > ranges[i].most)
            return ranges[i].name;
    }
    return NULL;
}

const struct policy policies[POLICY_COUNT] = {
    {"default", policy_default_plan, true},
    {"static", policy_static_plan, false}, /* all rings count for the size of a share */
    {"secure-ivshmem", policy_secure_ivshmem_plan, true},
};

const struct policy *policy_find(const char *name)
{
    for (size_t i = 0; i < POLICY_COUNT; i++) {
        if (strcmp(policies[i].name, name) == 0)
            return &policies[i];
    }
    return NULL;
}

const char *policy_names(void)
{
    static_assert(POLICY_COUNT == 3, "name them all");
    return "default, static, secure-ivshmem";
}

struct amount {
    char text[24];
};

static struct amount bytes_text(uint64_t bytes)
{
    struct amount amount;
    const char *unit = bytes < 1u << 20 ? "KiB" : bytes < 1u << 30 ? "MiB" : "GiB";
    double value = (double)bytes / (bytes < 1u << 20   ? 1u << 10
                                    : bytes < 1u << 30 ? 1u << 20
                                                       : 1u << 30);

    snprintf(amount.text, sizeof(amount.text), "%.4g %s", value, unit);
    return amount;
}

static struct amount time_text(uint64_t ms)
{
    struct amount amount;

    if (ms < 1000)
        snprintf(amount.text, sizeof(amount.text), "%u ms", (unsigned)ms);
    else
        snprintf(amount.text, sizeof(amount.text), "%.3g s", (double)ms / 1000);
    return amount;
}

static struct amount share_text(uint64_t permille)
{
    struct amount amount;

    snprintf(amount.text, sizeof(amount.text), "%.3g%%", (double)permille / 10);
    return amount;
}

void policy_reason_text(const struct policy_decision *decision, char *text, size_t text_bytes)
{
    uint64_t number = decision->number;

#define SAY(...) \
    snprintf(text, text_bytes, __VA_ARGS__); \
    return
    switch (decision->reason) {
    case POLICY_NO_REASON:
        break;
    case POLICY_STALLS:
        if (number == 0) {
            SAY("its sender lacks space at this moment, and its receiver reads");
        }
        SAY("its sender stalled %s of the time, and its receiver reads", share_text(number).text);
    case POLICY_IDLE:
        SAY("nothing has gone through it for %s", time_text(number).text);
    case POLICY_SURPLUS:
        SAY("it has lately held %s at most", bytes_text(number).text);
    case POLICY_UNREAD:
        SAY("its receiver has not read for %s", time_text(number).text);
    case POLICY_FAIR_SHARE:
        SAY("others need memory, its share is %s", bytes_text(number).text);
    case POLICY_EQUAL_SHARE:
        SAY("an equal share for each of %llu rings", (unsigned long long)number);
    case POLICY_ACTIVE:
        SAY("it was active: one block more");
    case POLICY_FOUR_FIFTHS:
        SAY("nothing has gone through it for %s: four fifths", time_text(number).text);
    case POLICY_INACTIVE:
        SAY("it has been inactive for %s: to its floor", time_text(number).text);
    case POLICY_NOT_READ:
        SAY("its sender stalls, but its receiver has not read for %s", time_text(number).text);
    case POLICY_AT_MAX:
        SAY("its sender stalls, but its maximum is %s", bytes_text(number).text);
    case POLICY_AT_QUOTA:
        SAY("it wants more, but its sender's quota is %s", bytes_text(number).text);
    case POLICY_REGION_FULL:
        SAY("its sender stalls, but memory is short, its share is %s", bytes_text(number).text);
    case POLICY_DWELLS:
        SAY("its sender stalls, but its size changed only %s ago", time_text(number).text);
    case POLICY_READER_BUSY:
        SAY("its sender stalls, but its receiver is busy: more would only lie longer (%s stalled)",
            share_text(number).text);
    case POLICY_NO_HELP:
        SAY("its sender stalls, but its last growth did not help (%s stalled)",
            share_text(number).text);
    case POLICY_LATER:
        SAY("it wants %s, which has to wait for a later round", bytes_text(number).text);
    case POLICY_FRAGMENTED:
        SAY("its sender stalls, but no free run is longer than %s", bytes_text(number).text);
    }
#undef SAY
    snprintf(text, text_bytes, "no reason");
}

/* That there is no room yet is no news of a ring that was told lately why it cannot grow. */
static bool is_about_room(enum policy_reason reason)
{
    return reason == POLICY_LATER || reason == POLICY_FRAGMENTED || reason == POLICY_REGION_FULL;
}

void policy_append(const struct policy_input *input, const struct policy_decision *decision,
                   struct policy_decision *decisions, size_t *count, size_t max)
{
    const struct policy_ring *ring = input->rings[decision->index];

    if (*count == max)
        return;
    if (decision->refused && !input->all_refusals &&
        (decision->reason == ring->refused ||
         (is_about_room(decision->reason) && ring->refused != POLICY_NO_REASON)))
        return;
    decisions[(*count)++] = *decision;
}

bool policy_decision_equal(const struct policy_decision *a, const struct policy_decision *b)
{
    return a->index == b->index && a->refused == b->refused && a->reason == b->reason &&
           a->from_bytes == b->from_bytes && a->to_bytes == b->to_bytes && a->number == b->number;
}
