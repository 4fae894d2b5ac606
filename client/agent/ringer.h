/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/ringer.h - waking a program that may be hostile.
 *
 * A program has the eventfd that it sleeps on, and can clear O_NONBLOCK and write it full: whoever
 * writes it next sleeps. No kernel so far has a write to an eventfd that says itself that it must
 * not wait (RWF_NOWAIT: EOPNOTSUPP). So a timer interrupts a write that takes RINGER_PATIENCE_MS.
 */
#ifndef VCHAN_AGENT_RINGER_H
#define VCHAN_AGENT_RINGER_H

#include <stdbool.h>
#include <time.h>

#define RINGER_PATIENCE_MS 2

struct ringer {
    timer_t watchdog; /* signals the thread that called ringer_init */
    bool made;
};

/* Installs a handler for SIGALRM. 0, -EAGAIN. */
int ringer_init(struct ringer *ringer);
void ringer_deinit(struct ringer *ringer);

/* False: the write had to be interrupted; its owner is better not rung again. */
bool ringer_ring(const struct ringer *ringer, int event_fd);

#endif
