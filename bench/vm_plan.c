/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench/vm_plan.h"

#include <string.h>

#define HOST_PORT 9000u
#define GUEST_PORT 9100u
#define CHUNK_BYTES 16384u
#define VISIT_US 10000u

enum kind { STEADY, BURSTY, QUIET };

static const struct vm_flow kinds[] = {
    [STEADY] = {.chunk_bytes = CHUNK_BYTES, .kibs = 2048, .visit_us = VISIT_US},
    [BURSTY] = {.chunk_bytes = CHUNK_BYTES,
                .on_us = 500000,
                .off_us = 3500000,
                .kibs = 40960,
                .visit_us = VISIT_US},
    [QUIET] = {.chunk_bytes = 1024, .kibs = 20, .visit_us = VISIT_US},
};

static void add_channel(struct vm_plan *plan, unsigned server, unsigned client, unsigned port)
{
    for (int from_serves = 1; from_serves >= 0; from_serves--) {
        struct vm_flow *flow = &plan->flows[plan->count++];
        flow->from = from_serves ? server : client;
        flow->to = from_serves ? client : server;
        flow->port = port;
        flow->from_serves = from_serves;
    }
}

bool vm_plan_make(struct vm_plan *plan, unsigned guests, const char *profile)
{
    static const char *const names[] = {"steady", "bursty", "mixed"};
    unsigned chosen = 0;

    while (chosen < 3 && strcmp(names[chosen], profile) != 0)
        chosen++;
    if (chosen == 3)
        return false;
    *plan = (struct vm_plan){.guests = guests};
    for (unsigned guest = 1; guest <= guests; guest++)
        add_channel(plan, 0, guest, HOST_PORT);
    for (unsigned guest = 1; guests > 1 && guest <= guests; guest++)
        add_channel(plan, guest, guest % guests + 1, GUEST_PORT + guest);
    for (unsigned i = 0; i < plan->count; i++) {
        struct vm_flow *flow = &plan->flows[i];
        const struct vm_flow *kind = &kinds[chosen == 2 ? i % 3 : chosen];
        flow->chunk_bytes = kind->chunk_bytes;
        flow->on_us = kind->on_us;
        flow->off_us = kind->off_us;
        flow->kibs = kind->kibs;
        flow->visit_us = kind->visit_us;
    }
    return true;
}
