/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/poller.h - looks where nothing rings: devices without interrupts (sysfs).
 *
 * A timer looks at the mailboxes of such devices, and at what the other end and the broker write
 * about the ends of the programs here: positions, switches, generations, closings, states. An end
 * that sleeps is woken when what it waits for has come, or anything has changed; every end when the
 * channel's state has. It looks every millisecond while something happens, less and less often
 * when nothing does, and not at all without such a device.
 */
#ifndef VCHAN_AGENT_POLLER_H
#define VCHAN_AGENT_POLLER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/agent/loop.h"
#include "client/agent/vectors.h"
#include "ring/layout.h"

struct agent;

/* One end of a channel. */
struct polled {
    TAILQ_ENTRY(polled) link; /* owner: poller.ends */
    struct vector *vector;
    struct layout_channel_page *page;
    bool server;
    uint64_t seen[2];     /* what was there at the last look: of the rings it receives, sends in */
    uint64_t seen_state;
    uint32_t rung[2];     /* arming that was rung for */
};

struct poller {
    struct agent *agent;
    struct loop_source timer;
    uint64_t pause_ms;
    uint32_t quiet; /* looks without any change */
    TAILQ_HEAD(, polled) ends;
};

int poller_init(struct poller *poller, struct agent *agent);
void poller_deinit(struct poller *poller);

/* Devices have come or gone: starts or stops looking. */
void poller_update(struct poller *poller);

/*
 * An end is there: page_offset of its channel's page, which this maps. `vector` is what wakes it
 * and outlives it. -errno.
 */
int poller_add(struct poller *poller, struct device *device, uint64_t page_offset, bool server,
               struct vector *vector, struct polled **out);
/* NULL: nothing. */
void poller_remove(struct poller *poller, struct polled *polled);

/* Looks at one end, wakes it if need be. True: something had changed. (For tests.) */
bool poller_look(struct polled *polled);

#endif
