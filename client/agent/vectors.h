/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client/agent/vectors.h - who is woken by which interrupt of a device.
 *
 *   vector 0            the mailbox: the agent's own
 *   1 to count - 2      one end of a program each; the broker says which
 *   count - 1           shared by all ends that there was no vector left for (if count is 1, with
 *                       the mailbox)
 *
 * An interrupt writes an eventfd. One that has been given to a program is never given to another:
 * the vector gets a fresh one each time. The shared vector's is the agent's, which passes a ring on
 * to the eventfds of all who share it. A device without interrupts has only such, and they are rung
 * by who looks for it (client/agent/poller.h).
 */
#ifndef VCHAN_AGENT_VECTORS_H
#define VCHAN_AGENT_VECTORS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/agent/device.h"
#include "client/agent/loop.h"
#include "client/agent/ringer.h"

struct vectors;

/* What wakes one end. */
struct vector {
    TAILQ_ENTRY(vector) link; /* owner: vectors.waiters, if it is shared */
    struct vectors *vectors;  /* NULL: none is held */
    uint32_t number;
    int event_fd;
    bool shared;
    bool deaf; /* ringing it had to be interrupted */
};

struct vectors {
    struct device *device;
    const struct ringer *ringer;
    struct loop *loop;
    uint32_t count; /* in use, of those that the device has */
    struct loop_source source;
    int shared_fd; /* -1: none is shared by interrupt */
    struct vector *holder[DEVICE_VECTORS_MAX];
    TAILQ_HEAD(, vector) waiters;
};

void vectors_init(struct vectors *vectors, struct device *device, struct loop *loop,
                  const struct ringer *ringer);
/* All are given back. The device may be closed already. */
void vectors_deinit(struct vectors *vectors);

/* How many the broker uses. -errno. */
int vectors_use(struct vectors *vectors, uint32_t count);

/* Makes vector->event_fd, which it owns. -EINVAL: no such number; -EMFILE; -errno of the device. */
int vectors_take(struct vectors *vectors, uint32_t number, struct vector *vector);
void vectors_give(struct vector *vector);

/* Wakes whoever sleeps on it. */
void vectors_wake(struct vector *vector);
/* All that share the last one. */
void vectors_wake_shared(struct vectors *vectors);

#endif
